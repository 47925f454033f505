"""Text as words and symbols, 16 bits each: what attribution compares.

:data:`WORD` says what counts as one. White space separates and is otherwise
nothing, so a span is the same span when it is indented or wrapped anew.

What it gives up: two different words share their 16 bits once in 65,536, so a
run of equal codes may be a word longer than the equal text; a run of many is
the same text beyond doubt.
"""

import re
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

WORD = re.compile(rb"[\w\x80-\xff]+|([^\w\s])\1*")
"""Over UTF-8 bytes: a run of letters, digits, ``_`` and all that is not ASCII; or one symbol
with its repetitions, so that a line of dashes is no more than ``==`` is."""

_BLANK, _SYMBOL, _LETTER = range(3)
# Hashes are polynomials in this odd number, modulo 2**64.
_BASE = np.uint64(0x9E3779B97F4A7C15)
# A letter's weight is that of its place in the word, from here on over again.
_PLACES = 1 << 16


class Words(NamedTuple):
    """The words of a text, in order."""

    codes: NDArray[np.uint16]
    """Equal for equal words [T]."""
    starts: NDArray[np.int64]
    """Where each begins, in bytes [T]."""
    ends: NDArray[np.int64]


def words_of(data: bytes) -> Words:
    """The words and symbols of UTF-8 text. Takes about 40 times its memory meanwhile."""
    raw = np.frombuffer(data, np.uint8)
    kinds = _KINDS[raw]
    letters = kinds == _LETTER
    first = kinds != _BLANK
    goes_on = (letters[1:] & letters[:-1]) | (first[1:] & (raw[1:] == raw[:-1]))
    last = first.copy()
    first[1:] &= ~goes_on
    last[:-1] &= ~goes_on
    starts = np.flatnonzero(first)
    if not len(starts):
        return Words(np.zeros(0, np.uint16), starts, starts)
    places = np.arange(len(raw))
    places -= np.maximum.accumulate(np.where(first, places, 0))
    sums = np.add.reduceat(_CODES[raw] * _WEIGHTS[places % _PLACES], starts)
    codes = (mixed(sums) >> np.uint64(48)).astype(np.uint16)
    return Words(codes, starts, np.flatnonzero(last) + 1)


def gram_codes(words: NDArray[np.uint16], gram: int, stride: int = 1) -> NDArray[np.uint64]:
    """64 bits for the ``gram`` words from every ``stride``-th word on, where there are so many."""
    count = max(0, (len(words) - gram) // stride + 1)
    codes = np.zeros(count, np.uint64)
    for place in range(gram if count else 0):
        codes *= _BASE
        codes += words[place : place + (count - 1) * stride + 1 : stride]
    return mixed(codes)


def mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """splitmix64's last steps: every bit of the result depends on every bit given."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _kind(byte: int) -> int:
    if not WORD.match(bytes([byte])):
        return _BLANK
    return _LETTER if WORD.fullmatch(bytes([byte, ord("_")])) else _SYMBOL


_KINDS = np.array([_kind(byte) for byte in range(256)], np.uint8)
# A blank adds nothing to the word before it.
_CODES = np.where(_KINDS == _BLANK, np.uint64(0), mixed(np.arange(1, 257, dtype=np.uint64)))
_WEIGHTS = np.cumprod(np.full(_PLACES, _BASE))
