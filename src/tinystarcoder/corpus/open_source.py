"""The door to every kind of source: what a user wrote, and the source that it means.

    requests, pypi:requests==2.32.3    a package's wheel, by pip; with a dot in its name
                                       pypi:zope.interface alone
    x.whl, x.tar.gz, x.zip             a wheel or an sdist
    a folder                           its Python files; of a git repository, those that
                                       HEAD tracks
    git+file:///path@REVISION          a git repository at a commit, bare ones too
    x.parquet, x.jsonl[.gz, .zst]      a file of code a row
    hf:OWNER/NAME[@REVISION]           a dataset by name
    x.ipynb, x.py                      a single file

Something on the disk wins over a package of that name, and what may be a mistyped
path never becomes a package: a stranger's could have that name. A source is small
and can be sent to a worker; it is opened there.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from ..errors import CorpusError
from . import git_source, pypi, sources, tables
from .decoding import SetAside


@dataclass(frozen=True)
class Source:
    """One source. ``kind`` is package, folder, git, table, dataset, file or unavailable."""

    kind: str
    name: str
    """As the manifest names it."""
    path: Path = Path()
    revision: str = ""
    """A commit; a dataset's revision; of an unavailable source, the reason."""

    @property
    def borrows_license(self) -> bool:
        """Whether ``--license`` may speak for it; a published package must for itself."""
        return self.kind != "package"

    def open(self, skipped: frozenset[str] = sources.SKIPPED_FOLDERS) -> sources.Opened:
        """Raises CorpusError where it is broken or not to be had."""
        if self.kind == "unavailable":
            raise CorpusError(self.revision)
        if self.kind == "git":
            return git_source.open_commit(self.path, self.revision, skipped)
        if self.kind == "table":
            return tables.open_table(self.path)
        if self.kind == "dataset":
            return tables.open_dataset(self.name.removeprefix("hf:"), self.revision or None)
        if self.kind == "file":
            return sources.open_file(self.path)
        return sources.open_package(self.path, skipped)

    def size(self) -> int:
        """Bytes on the disk, roughly: the largest sources are read first."""
        return self.path.stat().st_size if self.path.is_file() else 0

    def facts(self, skipped: frozenset[str]) -> list[Any]:
        """Equal for equal content, without reading it: names, sizes and times of change."""
        files = [self.path] if self.path.is_file() else []
        if self.kind == "folder":
            files = [self.path / name for name in sources.names_in(self.path, skipped)]
        stats = [(str(file), file.lstat().st_size, file.lstat().st_mtime_ns) for file in files]
        return [self.kind, self.name, str(self.path), self.revision, stats]


def find_source(text: str | Path) -> Source | str:
    """The source that a user means; for a package by name, the requirement yet to be fetched.

    Raises CorpusError for what is none.
    """
    said = str(text)
    if said.startswith("git+"):
        return _git(said)
    if said.startswith("hf:"):
        name, _, revision = said.removeprefix("hf:").partition("@")
        return Source("dataset", f"hf:{name}", revision=revision)
    if said.startswith("pypi:"):
        return _requirement(said.removeprefix("pypi:"))
    path = Path(said)
    if said and path.is_dir():
        return _folder(path)
    if path.is_file():
        return Source(_kind_of_file(path), path.name, path)
    if not pypi.is_name(said) or path.name.endswith(_SUFFIXES):
        raise CorpusError(f"{said}: no such source; give {_CHOICES}")
    if "." in said.partition("==")[0]:
        raise CorpusError(f"{said}: no such file or folder; if it is a package, give pypi:{said}")
    return said


def fetched(
    found: Sequence[Source | str], cache: Path, progress: Callable[[int, int], None]
) -> list[Source]:
    """Each source once; packages by name are downloaded, one after the other.

    A package without a wheel becomes an unavailable source, whose opening says why.
    """
    requirements = [item for item in dict.fromkeys(found) if isinstance(item, str)]
    wheels: dict[str, Source] = {}
    for done, requirement in enumerate(requirements):
        progress(done, len(requirements))
        try:
            wheel = pypi.fetch_wheel(requirement, cache)
            wheels[requirement] = Source("package", wheel.name, wheel)
        except SetAside as reason:
            wheels[requirement] = Source("unavailable", requirement, revision=str(reason))
    sources = (wheels[item] if isinstance(item, str) else item for item in found)
    return list(dict.fromkeys(sources))


_SUFFIXES = (".whl", ".tar.gz", ".tgz", ".zip", *tables.SUFFIXES, ".ipynb", ".py", ".gz", ".json")
_CHOICES = (
    "wheels, sdists, folders, git repositories (git+file:///PATH@REVISION), .parquet and .jsonl, "
    "notebooks, hf:OWNER/NAME, or the names of packages"
)


def _kind_of_file(path: Path) -> str:
    if path.name.endswith(tables.SUFFIXES):
        return "table"
    if path.suffix in (".ipynb", ".py"):
        return "file"
    sources.kind_of(path)
    return "package"


def _folder(path: Path) -> Source:
    if git_source.is_repository(path):
        return Source("git", path.resolve().name, path, git_source.commit_of(path))
    return Source("folder", path.name, path)


def _git(said: str) -> Source:
    url = urlsplit(said.removeprefix("git+"))
    location, revision = url.path, ""
    if not Path(unquote(location)).exists():
        location, _, revision = location.rpartition("@")
    path = Path(unquote(location))
    if url.scheme != "file" or url.netloc not in ("", "localhost"):
        raise CorpusError(f"{said}: only local repositories; clone it, then git+file:///PATH")
    if not path.is_dir() or not git_source.is_repository(path):
        raise CorpusError(f"{said}: no git repository at {path}")
    return Source("git", path.name, path, git_source.commit_of(path, revision or "HEAD"))


def _requirement(text: str) -> str:
    if not pypi.is_name(text):
        raise CorpusError(f"pypi:{text}: no package name; write NAME or NAME==VERSION")
    return text
