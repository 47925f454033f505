"""Makes the two indexes of ``attribution.py`` from a corpus.

The full one holds every word of the corpus, 2 bytes each, and half a byte a
word to find them by: with 5 bytes to a word of Python, half of the corpus's
size. The compact one is made from it and fits the size that it is given.

What it gives up: the grams are sorted in memory, about a byte for each word of
the corpus.
"""

import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import CorpusError
from ..files import write_atomically
from .attribution import (
    COMMON,
    FORMAT,
    INDEX,
    MIN_AT_LEAST,
    CompactIndex,
    FullIndex,
    slots_of,
    source_bits,
)
from .document import Document
from .words import gram_codes, words_of

AT_LEAST = 50

COMPACT_BYTES = 9_900_000
COMPACT_GRAM = 16

_ENTRY_BYTES = 3
_BUCKET = 2
"""Entries of a compact index in one bucket, on average."""

_BATCH = 32
_WORDS_AT_ONCE = 1 << 20
_PRESENT = 1 << 27

Progress = Callable[[int], None]


def build_full(
    documents: Iterable[Document],
    output: Path,
    *,
    at_least: int = AT_LEAST,
    progress: Progress | None = None,
) -> FullIndex:
    """Writes the full index into a new folder ``output``, which appears when it is whole.

    ``progress`` is called with the number of documents read. Raises CorpusError
    where the output exists or cannot be written, or there is no word to index.
    """
    if at_least < MIN_AT_LEAST:
        raise CorpusError(f"spans of {at_least} words: an index is for {MIN_AT_LEAST} and more")
    stride = at_least // 2
    with _new_folder(output) as folder:
        with (folder / "words.bin").open("wb") as words:
            index = _write_words(documents, folder, words, progress or (lambda _: None))
        if not index["words"]:
            raise CorpusError("no document to index")
        index |= {"at_least": at_least, "gram": at_least - stride + 1, "stride": stride}
        grams = _grams_of(folder / "words.bin", index["gram"], stride)
        order = np.argsort(grams, kind="stable")
        np.save(folder / "grams.npy", grams[order])
        np.save(folder / "places.npy", order.astype(np.uint32))
        _finish(folder, {"kind": "full", **index})
    return FullIndex(output, index)


def _write_words(
    documents: Iterable[Document], folder: Path, words: IO[bytes], progress: Progress
) -> dict[str, Any]:
    """Every file but the grams; returns what is counted, and the sources."""
    lengths: list[int] = []
    sources: dict[tuple[str, str, str], int] = {}
    source_of: list[int] = []
    rest = iter(documents)
    with (folder / "paths.txt").open("w", encoding="utf-8", newline="\n") as paths:
        while batch := list(islice(rest, _BATCH)):
            texts = [document.text.encode() for document in batch]
            # A line break between two documents: no word reaches into the next.
            found = words_of(b"\n".join(texts))
            found.codes.astype("<u2").tofile(words)
            borders = np.cumsum([len(text) + 1 for text in texts])
            lengths += np.diff(np.searchsorted(found.starts, borders), prepend=0).tolist()
            for document in batch:
                whose = (document.package, document.version, document.license)
                source_of.append(sources.setdefault(whose, len(sources)))
                paths.write(document.path.replace("\n", " ") + "\n")
            progress(len(lengths))
    np.save(folder / "ends.npy", np.cumsum(lengths, dtype=np.int64))
    np.save(folder / "sources.npy", np.array(source_of, np.uint32))
    names = ("package", "version", "license")
    return {
        "documents": len(lengths),
        "words": sum(lengths),
        "sources": [dict(zip(names, whose, strict=True)) for whose in sources],
    }


def _grams_of(path: Path, gram: int, stride: int) -> NDArray[np.uint64]:
    """The code of every ``stride``-th gram, those across two documents too: they match nothing."""
    words = np.memmap(path, "<u2", mode="r")
    step = _WORDS_AT_ONCE // stride * stride
    parts = [
        gram_codes(np.asarray(words[begin : begin + step + gram - stride]), gram, stride)
        for begin in range(0, len(words), step)
    ]
    return np.concatenate(parts)


def build_compact(
    full: FullIndex, output: Path, *, size: int = COMPACT_BYTES, gram: int = COMPACT_GRAM
) -> CompactIndex:
    """Writes a compact index of at most ``size`` bytes into a new folder ``output``.

    It takes a gram at every so many words that they fit. A gram that stands in
    COMMON packages, anywhere in the corpus, is entered as common.
    Raises CorpusError where the output exists or cannot be written.
    """
    sources, source_of = _by_package(full)
    known = len(json.dumps(sources)) + 2048
    limit = int((size - known) / (_ENTRY_BYTES + 1 / _BUCKET))
    if limit < 1:
        raise CorpusError(f"{size} bytes: too few for an index of {len(sources)} packages")
    stride = max(1, -(-len(full.words) // limit))
    codes = np.unique(_inside(full, gram, stride))
    source = _whose(full, codes, gram, source_of, len(sources))
    buckets = -(-len(codes) // _BUCKET)
    bucket, check = slots_of(codes, buckets)
    bits = source_bits(sources)
    entries = (check >> bits << bits) | source.astype(np.uint32)
    counts = np.bincount(bucket, minlength=buckets)
    order = np.lexsort((entries, bucket))
    with _new_folder(output) as folder:
        np.save(folder / "counts.npy", counts.astype(np.uint8))
        as_bytes = entries[order].astype("<u4").view(np.uint8).reshape(-1, 4)
        np.save(folder / "entries.npy", as_bytes[:, :_ENTRY_BYTES])
        facts = {"at_least": full.at_least, "gram": gram, "stride": stride, "entries": len(codes)}
        index = {"kind": "compact", **facts, "words": len(full.words), "sources": sources}
        _finish(folder, index)
    return CompactIndex(output, index)


def _by_package(full: FullIndex) -> tuple[list[dict[str, str]], NDArray[np.int64]]:
    """Every package with the licenses of its files, and whose each document is."""
    licenses: dict[str, set[str]] = {}
    for source in full.sources:
        licenses.setdefault(source["package"], set()).add(source["license"])
    number = {package: number for number, package in enumerate(licenses)}
    number_of = np.array([number[source["package"]] for source in full.sources])
    sources = [{"package": p, "license": ", ".join(sorted(licenses[p]))} for p in licenses]
    return sources, number_of[full.source_of]


def _inside(full: FullIndex, gram: int, stride: int) -> NDArray[np.uint64]:
    """The codes of every ``stride``-th gram that lies in one document."""
    codes = _grams_of(full.folder / "words.bin", gram, stride)
    places = np.arange(len(codes)) * stride
    return codes[places + gram <= full.ends[np.searchsorted(full.ends, places, "right")]]


def _whose(
    full: FullIndex, codes: NDArray[np.uint64], gram: int, of: NDArray[np.int64], many: int
) -> NDArray[np.int64]:
    """The source of each of these sorted grams, looked for all over the corpus.

    It is the first that has it, or ``many`` where COMMON have.
    """
    present = np.zeros(_PRESENT, bool)
    shift = np.uint64(64 - _PRESENT.bit_length() + 1)
    present[codes >> shift] = True
    parts = []
    for begin in range(0, len(full.words), _WORDS_AT_ONCE):
        there = gram_codes(np.asarray(full.words[begin:][: _WORDS_AT_ONCE + gram - 1]), gram)
        at = np.flatnonzero(present[there >> shift])
        found = np.searchsorted(codes, there[at])
        right = codes.take(found, mode="clip") == there[at]
        found, at = found[right], at[right] + begin
        document = np.searchsorted(full.ends, at, "right")
        whole = at + gram <= full.ends[document]
        parts.append(np.unique(found[whole] * many + of[document[whole]]))
    pairs = np.unique(np.concatenate(parts))
    which, firsts, counts = np.unique(pairs // many, return_index=True, return_counts=True)
    assert len(which) == len(codes)  # Each stands at least where it was taken from.
    return np.where(counts >= COMMON, many, pairs[firsts] % many)


@contextmanager
def _new_folder(output: Path) -> Iterator[Path]:
    """A folder that takes the name ``output`` once it is whole."""
    if output.exists():
        raise CorpusError(f"{output}: exists; remove it or choose another --output")
    staging = output.with_name(output.name + ".partial")
    shutil.rmtree(staging, ignore_errors=True)
    try:
        staging.mkdir(parents=True)
        yield staging
        staging.rename(output)
    except OSError as error:
        raise CorpusError(f"{output}: cannot be written: {error}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _finish(folder: Path, index: dict[str, Any]) -> None:
    """Writes index.json, with the size of every other file."""
    files = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
    text = json.dumps({"format": FORMAT, **index, "files": files}, indent=1)
    write_atomically(folder / INDEX, (text + "\n").encode())
