"""Equal keys and disjoint sets, over arrays that may lie in files and exceed memory.

What it gives up: keys are 64-bit hashes, spread evenly over their range.
"""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

# Keys that are sorted at once: 0.8 GB.
SORTED_AT_ONCE = 1 << 25


def mapped(path: Path, dtype: str, mode: Literal["r", "r+"] = "r") -> NDArray[Any]:
    """A file as an array; an empty one, which cannot be mapped, too."""
    if not path.stat().st_size:
        return np.empty(0, dtype=dtype)
    return np.memmap(path, dtype=dtype, mode=mode)


class Forest:
    """Disjoint sets over ``roots`` [N], which begins as 0 … N-1; a set's root is its lowest."""

    def __init__(self, roots: NDArray[np.int64]) -> None:
        self.roots = roots

    def find(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The root of each row, which then points at it."""
        found = rows
        while not np.array_equal(above := self.roots[found], found):
            found = above
        self.roots[rows] = found
        return found

    def join(self, left: NDArray[np.int64], right: NDArray[np.int64]) -> None:
        """Joins pairs. Each round hangs every root below its lowest neighbor."""
        while len(left):
            left, right = self.find(left), self.find(right)
            apart = left != right
            left, right = left[apart], right[apart]
            np.minimum.at(self.roots, np.maximum(left, right), np.minimum(left, right))


def shared_keys(
    keys: NDArray[np.uint64],
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Rows that share their key [N] with another row, and the number of each row's run.

    The rows of a run stand together, lowest first. They come in parts, each a
    range of keys, so that no more than about SORTED_AT_ONCE are ever sorted.
    """
    ranges = -(-len(keys) // SORTED_AT_ONCE)
    for chosen in range(ranges):
        rows = _in_range(keys, chosen, ranges)
        part = keys[rows]
        order = np.argsort(part)
        equal = np.flatnonzero(np.diff(part[order]) == 0)
        shared = order[np.union1d(equal, equal + 1)]
        rows, part = rows[shared], part[shared]
        order = np.lexsort((rows, part))
        yield rows[order], np.cumsum(np.diff(part[order], prepend=part[order][:1]) != 0)


def _in_range(keys: NDArray[np.uint64], chosen: int, ranges: int) -> NDArray[np.int64]:
    """Rows whose key lies in one of ``ranges`` equal ranges."""
    starts = [*range(0, len(keys), SORTED_AT_ONCE), len(keys)]
    rows = []
    for start, end in pairwise(starts):
        high = keys[start:end] >> np.uint64(32)
        inside = high * np.uint64(ranges) >> np.uint64(32) == chosen
        rows.append(np.flatnonzero(inside) + start)
    return np.concatenate(rows)
