"""Near duplicates: MinHash over word 5-grams, Jaccard 0.7, connected components.

As BigCode deduplicated The Stack: split on ``[^A-Za-z_0-9]``, 5-grams of words,
256 permutations, locality-sensitive hashing in bands, components joined, the
lowest index kept. Every candidate pair is checked on its whole signature, so
that the bands may be many and loose (few pairs lost) without false joins.

What it gives up: Jaccard is estimated from 256 draws, a standard error of 0.029
at the threshold; documents of fewer than 5 words have no 5-grams and are never
near duplicates. All signatures are held in memory, 1 KiB a document.

Arrays: N documents, P = 256 permutations.
"""

from collections.abc import Iterator
from itertools import islice

import numpy as np
from numpy.typing import NDArray

Signatures = NDArray[np.uint32]

NGRAM = 5
PERMUTATIONS = 256
THRESHOLD = 0.7
# A pair at Jaccard 0.7 meets in one band at least with probability 1 - (1 - 0.7**6)**42 = 0.995.
BANDS, ROWS = 42, 6

# No 5-gram: the minimum over nothing.
_NONE = np.uint32(0xFFFFFFFF)

_random = np.random.Generator(np.random.PCG64(20230509))
_MULTIPLIERS = _random.integers(0, 1 << 32, PERMUTATIONS, dtype=np.uint32) | np.uint32(1)
_OFFSETS = _random.integers(0, 1 << 32, PERMUTATIONS, dtype=np.uint32)
_BYTE_POWERS = np.cumprod(np.full(1024, 0x9E3779B97F4A7C15, dtype=np.uint64))
_GRAM_POWERS = _random.integers(0, 1 << 63, NGRAM, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
_BAND_POWERS = _random.integers(0, 1 << 63, ROWS, dtype=np.uint64) * np.uint64(2) + np.uint64(1)

_IS_WORD = np.zeros(256, dtype=bool)
_IS_WORD[list(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_0123456789")] = True

# 5-grams permuted at once: the block of 256 rows stays in the second-level cache.
_BLOCK = 512


def signature(text: str) -> Signatures:
    """The MinHash signature [P] of one text; all ones where it has fewer than 5 words."""
    grams = _gram_hashes(text.encode())
    smallest = np.full(PERMUTATIONS, _NONE)
    buffer = np.empty((_BLOCK, PERMUTATIONS), dtype=np.uint32)
    for start in range(0, len(grams), _BLOCK):
        block = grams[start : start + _BLOCK, None]
        permuted = np.multiply(block, _MULTIPLIERS, out=buffer[: len(block)])
        permuted += _OFFSETS
        np.minimum(smallest, permuted.min(axis=0), out=smallest)
    return smallest


def components(signatures: Signatures) -> NDArray[np.int64]:
    """For each row of [N, P] the lowest index among its near duplicates, itself included.

    Duplicates of duplicates count: a component is joined by any chain of pairs
    whose estimated Jaccard similarity reaches the threshold.
    """
    parents = _Parents(len(signatures))
    # A permutation may give all ones by chance; all of them only where nothing was hashed.
    hashed = np.flatnonzero((signatures != _NONE).any(axis=1))
    for band in range(BANDS):
        rows = signatures[hashed, band * ROWS : (band + 1) * ROWS].astype(np.uint64)
        keys = _mix((rows * _BAND_POWERS).sum(axis=1, dtype=np.uint64))
        # Neighbors first: a bucket of near copies becomes one component at once, and
        # all pairs are then gone through only where more than one component is left.
        for left, right in islice(_equal_pairs(keys), 1):
            _join_similar(parents, signatures, hashed[left], hashed[right])
        open_ = _in_open_buckets(keys, parents.roots[hashed])
        for left, right in _equal_pairs(keys[open_]):
            _join_similar(parents, signatures, hashed[open_[left]], hashed[open_[right]])
    return parents.roots


def _join_similar(
    parents: "_Parents",
    signatures: Signatures,
    left: NDArray[np.int64],
    right: NDArray[np.int64],
) -> None:
    """Joins those of the candidate pairs that are similar; knows those already joined."""
    apart = parents.roots[left] != parents.roots[right]
    parents.join_all(*_similar(signatures, left[apart], right[apart]))


def _similar(
    signatures: Signatures, left: NDArray[np.int64], right: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Those of the candidate pairs whose signatures agree often enough."""
    needed = int(np.ceil(THRESHOLD * PERMUTATIONS))
    agree = np.zeros(len(left), dtype=bool)
    for start in range(0, len(left), 4096):
        part = slice(start, start + 4096)
        same = signatures[left[part]] == signatures[right[part]]
        agree[part] = same.sum(axis=1) >= needed
    return left[agree], right[agree]


def _in_open_buckets(keys: NDArray[np.uint64], roots: NDArray[np.int64]) -> NDArray[np.int64]:
    """Positions whose key is shared with a position of another component."""
    _, bucket = np.unique(keys, return_inverse=True)
    lowest = np.full(len(keys), np.iinfo(np.int64).max)
    highest = np.full(len(keys), -1)
    np.minimum.at(lowest, bucket, roots)
    np.maximum.at(highest, bucket, roots)
    return np.flatnonzero(lowest[bucket] != highest[bucket])


def _equal_pairs(
    keys: NDArray[np.uint64],
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """All pairs of positions with equal keys, in batches: neighbors, next but one, …"""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    starts = np.arange(len(keys))
    for distance in range(1, len(keys)):
        starts = starts[starts + distance < len(keys)]
        # Keys are in order, so a run that ended at this distance ends at every longer one.
        starts = starts[ordered[starts] == ordered[starts + distance]]
        if not len(starts):
            return
        yield order[starts], order[starts + distance]


class _Parents:
    """Disjoint sets that keep every element's root, the lowest index, at hand."""

    def __init__(self, size: int) -> None:
        self.roots = np.arange(size)

    def join_all(self, left: NDArray[np.int64], right: NDArray[np.int64]) -> None:
        """Joins pairs, then points every element at its root again."""
        if not len(left):
            return
        roots = self.roots
        for a, b in zip(left.tolist(), right.tolist(), strict=True):
            low, high = sorted((_find(roots, a), _find(roots, b)))
            roots[high] = low
        while not np.array_equal(flattened := roots[roots], roots):
            roots = flattened
        self.roots = roots


def _find(roots: NDArray[np.int64], index: int) -> int:
    while (parent := int(roots[index])) != index:
        index = parent
    return index


def _gram_hashes(data: bytes) -> NDArray[np.uint32]:
    """A 32-bit hash of each word 5-gram, in order, repetitions included."""
    words = _word_hashes(np.frombuffer(data, dtype=np.uint8))
    count = len(words) - NGRAM + 1
    if count <= 0:
        return np.empty(0, dtype=np.uint32)
    grams = np.zeros(count, dtype=np.uint64)
    for place, power in enumerate(_GRAM_POWERS):
        grams += words[place : place + count] * power
    return (_mix(grams) >> np.uint64(32)).astype(np.uint32)


def _word_hashes(data: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """A 64-bit hash of each run of word characters: a polynomial in its bytes, mixed."""
    inside = _IS_WORD[data]
    edges = np.flatnonzero(np.diff(inside, prepend=False, append=False))
    lengths = edges[1::2] - edges[::2]
    if not len(lengths):
        return np.empty(0, dtype=np.uint64)
    first = np.cumsum(lengths) - lengths
    place = np.arange(lengths.sum()) - np.repeat(first, lengths)
    terms = data[inside].astype(np.uint64) * _BYTE_POWERS[place & 1023]
    return _mix(np.add.reduceat(terms, first))


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finalizer of splitmix64: every bit of the input moves every bit of the output."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
