"""Packages as sources: wheels, sdists given as files, folders.

A package is opened, its metadata and license files are read, and its ``*.py``
and ``*.ipynb`` files are decoded one after the other. Archives are read in
memory and never unpacked to the disk, and nothing in them is ever run or built,
so a path traversal has nowhere to go; such a member is set aside with the other
unusable ones. Other kinds of sources stand in the files beside this one;
``open_source.py`` is the door to all of them.

What it gives up: a member larger than 8 MiB is not read, and an archive that
unpacks to more than 2 GiB (a zip bomb) is refused whole.
"""

import gzip
import os
import re
import stat
import tarfile
import tomllib
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from email.message import Message
from email.parser import BytesHeaderParser
from email.utils import getaddresses
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import IO, Any, Protocol

from ..errors import CorpusError
from .decoding import SetAside, decode, mended
from .licenses import LicenseClaims, license_of_text
from .notebooks import notebook_text

MAX_MEMBER_BYTES = 8 << 20
MAX_ARCHIVE_BYTES = 2 << 30

# Never entered in a folder source: other people's packages, caches, tools.
SKIPPED_FOLDERS = frozenset({"site-packages", "dist-packages", "node_modules", "__pycache__"})

_LICENSE_FILE = re.compile(r"(?:un)?licen[cs]e|copying|copyright", re.IGNORECASE)
_DECLARED_LICENSE = re.compile(r"[^/]+\.dist-info/(?:(?:licenses|license_files)/)?[^/]+")
_CODE_SUFFIXES = frozenset({".py", ".pyc", ".pyi", ".ipynb", ".json", ".toml"})
_SDIST_SUFFIXES = (".tar.gz", ".tgz", ".zip")
_BROKEN_ARCHIVE = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error),
    *(EOFError, OSError, RuntimeError, ValueError),
)


@dataclass(frozen=True, slots=True)
class File:
    """One file of an opened source. What is left empty is what its source says."""

    path: str
    content: str | SetAside
    """Text, or the reason why there is none."""
    package: str = ""
    version: str = ""
    license: str = ""
    """SPDX expression."""
    stars: int | None = None


class Opened(Protocol):
    """An opened source, whatever its kind."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    @property
    def claims(self) -> LicenseClaims | None:
        """None where every file says its own license."""

    @property
    def authors(self) -> frozenset[str]:
        """Addresses of those who made it, in lower case."""

    def records(self) -> Iterator[File]:
        """The Python files and notebooks, one after the other."""


class Container(Protocol):
    """A wheel, an sdist, a folder, a git tree: names and their bytes."""

    def names(self) -> Sequence[str]:
        """Paths of the files inside, with forward slashes."""

    def read(self, name: str) -> bytes:
        """The bytes of one file. Raises SetAside where it must not or cannot be read."""


class Package:
    """An opened source: who it is, what it says about its license, its Python files."""

    def __init__(self, container: Container, default_name: str, version: str = "") -> None:
        self._container = container
        names = container.names()
        self._metadata_file = _metadata_file(names)
        self._root = _root_of(self._metadata_file)
        headers = self._headers()
        self.name = str(headers.get("Name") or mended(default_name))
        self.version = version or str(headers.get("Version") or "")
        self.authors = frozenset(_addresses(headers))
        self.claims = LicenseClaims(
            expression=str(headers.get("License-Expression") or ""),
            free_text=str(headers.get("License") or ""),
            classifiers=tuple(map(str, headers.get_all("Classifier", []))),
            files=tuple(self._license_files()),
        )

    def records(self) -> Iterator[File]:
        """Python files and notebooks; below a license file of its own, with that license."""
        nested = self._nested_licenses()
        for path, content in chain(self.files(), self._notebooks()):
            folders = map(str, PurePosixPath(path).parents)
            license_ = next((nested[folder] for folder in folders if folder in nested), "")
            yield File(path, content, license=license_)

    def files(self) -> Iterator[tuple[str, str | SetAside]]:
        """Path of each Python file, and its text or the reason why there is none."""
        return self._read(".py", decode)

    def _notebooks(self) -> Iterator[tuple[str, str | SetAside]]:
        return self._read(".ipynb", notebook_text)

    def _read(
        self, suffix: str, text_of: Callable[[bytes], str]
    ) -> Iterator[tuple[str, str | SetAside]]:
        for name in self._container.names():
            if not name.endswith(suffix):
                continue
            path = mended(name.removeprefix(self._root))
            try:
                yield path, text_of(self._container.read(name))
            except SetAside as reason:
                yield path, reason

    def _headers(self) -> "Message[str, str]":
        if self._metadata_file is None:
            return Message()
        data = self._container.read(self._metadata_file)
        if self._metadata_file.endswith(".toml"):
            return _headers_of_pyproject(data)
        return BytesHeaderParser().parsebytes(data)

    def _license_files(self) -> Iterator[tuple[str, str]]:
        """License texts of the package itself, not of what it bundles deeper down."""
        for name in self._license_names():
            path = name.removeprefix(self._root)
            if "/" not in path or _DECLARED_LICENSE.fullmatch(name):
                yield from self._license_text(name)

    def _nested_licenses(self) -> dict[str, str]:
        """Folders deeper down that have a license file of their own, and that license."""
        found = {}
        for name in self._license_names():
            folder = str(PurePosixPath(name.removeprefix(self._root)).parent)
            if folder != "." and ".dist-info/" not in name:
                for _, text in self._license_text(name):
                    if spdx := license_of_text(text):
                        found[folder] = spdx
        return found

    def _license_names(self) -> Iterator[str]:
        for name in self._container.names():
            path = PurePosixPath(name)
            if _LICENSE_FILE.search(path.name) and path.suffix not in _CODE_SUFFIXES:
                yield name

    def _license_text(self, name: str) -> Iterator[tuple[str, str]]:
        with suppress(SetAside):
            text = self._container.read(name).decode("utf-8", errors="replace")
            yield name.removeprefix(self._root), text


def open_package(path: Path, skipped: frozenset[str] = SKIPPED_FOLDERS) -> Package:
    """Opens one source. Raises CorpusError where it is none, or is broken."""
    kind = kind_of(path)
    if kind == "folder":
        return Package(_Folder(path, names_in(path, skipped)), path.resolve().name)
    default_name = path.name.split("-")[0]
    try:
        is_zip = path.suffix in (".whl", ".zip") or zipfile.is_zipfile(path)
        archive = _Zip(path) if is_zip else _Tar(path)
        return Package(archive, default_name)
    except SetAside as reason:
        raise CorpusError(f"{path}: {reason}") from reason
    except _BROKEN_ARCHIVE as error:
        raise CorpusError(f"{path}: not a readable archive: {error}") from error


def names_in(folder: Path, skipped: frozenset[str] = SKIPPED_FOLDERS) -> list[str]:
    """The files of a folder source, sorted; skipped and hidden folders are not entered."""
    names: list[str] = []
    for parent, folders, files in os.walk(folder):
        folders[:] = [folder for folder in folders if is_entered(f"{folder}/", skipped)]
        inside = Path(parent).relative_to(folder)
        names += [(inside / file).as_posix() for file in files if wanted(file)]
    return sorted(names)


def is_entered(name: str, skipped: frozenset[str]) -> bool:
    """Whether no folder of this path is skipped or hidden."""
    folders = name.split("/")[:-1]
    return not any(folder in skipped or folder.startswith(".") for folder in folders)


def open_file(path: Path) -> Package:
    """A single Python file or notebook as a package of its own, which names no license."""
    return Package(_Folder(path.parent, [path.name]), path.stem)


def kind_of(path: Path) -> str:
    """``wheel``, ``sdist`` or ``folder``. Raises CorpusError for anything else."""
    if path.is_dir():
        return "folder"
    if not path.exists():
        raise CorpusError(f"{path}: no such source; give wheels, sdists or folders")
    if path.suffix == ".whl":
        return "wheel"
    if path.name.endswith(_SDIST_SUFFIXES):
        return "sdist"
    raise CorpusError(f"{path}: neither a wheel (.whl), an sdist (.tar.gz, .zip) nor a folder")


class _Zip:
    def __init__(self, path: Path) -> None:
        self._archive = zipfile.ZipFile(path)
        self._members = {info.filename: info for info in self._archive.infolist()}
        _refuse_bomb(sum(i.file_size for name, i in self._members.items() if wanted(name)))

    def names(self) -> Sequence[str]:
        return [name for name, info in self._members.items() if not info.is_dir()]

    def read(self, name: str) -> bytes:
        _refuse_traversal(name)
        info = self._members[name]
        if stat.S_ISLNK(info.external_attr >> 16):
            raise SetAside("symlink")
        try:
            with self._archive.open(info) as stream:
                return _bounded(stream)
        except _BROKEN_ARCHIVE as error:
            raise SetAside("broken archive member") from error


class _Tar:
    """A compressed tar has no index, so what is wanted is kept in memory in one pass."""

    def __init__(self, path: Path) -> None:
        self._members: dict[str, bytes | SetAside] = {}
        with _BoundedGzip(path) as unpacked, tarfile.open(fileobj=unpacked, mode="r|") as archive:
            for member in archive:
                if not member.isdir() and wanted(member.name):
                    self._members[member.name] = self._content(archive, member)

    def names(self) -> Sequence[str]:
        return list(self._members)

    def read(self, name: str) -> bytes:
        content = self._members[name]
        if isinstance(content, SetAside):
            raise content
        return content

    @staticmethod
    def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes | SetAside:
        try:
            _refuse_traversal(member.name)
            if not member.isreg():
                return SetAside("symlink" if member.issym() or member.islnk() else "special file")
            stream = archive.extractfile(member)
            return _bounded(stream) if stream else SetAside("special file")
        except SetAside as reason:
            return reason


class _Folder:
    def __init__(self, root: Path, names: Sequence[str]) -> None:
        self._root = root
        self._names = names

    def names(self) -> Sequence[str]:
        return self._names

    def read(self, name: str) -> bytes:
        path = self._root / name
        # Links lead out of the folder, or to a file that is read anyway.
        if path.is_symlink():
            raise SetAside("symlink")
        try:
            with path.open("rb") as stream:
                return _bounded(stream)
        except OSError as error:
            raise SetAside("unreadable") from error


class _BoundedGzip(gzip.GzipFile):
    """Refuses to unpack without end: a tar is read through, whatever is wanted of it."""

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        _refuse_bomb(self.tell())
        return data


def _bounded(stream: IO[bytes]) -> bytes:
    """All of a stream that is small enough, whatever size its header claims."""
    data = stream.read(MAX_MEMBER_BYTES + 1)
    if len(data) > MAX_MEMBER_BYTES:
        raise SetAside("larger than 8 MiB")
    return data


def _refuse_bomb(size: int) -> None:
    if size > MAX_ARCHIVE_BYTES:
        raise SetAside("unpacks to more than 2 GiB")


def _refuse_traversal(name: str) -> None:
    if name.startswith(("/", "\\")) or ".." in re.split(r"[/\\]", name) or ":" in name[:3]:
        raise SetAside("path traversal")


def wanted(name: str) -> bool:
    """Whether a source reads this file at all: code, metadata, a license text."""
    base = name.rsplit("/", 1)[-1]
    return base.endswith((".py", ".ipynb")) or base in _METADATA or bool(_LICENSE_FILE.search(base))


_METADATA = ("METADATA", "PKG-INFO", "pyproject.toml")


def _metadata_file(names: Sequence[str]) -> str | None:
    """A wheel's METADATA, an sdist's PKG-INFO or a folder's pyproject.toml."""
    for pattern in (r"[^/]+\.dist-info/METADATA", r"(?:[^/]+/)?PKG-INFO", r"pyproject\.toml"):
        for name in names:
            if re.fullmatch(pattern, name):
                return name
    return None


def _root_of(metadata_file: str | None) -> str:
    """The folder ``NAME-VERSION/`` that everything in an sdist lies in; else nothing."""
    if metadata_file is not None and metadata_file.endswith("/PKG-INFO"):
        return metadata_file.removesuffix("PKG-INFO")
    return ""


def _headers_of_pyproject(data: bytes) -> "Message[str, str]":
    """[project] of a pyproject.toml as core metadata."""
    headers: Message[str, str] = Message()
    try:
        project = tomllib.loads(data.decode()).get("project", {})
    except ValueError:
        return headers
    if not isinstance(project, Mapping):
        return headers
    license_ = project.get("license", "")
    if isinstance(license_, Mapping):
        headers["License"] = " ".join(str(license_.get("text", "")).split())
    else:
        headers["License-Expression"] = str(license_)
    for person in (*_list(project, "authors"), *_list(project, "maintainers")):
        if isinstance(person, Mapping):
            headers["Author-email"] = str(person.get("email", ""))
    headers["Name"] = str(project.get("name", ""))
    headers["Version"] = str(project.get("version", ""))
    for classifier in _list(project, "classifiers"):
        headers["Classifier"] = str(classifier)
    return headers


def _list(table: Mapping[str, Any], key: str) -> list[Any]:
    value = table.get(key)
    return value if isinstance(value, list) else []


def _addresses(headers: "Message[str, str]") -> Iterator[str]:
    for header in ("Author-email", "Maintainer-email"):
        for _, address in getaddresses([str(value) for value in headers.get_all(header, [])]):
            if address:
                yield address.lower()
