"""The Python files that a measurement runs over: wheels, sdists, folders, single files.

Every ``.py`` file counts, tests and vendored copies too: a measurement must not
depend on what a filter thinks today. The texts of one source are held in
memory at a time, in the order of their paths, so that a wheel and its unpacked
folder give the same measurement.
"""

import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

from ..corpus.decoding import SetAside, decode
from ..corpus.sources import open_package
from ..errors import CorpusError

T = TypeVar("T")
# Takes a source's name, a path, its text and randomness; yields what can be cut, shuffled.
Cut = Callable[[str, str, str, random.Random], Iterator[T]]


@dataclass(frozen=True)
class Source:
    """One source: ``name`` is its package and version, or the file's own name."""

    name: str
    files: tuple[tuple[str, str], ...]
    """Path and text, line ends ``\\n``, in the order of the paths."""
    unreadable: tuple[str, ...]
    """Paths of the files that are no text, with the reason."""


def read_sources(paths: list[Path]) -> Iterator[Source]:
    """Each source in turn. Raises CorpusError where one cannot be read or has no Python."""
    for path in paths:
        source = _read_file(path) if path.suffix == ".py" else _read_package(path)
        if not any(text for _, text in source.files):
            raise CorpusError(f"{path}: no readable Python file in it, or empty ones alone")
        yield source


def _read_file(path: Path) -> Source:
    try:
        return Source(path.name, ((path.name, decode(path.read_bytes())),), ())
    except OSError as error:
        raise CorpusError(f"{path}: cannot be read: {error.strerror}") from error
    except SetAside as reason:
        raise CorpusError(f"{path}: cannot be read: {reason}") from reason


def _read_package(path: Path) -> Source:
    package = open_package(path, skipped=frozenset())
    files, unreadable = [], []
    for name, text in sorted(package.files(), key=lambda item: item[0]):
        if isinstance(text, SetAside):
            unreadable.append(f"{name}: {text}")
        else:
            files.append((name, text))
    return Source(f"{package.name} {package.version}".strip(), tuple(files), tuple(unreadable))


def deal(sources: Sequence[Source], count: int, seed: int, cut: Cut[T]) -> list[T]:
    """``count`` things cut from files, as evenly over the sources and their files as they come.

    The same for the same seed. Raises CorpusError where a source has not enough.
    """
    dealt: list[T] = []
    for index, source in enumerate(sources):
        share = count // len(sources) + (index < count % len(sources))
        chosen = list(islice(_dealt(source, seed, cut), share))
        if len(chosen) < share:
            raise CorpusError(
                f"{source.name}: only {len(chosen)} prompts can be cut, {share} are needed; "
                "give more files or ask for fewer"
            )
        dealt += chosen
    return dealt


def _dealt(source: Source, seed: int, cut: Cut[T]) -> Iterator[T]:
    """One thing of each file in shuffled order, then a second of each, …"""
    rng = random.Random(f"{seed} {source.name}")
    files = rng.sample(source.files, len(source.files))
    waiting = deque(cut(source.name, path, text, rng) for path, text in files)
    while waiting:
        cuts = waiting.popleft()
        thing = next(cuts, None)
        if thing is not None:
            yield thing
            waiting.append(cuts)
