"""Exact duplicates: files that are the same but for white space at line ends."""

import hashlib
from collections.abc import Iterable

KEY_BYTES = 16


def content_key(text: str) -> bytes:
    """16 bytes that are equal for equal texts, trailing white space left out."""
    lines = [line.rstrip() for line in text.rstrip().split("\n")]
    return hashlib.blake2b("\n".join(lines).encode(), digest_size=KEY_BYTES).digest()


def first_of_each(keys: Iterable[bytes]) -> list[int]:
    """For each key the index of its first occurrence: its own where it is the first."""
    seen: dict[bytes, int] = {}
    return [seen.setdefault(key, index) for index, key in enumerate(keys)]
