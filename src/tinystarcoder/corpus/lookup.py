"""Am I in it? A corpus asked for a package, a path or a piece of code.

Each question reads the corpus through, paths in a moment and texts in seconds,
and needs no index. A piece of code is found where it stands whole, white space
not counted; for parts of it there is ``attribution.py``.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pyarrow  # type: ignore[import-untyped]
from packaging.utils import canonicalize_name
from pyarrow import compute, parquet

from ..errors import CorpusError
from .parquet import read_manifest
from .words import WORD

_FACTS = ("path", "package", "version", "license")
_LETTER = rb"[\w\x80-\xff]"


@dataclass(frozen=True, slots=True)
class Found:
    """A file of the corpus; ``line`` is where a piece of code begins in it, from 1."""

    path: str
    package: str
    version: str
    license: str
    line: int = 1


def packages(folder: Path, name: str) -> list[dict[str, Any]]:
    """What the manifest says of every source of a package, names compared as indexes do."""
    wanted = canonicalize_name(name)
    entries: list[dict[str, Any]] = read_manifest(folder)["packages"]
    return [entry for entry in entries if canonicalize_name(entry["package"]) == wanted]


def excluded(folder: Path, name: str) -> list[str]:
    """Packages of that name that were kept out, near duplicates too, each with its version."""
    wanted = canonicalize_name(name)
    kept_out: list[str] = read_manifest(folder)["excluded"]
    return [entry for entry in kept_out if canonicalize_name(entry.rpartition(" ")[0]) == wanted]


def paths(folder: Path, pattern: str) -> Iterator[Found]:
    """The files whose path, or its end from a folder on, is ``pattern``, in which ``*`` matches."""
    for batch in _batches(folder, _FACTS):
        for facts in zip(*(batch.column(name).to_pylist() for name in _FACTS), strict=True):
            path = facts[0]
            if fnmatchcase(path, pattern) or fnmatchcase(path, f"*/{pattern}"):
                yield Found(*facts)


def snippets(folder: Path, snippet: str) -> Iterator[Found]:
    """The files that a piece of code stands in. Raises CorpusError where it has no word."""
    words = [word[0] for word in WORD.finditer(snippet.encode("utf-8", "surrogatepass"))]
    if not words:
        raise CorpusError("the snippet is blank: there is nothing to look for")
    pattern = re.compile(_pattern(words))
    longest = max(words, key=len).decode("utf-8", "replace")
    for batch in _batches(folder, ("content", *_FACTS)):
        # Few files have the longest word, and only they are searched.
        some = batch.filter(compute.match_substring(batch.column("content"), longest))
        texts = some.column("content").to_pylist()
        rows = zip(*(some.column(name).to_pylist() for name in _FACTS), strict=True)
        for text, facts in zip(texts, rows, strict=True):
            data = text.encode()
            if match := pattern.search(data):
                line = data.count(b"\n", 0, match.start()) + 1
                yield replace(Found(*facts), line=line)


def _pattern(words: list[bytes]) -> bytes:
    """A regular expression for these words with any white space between."""
    parts = [b"(?<!" + _LETTER + b")" if re.match(_LETTER, words[0]) else b""]
    for word, after in zip(words, [*words[1:], b""], strict=True):
        parts.append(re.escape(word))
        both = re.match(_LETTER, word) and re.match(_LETTER, after)
        parts.append(b"\\s+" if both else b"\\s*")
    parts[-1] = b"(?!" + _LETTER + b")" if re.match(_LETTER, words[-1]) else b""
    return b"".join(parts)


def _batches(folder: Path, columns: tuple[str, ...]) -> Iterator[Any]:
    for shard in read_manifest(folder)["shards"]:
        path = folder / shard["file"]
        try:
            with parquet.ParquetFile(path) as file:
                yield from file.iter_batches(columns=list(columns), use_threads=False)
        except (OSError, pyarrow.ArrowException) as error:
            raise CorpusError(f"{path}: cannot be read as a corpus shard: {error}") from error
