"""Which spans of a text stand verbatim in the training corpus, and where.

Words and symbols are compared (``words.py``), white space is not. There are
two indexes, one to a folder, made by ``attribution_index.py``:

    full      words.bin      uint16: every word of the corpus, document after document
              grams.npy      uint64, sorted: the ``gram`` words at every ``stride``-th word
              places.npy     which ``stride``-th word each of them is at
              ends.npy       words up to and with each document's end
              sources.npy    package, version and license of each document, into index.json
              paths.txt      path of each document, a line each
    compact   counts.npy     uint8: entries in each bucket
              entries.npy    3 bytes each: a piece of a gram's code, and its package
    both      index.json     format, sizes, packages and licenses

A span of ``at_least`` = ``gram`` + ``stride`` - 1 words holds a whole indexed gram,
wherever it begins. So the full index finds every one, and it compares the words
on both sides, so that it finds nothing else. The compact index has no words:
it names a package for a gram that it has probably seen, misses spans shorter
than ``gram`` + ``stride`` - 1, and is at times wrong.

What the full index gives up: of a gram that stands in more than 10,000 places,
a table of zeros, 100 are looked at.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import CorpusError
from .words import Words, gram_codes, words_of

FORMAT = 1
INDEX = "index.json"
FOLDER = "attribution"
"""Where a model's folder keeps the compact index of what it was trained on."""

COMMON = 3
"""What stands in so many packages is named as common: a license's header, a usual idiom."""

MIN_AT_LEAST = 8
"""Words of the shortest spans that an index can be made for."""

SHOWN = 20
"""Sources that a span names; it counts them all."""

_MANY_PLACES, _FEW_PLACES = 10_000, 100
# What is compared at a time bounds the memory.
_RUNS_AT_ONCE = 1 << 16

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Source:
    """A file that a span stands in; of a compact index the package and license alone."""

    package: str
    license: str
    version: str = ""
    path: str = ""
    words: int = 0
    """The longest run of the span's words there; 0 where the index cannot tell."""


@dataclass(frozen=True, slots=True)
class Span:
    """A part of a text that stands in the corpus."""

    start: int
    """Its first character in the text."""
    end: int
    words: int
    common: bool
    """All but a few of its words stand so in many packages."""
    sources: tuple[Source, ...]
    """Longest run first, one of each package before the second of any."""
    files: int
    """In how many it stands, those included that ``sources`` leaves out; 0 if not known."""


class Runs(NamedTuple):
    """Words ``start`` to ``end`` of a text stand in ``document``; arrays of equal length."""

    start: Ints
    end: Ints
    document: Ints

    def at(self, chosen: NDArray[Any]) -> "Runs":
        return Runs(*(column[chosen] for column in self))


class FullIndex:
    """Finds every span, with package, version, path and license. Memory-mapped."""

    def __init__(self, folder: Path, index: dict[str, Any]) -> None:
        self.folder = folder
        self.at_least: int = index["at_least"]
        self.gram: int = index["gram"]
        self.stride: int = index["stride"]
        self.sources: list[dict[str, str]] = index["sources"]
        self.words = np.memmap(folder / "words.bin", "<u2", mode="r")
        self._grams = np.load(folder / "grams.npy", mmap_mode="r")
        self._places = np.load(folder / "places.npy", mmap_mode="r")
        self.ends: Ints = np.load(folder / "ends.npy")
        """Words up to and with the end of each document [N]."""
        self._begins = np.append(0, self.ends)[:-1]
        self.source_of: NDArray[np.uint32] = np.load(folder / "sources.npy")
        """Place in ``sources`` of each document [N]."""
        names = [source["package"] for source in self.sources]
        self._package = np.unique(names, return_inverse=True)[1]

    @cached_property
    def paths(self) -> list[str]:
        """Path of each document [N]."""
        return (self.folder / "paths.txt").read_text(encoding="utf-8").split("\n")[:-1]

    def find(self, text: str, at_least: int | None = None) -> list[Span]:
        """Every span of ``at_least`` words or more that none of the others holds, in order.

        Raises CorpusError for fewer words than the index was made for.
        """
        needed = self.at_least if at_least is None else at_least
        if needed < self.at_least:
            least = "" if needed >= MIN_AT_LEAST else ", the least there is"
            raise CorpusError(
                f"spans of {needed} words: this index finds those of {self.at_least} and more; "
                f"make one with: corpus index --at-least {max(needed, MIN_AT_LEAST)}{least}"
            )
        data = _bytes_of(text)
        words = words_of(data)
        runs = self._runs(words.codes)
        runs = runs.at(runs.end - runs.start >= needed)
        # How many words before each word of the text stand in too few packages to be common.
        rare = np.append(0, np.cumsum(self._packages_at(runs, len(words.codes)) < COMMON))
        spans = []
        for start, end, members in _outermost(runs):
            common = int(rare[end] - rare[start]) < self.at_least // 2
            if not common:  # Leave out who has its common part alone.
                members = members.at(rare[members.end] - rare[members.start] >= self.at_least // 2)
            sources = tuple(self._sources(members))
            files = len(np.unique(members.document))
            place = _characters(data, words, start, end)
            spans.append(Span(*place, end - start, common, sources, files))
        return sorted(spans, key=lambda span: span.start)

    def _runs(self, codes: NDArray[np.uint16]) -> Runs:
        """All equal runs that hold an indexed gram, each as far as it goes."""
        at, place = self._hits(codes)
        document = np.searchsorted(self.ends, place, "right")
        whole = place + self.gram <= self.ends[document]
        # Grams a stride apart in the text and in a document are parts of one run.
        order = np.lexsort((at[whole], (place - at)[whole]))
        at, place, document = (column[whole][order] for column in (at, place, document))
        new = (np.diff(place - at) != 0) | (np.diff(at) != self.stride) | (np.diff(document) != 0)
        first = np.append(0, np.flatnonzero(new) + 1)[: len(at)]
        last = np.append(first[1:], len(at))[: len(first)] - 1
        before = self._equal(codes, at[first] - 1, place[first] - 1, document[first], -1)
        end = at[last] + self.gram
        after = self._equal(codes, end, place[last] + self.gram, document[first], 1)
        return Runs(at[first] - before, end + after, document[first])

    def _hits(self, codes: NDArray[np.uint16]) -> tuple[Ints, Ints]:
        """Words where an indexed gram begins, in the text and in the corpus."""
        grams = gram_codes(codes, self.gram)
        low = np.searchsorted(self._grams, grams, "left")
        counts = np.searchsorted(self._grams, grams, "right") - low
        counts[counts > _MANY_PLACES] = _FEW_PLACES
        at = np.repeat(np.arange(len(grams)), counts)
        first = np.cumsum(counts) - counts
        order = np.arange(len(at)) + np.repeat(low - first, counts)
        return at, self._places[order].astype(np.int64) * self.stride

    def _equal(
        self, codes: NDArray[np.uint16], at: Ints, place: Ints, document: Ints, step: int
    ) -> Ints:
        """How many words are equal from there on, or back: what goes on for a stride is a gram."""
        offsets = step * np.arange(self.stride - 1)
        counts = np.zeros(len(at), np.int64)
        for begin in range(0, len(at), _RUNS_AT_ONCE):
            part = slice(begin, begin + _RUNS_AT_ONCE)
            mine, theirs = at[part, None] + offsets, place[part, None] + offsets
            same = (mine >= 0) & (mine < len(codes))
            same &= theirs >= self._begins[document[part], None]
            same &= theirs < self.ends[document[part], None]
            same &= codes.take(mine, mode="clip") == self.words.take(theirs, mode="clip")
            counts[part] = np.logical_and.accumulate(same, axis=1).sum(axis=1)
        return counts

    def _packages_at(self, runs: Runs, length: int) -> Ints:
        """In how many packages each of a text's words stands as part of a run [T]."""
        package = self._package[self.source_of[runs.document]]
        order = np.lexsort((runs.start, package))
        begun: list[int] = []
        ended: list[int] = []
        last = -1
        columns = (column[order].tolist() for column in (package, runs.start, runs.end))
        for of, start, end in zip(*columns, strict=True):
            if of != last or start > ended[-1]:
                begun.append(start)
                ended.append(end)
            ended[-1] = max(ended[-1], end)
            last = of
        changes = np.bincount(begun, minlength=length + 1) - np.bincount(
            ended, minlength=length + 1
        )
        return np.cumsum(changes)[:length]

    def _sources(self, runs: Runs) -> list[Source]:
        """The longest run of each document, at most SHOWN documents."""
        lengths = runs.end - runs.start
        order = np.lexsort((runs.document, -lengths))
        documents, firsts = np.unique(runs.document[order], return_index=True)
        by_length = np.argsort(firsts, kind="stable")
        documents, lengths = documents[by_length], lengths[order][np.sort(firsts)]
        _, first_of_package = np.unique(self._package[self.source_of[documents]], return_index=True)
        second = np.ones(len(documents), bool)
        second[first_of_package] = False
        shown = np.lexsort((np.arange(len(documents)), second))[:SHOWN]
        return [
            Source(
                **self.sources[self.source_of[document]],
                path=self.paths[document],
                words=int(words),
            )
            for document, words in zip(documents[shown], lengths[shown], strict=True)
        ]


class CompactIndex:
    """Names the packages of most longer spans, from a few MB."""

    def __init__(self, folder: Path, index: dict[str, Any]) -> None:
        self.folder = folder
        self.at_least: int = index["at_least"]
        self.gram: int = index["gram"]
        self.stride: int = index["stride"]
        self.sources: list[dict[str, str]] = index["sources"]
        counts = np.load(folder / "counts.npy")
        self._ends = np.append(0, np.cumsum(counts, dtype=np.int64))
        entries = np.load(folder / "entries.npy", mmap_mode="r").astype(np.uint32)
        self._entries = entries[:, 0] | entries[:, 1] << 8 | entries[:, 2] << 16

    def find(self, text: str, at_least: int | None = None) -> list[Span]:
        """Spans that are probably in the corpus, in order; ``words`` is what was seen of them.

        Of more words than the index was made for, those of which so many were seen.
        Raises CorpusError for fewer.
        """
        needed = self.at_least if at_least is None else at_least
        if needed < self.at_least:
            raise CorpusError(
                f"spans of {needed} words: a compact index is for those of {self.at_least} and "
                "more; make a full one with: corpus index"
            )
        data = _bytes_of(text)
        words = words_of(data)
        at, source = self._hits(words.codes)
        spans = []
        # Hits of one package that are not farther apart than its grams are one span.
        new = (np.diff(source) != 0) | (np.diff(at) > self.stride)
        for group in np.split(np.arange(len(at)), np.flatnonzero(new) + 1) if len(at) else ():
            start, end = int(at[group[0]]), int(at[group[-1]]) + self.gram
            if end - start < needed > self.at_least:
                continue
            common = int(source[group[0]]) == len(self.sources)
            sources = () if common else (Source(**self.sources[source[group[0]]]),)
            place = _characters(data, words, start, end)
            spans.append(Span(*place, end - start, common, sources, 0))
        return sorted(spans, key=lambda span: span.start)

    def _hits(self, codes: NDArray[np.uint16]) -> tuple[Ints, Ints]:
        """Words where a known gram begins, and its source, ordered by source and then word."""
        bucket, check = slots_of(gram_codes(codes, self.gram), len(self._ends) - 1)
        low = self._ends[bucket]
        counts = self._ends[bucket + 1] - low
        at = np.repeat(np.arange(len(bucket)), counts)
        first = np.cumsum(counts) - counts
        entries = self._entries[np.arange(len(at)) + np.repeat(low - first, counts)]
        bits = source_bits(self.sources)
        hit = entries >> bits == check[at] >> bits
        at, source = at[hit], (entries[hit] & ((1 << bits) - 1)).astype(np.int64)
        order = np.lexsort((at, source))
        return at[order], source[order]


def open_index(folder: Path) -> FullIndex | CompactIndex:
    """Opens either index. Raises CorpusError, naming the file, where it is missing or cut."""
    path = folder / INDEX
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        if index["format"] != FORMAT:
            raise CorpusError(f"{path}: format {index['format']}, not {FORMAT}; index again")
        for name, size in index["files"].items():
            if (there := (folder / name).stat().st_size) != size:
                raise CorpusError(f"{folder / name}: {there} bytes, not {size}; index again")
        return (FullIndex if index["kind"] == "full" else CompactIndex)(folder, index)
    except FileNotFoundError as error:
        raise CorpusError(f"{error.filename}: missing; no attribution index here") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorpusError(f"{path}: cannot be read as an attribution index: {error!r}") from error


def slots_of(codes: NDArray[np.uint64], buckets: int) -> tuple[Ints, NDArray[np.uint32]]:
    """The bucket of each gram in a compact index, and 24 other bits of its code."""
    bucket = ((codes >> np.uint64(32)) * np.uint64(buckets)) >> np.uint64(32)
    return bucket.astype(np.int64), (codes & np.uint64(0xFFFFFF)).astype(np.uint32)


def source_bits(sources: Sequence[Any]) -> int:
    """Bits of a compact entry that say whose it is; one more source means many."""
    return len(sources).bit_length()


def _outermost(runs: Runs) -> list[tuple[int, int, Runs]]:
    """The runs that no other holds: start, end, and all runs inside of it, itself included."""
    order = np.lexsort((runs.start, runs.start - runs.end))
    kept: list[tuple[int, int]] = []
    starts, ends = runs.start[order].tolist(), runs.end[order].tolist()
    for start, end in dict.fromkeys(zip(starts, ends, strict=True)):
        if not any(begin <= start and end <= stop for begin, stop in kept):
            kept.append((start, end))
    return [(a, b, runs.at((runs.start >= a) & (runs.end <= b))) for a, b in kept]


def _bytes_of(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _characters(data: bytes, words: Words, start: int, end: int) -> tuple[int, int]:
    """Words ``start`` to ``end`` as characters of the text."""
    first, last = int(words.starts[start]), int(words.ends[end - 1])
    before = len(data[:first].decode("utf-8", "surrogatepass"))
    return before, before + len(data[first:last].decode("utf-8", "surrogatepass"))
