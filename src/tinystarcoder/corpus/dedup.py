"""Exact duplicates: files that are the same but for white space at line ends."""

import hashlib

import numpy as np
from numpy.typing import NDArray

from .grouping import Forest, shared_keys

KEY_BYTES = 16


def content_key(text: str) -> bytes:
    """16 bytes that are equal for equal texts, trailing white space left out."""
    lines = [line.rstrip() for line in text.rstrip().split("\n")]
    return hashlib.blake2b("\n".join(lines).encode(), digest_size=KEY_BYTES).digest()


def join_equal(keys: NDArray[np.uint64], forest: Forest) -> None:
    """Joins the rows whose keys [N, 2], each of two halves, are equal."""
    for rows, runs in shared_keys(keys[:, 0]):
        rest = keys[rows, 1]
        order = np.lexsort((rows, rest, runs))
        equal = (np.diff(runs[order]) == 0) & (np.diff(rest[order]) == 0)
        forest.join(rows[order[:-1][equal]], rows[order[1:][equal]])
