"""Where model-written code runs: a bubblewrap sandbox, made anew for every program.

- No network; PIDs, users, IPC and host name of its own; no capabilities.
- Only Python, its packages and the system's libraries are there, to be read; one
  folder, in memory, can be written to. No home, no environment.
- Its user is nobody special. Where bubblewrap is started by root, a first one
  mounts, then gives up root and starts the second: limits do not bind root.
- The process puts its own limits on CPU, memory, files and processes
  (``inside/limits.py``); who started it ends it at a deadline, and with it
  everything in its PID namespace.

It gives up threads and further processes in the code under test, which makes the
memory of one process a bound on all of it. It needs Linux and Debian's package
``bubblewrap``, and refuses to run without: ``UNSAFE`` is for those who say so.
"""

import compileall
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..errors import SandboxError

# As the sandbox sees them: this package's part that runs in it, and where it may write.
_PROGRAMS = "/sandbox"
_WRITABLE = "/tmp"
_WRITABLE_BYTES = 16 << 20
_NOBODY = "65534"

_HERE = Path(__file__).resolve().parent


class Sandbox:
    """Command lines that start one of the programs of ``inside/``."""

    def __init__(self, *, unsafe: bool = False) -> None:
        """``unsafe``: no sandbox at all, limits only. Raises SandboxError where there is none."""
        # From an editable install nothing has compiled them, and in the sandbox nothing can.
        compileall.compile_dir(_HERE / "inside", quiet=2)
        self._wrap: list[str] = []
        programs = str(_HERE) if unsafe else _PROGRAMS
        paths = [programs, sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
        self._start = (
            f"import sys; sys.path += {list(dict.fromkeys(paths))!r}; "
            "from inside.{} import main; main()"
        )
        if not unsafe:
            self._wrap = _bubblewrap()
            self._check()

    def command(self, program: str, *arguments: object) -> list[str]:
        """Runs ``inside/<program>.py``: in :func:`environment`, in a session of its own.

        The session keeps it from the terminal, and its process group is what to kill: the
        first process of the PID namespace is in it from the start, and all others die with
        that one. bubblewrap's own tie to its parent comes some time after the start.
        """
        # The interpreter itself: a virtual environment's link may lead through a home.
        python = [str(Path(sys.executable).resolve()), "-I", "-S", "-B", "-c"]
        return [*self._wrap, *python, self._start.format(program), *map(str, arguments)]

    def _check(self) -> None:
        done = subprocess.run(
            [*self._wrap, "/bin/true"], capture_output=True, text=True, env=environment()
        )
        if done.returncode:
            cause = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise SandboxError(
                f"bubblewrap does not work here ({cause}), and model-written code is not run "
                "without it; allow user namespaces, or say --unsafe-no-sandbox"
            )


def environment() -> dict[str, str]:
    """All that code in the sandbox finds in its environment."""
    return {
        "PATH": "/usr/bin:/bin",
        "HOME": _WRITABLE,
        "LANG": "C.UTF-8",
        "PYTHONHASHSEED": "0",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }


def _bubblewrap() -> list[str]:
    found = shutil.which("bwrap")
    if found is None:
        raise SandboxError(
            "model-written code is run in bubblewrap alone, which is not installed: "
            "apt-get install bubblewrap, or say --unsafe-no-sandbox"
        )
    isolated = [
        *(found, "--die-with-parent", "--cap-drop", "ALL"),
        *("--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts"),
        "--unshare-cgroup-try",
        *_mounts(),
    ]
    if os.getuid() != 0:
        return [*isolated, "--unshare-user", "--"]
    return [
        *isolated,
        *("--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID", "--"),
        *("setpriv", "--reuid", _NOBODY, "--regid", _NOBODY, "--clear-groups", "--no-new-privs"),
        *("bwrap", "--die-with-parent", "--unshare-user", "--cap-drop", "ALL"),
        *("--dev-bind", "/", "/", "--chdir", _WRITABLE, "--"),
    ]


def _mounts() -> Iterator[str]:
    yield from ("--ro-bind", "/usr", "/usr")
    for path in map(Path, ("/bin", "/sbin", "/lib", "/lib32", "/lib64")):
        if path.is_symlink():
            yield from ("--symlink", str(path.readlink()), str(path))
        elif path.exists():
            yield from ("--ro-bind", str(path), str(path))
    # Before the interpreter, which may lie below it.
    yield from ("--perms", "1777", "--size", str(_WRITABLE_BYTES), "--tmpfs", _WRITABLE)
    for folder in _pythons():
        # Its parents, closed to others in a home, are empty folders of the sandbox here.
        for parent in [*folder.parents][-2::-1]:
            yield from ("--perms", "0755", "--dir", str(parent))
        yield from ("--ro-bind", str(folder), str(folder))
    yield from ("--perms", "0755", "--dir", _PROGRAMS)
    yield from ("--ro-bind", str(_HERE / "inside"), f"{_PROGRAMS}/inside")
    yield from ("--proc", "/proc", "--dev", "/dev", "--remount-ro", "/dev")
    yield from ("--remount-ro", "/", "--chdir", _WRITABLE)


def _pythons() -> Sequence[Path]:
    """What an interpreter and its packages need beside /usr."""
    folders = [Path(sys.base_prefix), *map(Path, map(sysconfig.get_path, ("purelib", "platlib")))]
    wanted = [folder.resolve() for folder in folders]
    return [
        folder
        for folder in dict.fromkeys(wanted)
        if not any(folder.is_relative_to(o) for o in (Path("/usr"), *wanted) if o != folder)
    ]
