"""Packages by name: their wheels, downloaded by pip, one at a time, into a cache.

Only wheels are taken, so that nobody's build code runs. What is in the cache is
not asked for again, so an interrupted download goes on where it stopped. Which
index and which proxy is pip's own configuration.

What it gives up: a package that has no wheel for this Python is set aside; a
cached wheel stays until it is deleted, though a newer version may be out.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from packaging.utils import canonicalize_name

from ..errors import CorpusError
from .decoding import SetAside

_PIP = (
    *(sys.executable, "-m", "pip", "download", "--quiet", "--no-input"),
    *("--disable-pip-version-check", "--no-deps", "--only-binary=:all:"),
)
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?(?:==[A-Za-z0-9._+!-]+)?")
_NO_WHEEL = ("No matching distribution", "Could not find a version", "Requires-Python")
# What will be so for the next package too.
_NO_NETWORK = ("Retrying (", "ConnectionError", "Failed to establish", "timed out", "Max retries")
_STOPS = (*_NO_NETWORK, "No space left")


def is_name(text: str) -> bool:
    """Whether this can be a package's name, with ``==VERSION`` or without."""
    return bool(_NAME.fullmatch(text))


def default_cache() -> Path:
    """Where wheels are kept: the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "tinystarcoder" / "wheels"


def fetch_wheel(requirement: str, cache: Path) -> Path:
    """The wheel of ``NAME`` or ``NAME==VERSION``, from the cache or from the index.

    Raises SetAside where the index has no wheel of it, or a broken one, CorpusError
    where it cannot be reached or the wheel cannot be kept.
    """
    if cached := _cached(requirement, cache):
        return cached
    try:
        cache.mkdir(parents=True, exist_ok=True)
        # In a folder of its own first: a cache never holds half a wheel.
        with tempfile.TemporaryDirectory(dir=cache, prefix=".download-") as folder:
            done = subprocess.run(
                [*_PIP, "--dest", folder, "--", requirement],
                capture_output=True,
                text=True,
                stdin=subprocess.DEVNULL,
                check=False,
            )
            wheels = list(Path(folder).glob("*.whl"))
            if done.returncode or not wheels:
                raise _failure(requirement, done.stderr)
            return wheels[0].replace(cache / wheels[0].name)
    except OSError as error:
        raise CorpusError(f"{requirement}: cannot be kept in {cache}: {error}") from error


def _cached(requirement: str, cache: Path) -> Path | None:
    name, _, version = requirement.partition("==")
    found = [
        path
        for path in sorted(cache.glob("*.whl"))
        if canonicalize_name(path.name.split("-")[0]) == canonicalize_name(name)
        and version in ("", path.name.split("-")[1])
    ]
    return max(found, key=lambda path: path.stat().st_mtime_ns, default=None)


def _failure(requirement: str, said: str) -> Exception:
    """pip says of an index out of reach, too, that it found no distribution."""
    lines = [line for line in said.splitlines() if line.startswith("ERROR")] or said.splitlines()
    last = lines[-1].removeprefix("ERROR: ") if lines else "pip said nothing"
    if any(sign in said for sign in _STOPS):
        return CorpusError(
            f"{requirement}: cannot be downloaded; start again to go on: {last[:200]}"
        )
    if any(sign in said for sign in _NO_WHEEL):
        return SetAside("no wheel of it")
    return SetAside(f"not to be downloaded: {last[:200]}")
