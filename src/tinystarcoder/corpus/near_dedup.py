"""Near duplicates: MinHash over word 5-grams, Jaccard 0.7, connected components.

As BigCode deduplicated The Stack: split on ``[^A-Za-z_0-9]``, 5-grams of words,
256 permutations, locality-sensitive hashing in bands, components joined, the
lowest index kept. Unlike there, MinHash only proposes: bands bring together
what may be similar, agreement of the sketches settles what is far from the
threshold, and between the two the sets of 5-grams themselves are compared.

What it gives up: a pair at Jaccard 0.7 shares no band, and is never seen, with
probability 0.005; of more than 1,024 documents in one bucket, each is compared
with the 1,024 after it. Documents of fewer than 5 words have no 5-grams and
are never near duplicates.

Everything that grows with the number of documents lies in files and is
memory-mapped: per document 336 bytes of band keys, 256 of sketch, 8 of index,
and 4 for each different 5-gram, in all about the size of the text.

Arrays: N documents, P = 256 permutations, B = 42 bands.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .grouping import Forest, mapped, shared_keys
from .words import mixed

NGRAM = 5
PERMUTATIONS = 256
THRESHOLD = 0.7
# A pair at Jaccard 0.7 meets in one band at least with probability 1 - (1 - 0.7**6)**42 = 0.995.
BANDS, ROWS = 42, 6

# Agreement of two sketches is known to be on one side of the threshold four to five
# standard errors (0.029) from it; between these the sets themselves are compared.
SURELY_DIFFERENT, SURELY_SIMILAR = 0.585, 0.845

# A document is compared with at most so many others of its bucket.
NEIGHBORS = 1024

_random = np.random.Generator(np.random.PCG64(20230509))
_MULTIPLIERS = _random.integers(0, 1 << 32, PERMUTATIONS, dtype=np.uint32) | np.uint32(1)
_NEXT_EIGHT = _random.integers(0, 1 << 63, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
_GRAM_POWERS = _random.integers(0, 1 << 63, NGRAM, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
_BAND_POWERS = _random.integers(0, 1 << 63, ROWS, dtype=np.uint64) * np.uint64(2) + np.uint64(1)

_WORD_BYTES = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_0123456789"
_IS_WORD = bytes(byte in _WORD_BYTES for byte in range(256))
# The first 1 to 8 bytes of a little-endian word of 8.
_MASKS = np.array([(1 << 8 * count) - 1 for count in range(9)], dtype=np.uint64)
_LONG_WORD = 64

# 5-grams permuted at once: the block of 256 columns stays in the second-level cache.
_BLOCK = 512


@dataclass(frozen=True)
class Sketch:
    """What is kept of one document to find its near duplicates."""

    bands: NDArray[np.uint64]
    """[B]: two documents that share one of these may be similar."""
    agreement: NDArray[np.uint8]
    """[P]: the share of equal bytes estimates Jaccard similarity."""
    grams: NDArray[np.uint32]
    """Hashes of the different 5-grams, in order; none where there are fewer than 5 words."""

    @classmethod
    def of(cls, text: str) -> "Sketch":
        """Sketches one text."""
        grams = gram_hashes(text)
        smallest = _min_hashes(grams)
        rows = smallest[: BANDS * ROWS].reshape(BANDS, ROWS).astype(np.uint64)
        bands = mixed((rows * _BAND_POWERS).sum(axis=1, dtype=np.uint64))
        return cls(bands, smallest.astype(np.uint8), grams)


class SketchFiles:
    """The sketches of N documents in the files of a folder, memory-mapped."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.ends = mapped(folder / "ends.i64", "<i8")
        self.agreement = mapped(folder / "agreement.u8", "u1").reshape(-1, PERMUTATIONS)
        self._grams = mapped(folder / "grams.u32", "<u4")

    @classmethod
    def write(cls, batches: Iterable[Sequence[Sketch]], folder: Path) -> "SketchFiles":
        """Writes sketches that have 5-grams, batch after batch; never all in memory."""
        folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:

            def opened(name: str) -> Any:
                return stack.enter_context((folder / name).open("wb"))

            bands = [opened(_band_file(band)) for band in range(BANDS)]
            ends, agreement, grams = map(opened, ("ends.i64", "agreement.u8", "grams.u32"))
            end = 0
            for batch in batches:
                columns = np.stack([sketch.bands for sketch in batch], axis=1)
                for stream, column in zip(bands, columns.astype("<u8"), strict=True):
                    stream.write(column.tobytes())
                sizes = np.cumsum([len(sketch.grams) for sketch in batch], dtype=np.int64)
                ends.write((end + sizes).astype("<i8").tobytes())
                end += int(sizes[-1])
                for sketch in batch:
                    agreement.write(sketch.agreement.tobytes())
                    grams.write(sketch.grams.astype("<u4").tobytes())
        return cls(folder)

    def __len__(self) -> int:
        return len(self.ends)

    def band(self, band: int) -> NDArray[np.uint64]:
        """The key of every document [N] in one band."""
        return mapped(self._folder / _band_file(band), "<u8")

    def grams(self, row: int) -> NDArray[np.uint32]:
        """The different 5-grams of one document, in order."""
        return self._grams[self.ends[row - 1] if row else 0 : self.ends[row]]

    def similar_pairs(self, band: int) -> NDArray[np.int64]:
        """Pairs [M, 2] of similar documents that share a key in ``band``.

        Not all of them: enough to connect whatever they connect, and no pair twice.
        """
        pairs = [np.empty((0, 2), dtype=np.int64)]
        for rows, runs in shared_keys(self.band(band)):
            forest = Forest(np.arange(len(rows)))
            for left, right in _candidates(runs, forest):
                similar = self._similar(rows[left], rows[right])
                forest.join(left[similar], right[similar])
                pairs.append(np.stack([rows[left[similar]], rows[right[similar]]], axis=1))
        return np.concatenate(pairs)

    def _similar(self, left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of the candidate pairs reach the threshold."""
        share = np.empty(len(left))
        for start in range(0, len(left), 4096):
            part = slice(start, start + 4096)
            share[part] = (self.agreement[left[part]] == self.agreement[right[part]]).mean(axis=1)
        similar = share >= SURELY_SIMILAR
        for pair in np.flatnonzero((share >= SURELY_DIFFERENT) & ~similar):
            similar[pair] = jaccard(self.grams(left[pair]), self.grams(right[pair])) >= THRESHOLD
        return similar


def jaccard(left: NDArray[np.uint32], right: NDArray[np.uint32]) -> float:
    """Jaccard similarity of two sets, each in order and without repetition."""
    both = np.concatenate([left, right])
    both.sort()
    shared = int(np.count_nonzero(both[1:] == both[:-1]))
    return shared / max(1, len(both) - shared)


def gram_hashes(text: str) -> NDArray[np.uint32]:
    """32-bit hashes of the different word 5-grams of a text, in order."""
    words = _word_hashes(text.encode())
    count = len(words) - NGRAM + 1
    if count <= 0:
        return np.empty(0, dtype=np.uint32)
    grams = np.zeros(count, dtype=np.uint64)
    for place, power in enumerate(_GRAM_POWERS):
        grams += words[place : place + count] * power
    hashes = (mixed(grams) >> np.uint64(32)).astype(np.uint32)
    hashes.sort()
    different: NDArray[np.uint32] = hashes[np.append(True, hashes[1:] != hashes[:-1])]
    return different


def _word_hashes(data: bytes) -> NDArray[np.uint64]:
    """A 64-bit number for each run of word characters: up to 8 bytes, the bytes themselves."""
    inside = np.frombuffer(b"\0" + data.translate(_IS_WORD) + b"\0", dtype=np.uint8)
    edges = np.flatnonzero(inside[1:] != inside[:-1])
    starts, lengths = edges[::2], edges[1::2] - edges[::2]
    padded = np.frombuffer(data + bytes(16 + -len(data) % 8), dtype="<u8")
    hashes = _eight_bytes(padded, starts, lengths)
    words = np.flatnonzero(lengths > 8)
    for offset in range(8, _LONG_WORD, 8):
        words = words[lengths[words] > offset]
        if not len(words):
            break
        more = _eight_bytes(padded, starts[words] + offset, lengths[words] - offset)
        hashes[words] = hashes[words] * _NEXT_EIGHT + more
    for word in np.flatnonzero(lengths > _LONG_WORD):
        content = data[starts[word] : starts[word] + lengths[word]]
        digest = hashlib.blake2b(content, digest_size=8).digest()
        hashes[word] = int.from_bytes(digest, "little")
    return hashes


def _eight_bytes(
    padded: NDArray[np.uint64], places: NDArray[np.int64], lengths: NDArray[np.int64]
) -> NDArray[np.uint64]:
    """The 8 bytes at each place of a text, those past the length as zeros.

    Two aligned numbers hold any 8 bytes: each is shifted, and they are put together.
    """
    shift = (places & 7).astype(np.uint64) << np.uint64(3)
    aligned = places >> 3
    eight: NDArray[np.uint64] = padded[aligned] >> shift
    # In two steps: a shift by 64 would shift by nothing.
    eight |= padded[aligned + 1] << np.uint64(1) << (np.uint64(63) - shift)
    eight &= _MASKS[np.minimum(lengths, 8)]
    return eight


def _min_hashes(grams: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """The smallest of all 5-grams under each permutation [P]; all ones where there are none."""
    smallest = np.full(PERMUTATIONS, 0xFFFFFFFF, dtype=np.uint32)
    buffer = np.empty((_BLOCK, PERMUTATIONS), dtype=np.uint32)
    for start in range(0, len(grams), _BLOCK):
        block = grams[start : start + _BLOCK, None]
        permuted = np.multiply(block, _MULTIPLIERS, out=buffer[: len(block)])
        np.minimum(smallest, permuted.min(axis=0), out=smallest)
    return smallest


def _candidates(
    runs: NDArray[np.int64], forest: Forest
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Pairs of places in one run and not yet joined: neighbors, next but one, …"""
    left = np.arange(len(runs))
    for distance in range(1, NEIGHBORS + 1):
        left = left[left + distance < len(runs)]
        # A run that ended at this distance ends at every longer one.
        left = left[runs[left] == runs[left + distance]]
        if not len(left):
            return
        apart = forest.find(left) != forest.find(left + distance)
        yield left[apart], left[apart] + distance
        if distance == 1:
            # A run of near copies is one component now, and done.
            left = left[_open(runs, forest)[left]]


def _open(runs: NDArray[np.int64], forest: Forest) -> NDArray[np.bool_]:
    """Which places stand in a run of more than one component."""
    roots = forest.find(np.arange(len(runs)))
    first = np.flatnonzero(np.diff(runs, prepend=-1))
    lowest, highest = np.minimum.reduceat(roots, first), np.maximum.reduceat(roots, first)
    open_: NDArray[np.bool_] = (lowest != highest)[runs]
    return open_


def _band_file(band: int) -> str:
    return f"band-{band:02}.u64"
