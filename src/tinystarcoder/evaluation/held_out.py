"""The Python files that a measurement runs over: wheels, sdists, folders, single files.

Every ``.py`` file counts, tests and vendored copies too: a measurement must not
depend on what a filter thinks today. The texts of one source are held in
memory at a time, in the order of their paths, so that a wheel and its unpacked
folder give the same measurement.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..corpus.decoding import SetAside, decode
from ..corpus.sources import open_package
from ..errors import CorpusError


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
        if not source.files:
            raise CorpusError(f"{path}: no readable Python file in it")
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
