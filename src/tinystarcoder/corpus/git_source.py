"""Git repositories as sources: the tracked files of one commit, read as objects.

Git runs in an empty repository of our own that only borrows the objects of the
one being read. So no config, hook, filter, attribute or remote of that one is
ever seen, nothing is checked out and nothing is fetched; its references are
plain files, read here.

What it gives up: references in the reftable format, SHA-256 repositories,
submodules, and objects that a partial clone lacks.
"""

import os
import re
import subprocess
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..errors import CorpusError
from .decoding import SetAside
from .sources import MAX_MEMBER_BYTES, SKIPPED_FOLDERS, Package, is_entered, wanted

_SYMLINK, _FILES = b"120000", (b"100644", b"100755", b"120000")
_HASH = re.compile(r"[0-9a-f]{40}")
_SHORT_HASH = re.compile(r"[0-9a-f]{4,40}")
_REFERENCE = re.compile(r"[\w@+=,./-]+", re.ASCII)


def is_repository(folder: Path) -> bool:
    """A folder with a ``.git``, or a bare repository."""
    return (folder / ".git").exists() or _is_git_folder(folder)


def commit_of(repository: Path, revision: str = "HEAD") -> str:
    """The full hash of a branch, a tag, HEAD or a commit. Raises CorpusError where none is."""
    with tempfile.TemporaryDirectory() as folder:
        borrower = _Borrower(repository, Path(folder))
        name = _resolved(borrower.git_folder, revision) or revision
        try:
            if not _SHORT_HASH.fullmatch(name):
                raise FileNotFoundError(name)
            found = borrower.run("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
        except (subprocess.CalledProcessError, OSError) as error:
            raise CorpusError(f"{repository}: no commit {revision!r} in this repository") from error
    return found.decode().strip()


def open_commit(
    repository: Path, commit: str, skipped: frozenset[str] = SKIPPED_FOLDERS
) -> Package:
    """The package that a commit of a repository holds; its version is the commit."""
    try:
        tree = _Tree(repository, commit, skipped)
    except (subprocess.CalledProcessError, OSError) as error:
        raise CorpusError(f"{repository}: commit {commit} cannot be read") from error
    folder = repository.resolve()
    name = folder.parent.name if folder.name == ".git" else folder.name.removesuffix(".git")
    return Package(tree, name, version=commit)


class _Borrower:
    """An empty repository in ``folder`` that borrows another's objects."""

    def __init__(self, repository: Path, folder: Path) -> None:
        self.git_folder = _git_folder(repository)
        objects = folder / "objects"
        (objects / "info").mkdir(parents=True)
        (folder / "refs").mkdir()
        (folder / "HEAD").write_text("ref: refs/heads/none\n")
        (folder / "config").write_text("[core]\n\trepositoryformatversion = 0\n\tbare = true\n")
        lent = _common(self.git_folder) / "objects"
        (objects / "info" / "alternates").write_text(f"{lent.resolve()}\n")
        clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        self._environment = clean | {
            "GIT_DIR": str(folder),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_NO_REPLACE_OBJECTS": "1",
            "GIT_NO_LAZY_FETCH": "1",
            "GIT_TERMINAL_PROMPT": "0",
            "LC_ALL": "C",
        }

    def run(self, *arguments: str) -> bytes:
        """What a git command prints. Raises CalledProcessError where it fails."""
        with self.start(*arguments) as process:
            printed, _ = process.communicate()
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, arguments)
        return printed

    def start(self, *arguments: str) -> "subprocess.Popen[bytes]":
        try:
            return subprocess.Popen(
                ["git", *arguments],
                env=self._environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        except FileNotFoundError as error:
            raise CorpusError("reading a git repository needs git, which is not here") from error


class _Tree:
    """A container: the files of one commit."""

    def __init__(self, repository: Path, commit: str, skipped: frozenset[str]) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._borrower = _Borrower(repository, Path(self._folder.name))
        listing = self._borrower.run("ls-tree", "-r", "-z", "-l", "--full-tree", commit)
        self._entries = {
            name: entry for name, entry in _entries(listing) if is_entered(name, skipped)
        }
        self._start()

    def _start(self) -> None:
        self._process = self._borrower.start("cat-file", "--batch")
        self._end = weakref.finalize(self, _end, self._process)

    def names(self) -> Sequence[str]:
        return list(self._entries)

    def read(self, name: str) -> bytes:
        mode, object_, size = self._entries[name]
        if mode == _SYMLINK:
            raise SetAside("symlink")
        if size > MAX_MEMBER_BYTES:
            raise SetAside("larger than 8 MiB")
        requests, answers = self._process.stdin, self._process.stdout
        if requests is None or answers is None:
            raise SetAside("broken object")
        requests.write(object_ + b"\n")
        requests.flush()
        header = answers.readline().split()
        if header[1:2] == [b"missing"]:
            raise SetAside("missing from the repository")
        data = answers.read(int(header[2]) + 1) if len(header) == 3 else b""
        if not data.endswith(b"\n"):  # Git ends at an object that does not unpack.
            self._end()
            self._start()
            raise SetAside("broken object")
        return data[:-1]


def _entries(listing: bytes) -> Iterator[tuple[str, tuple[bytes, bytes, int]]]:
    """Path to mode, object and size, of the files that matter. Names that are no UTF-8 do not."""
    for entry in listing.split(b"\0")[:-1]:
        facts, _, path = entry.partition(b"\t")
        mode, _, object_, size = facts.split()
        name = path.decode(errors="replace")
        if mode in _FILES and wanted(name):
            yield name, (mode, object_, int(size) if size.isdigit() else 0)


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    process.communicate()


def _git_folder(repository: Path) -> Path:
    """Where HEAD lies; a worktree's ``.git`` is a file that says where."""
    git = repository / ".git"
    if git.is_file():
        said = git.read_text(encoding="utf-8", errors="replace").removeprefix("gitdir:").strip()
        git = repository / said
    for folder in (git, repository):
        if _is_git_folder(folder) or (folder / "commondir").is_file():
            return folder
    raise CorpusError(f"{repository}: no git repository")


def _is_git_folder(folder: Path) -> bool:
    return (folder / "HEAD").is_file() and (folder / "objects").is_dir()


def _common(git_folder: Path) -> Path:
    """What worktrees share."""
    pointer = git_folder / "commondir"
    return git_folder / pointer.read_text().strip() if pointer.is_file() else git_folder


def _resolved(git_folder: Path, revision: str, depth: int = 0) -> str | None:
    """The hash that a reference holds, read from the repository's files; None for no reference."""
    if depth > 5 or not _REFERENCE.fullmatch(revision) or ".." in revision:
        return None
    common = _common(git_folder)
    prefixes = ("", "refs/", "refs/tags/", "refs/heads/", "refs/remotes/")
    for name in (prefix + revision for prefix in prefixes):
        file = (git_folder if name == "HEAD" else common) / name
        if (name == "HEAD" or name.startswith("refs/")) and file.is_file():
            value = file.read_text(encoding="utf-8", errors="replace").strip()
            if _HASH.fullmatch(value):
                return value
            if value.startswith("ref: "):
                return _resolved(git_folder, value.removeprefix("ref: "), depth + 1)
        if packed := _packed(common).get(name):
            return packed
    return None


def _packed(common: Path) -> dict[str, str]:
    file = common / "packed-refs"
    lines = (
        file.read_text(encoding="utf-8", errors="replace").splitlines() if file.is_file() else []
    )
    pairs = [line.split(" ", 1) for line in lines if _HASH.match(line)]
    return {name: value for value, name in pairs}
