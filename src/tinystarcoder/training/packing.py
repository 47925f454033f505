"""Which tokens of which document stand in which row: a plan, made before any text is read.

    documents ── shuffled by (seed, epoch) ──> blocks of about 4M tokens
    block ── cut into pieces no longer than a row ──> best-fit ──> rows, shuffled

A row is a list of pieces whose tokens fill ``context + 1`` places; a document
longer than a row is cut, and only its last piece is short. Best-fit puts each
short piece into the fullest row that still has room, so that hardly any place
is padding and no short document is cut. The plan is a pure function of (lengths,
seed, epoch, context): any rank, worker or resumed run sees the same rows. What
it gives up: attention crosses the documents of a row, as in BigCode's runs.
"""

from bisect import bisect_left, insort
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..fim import SENTINELS

Lengths = npt.NDArray[np.int64]

# Places that fill-in-the-middle may add to a piece: its sentinels, the end of the
# middle, and what two cuts inside of tokens cost (hardly ever more than four).
FIM_OVERHEAD = SENTINELS + 1 + 4

BLOCK_TOKENS = 1 << 22


@dataclass(frozen=True, slots=True)
class Piece:
    """Tokens ``start:stop`` of one document, to be permuted for fill-in-the-middle or not."""

    document: int
    start: int
    stop: int
    fim: bool

    def __len__(self) -> int:
        """Places that it may take in a row."""
        return self.stop - self.start + (FIM_OVERHEAD if self.fim else 0)


Row = list[Piece]


def blocks(lengths: Lengths, documents: npt.NDArray[np.int64], key: list[int]) -> list[Lengths]:
    """The ids of one epoch's documents, shuffled by ``key`` and cut every BLOCK_TOKENS."""
    order = np.random.default_rng(key).permutation(documents)
    if not len(order):
        return []
    ends = np.cumsum(lengths[order])
    edges = np.arange(BLOCK_TOKENS, ends[-1], BLOCK_TOKENS)
    parts = np.split(order, np.searchsorted(ends, edges))
    return [part for part in parts if len(part)]


def cut(
    lengths: Lengths, block: Lengths, capacity: int, fim: Callable[[int, int], bool]
) -> Iterator[Piece]:
    """Pieces that fit ``capacity`` places and cover every token of the block once.

    ``fim(document, start)`` tells which to permute.
    """
    for document in block.tolist():
        length, start = int(lengths[document]), 0
        while start < length:
            permuted = fim(document, start)
            room = capacity - FIM_OVERHEAD if permuted else capacity
            stop = min(start + room, length)
            yield Piece(document, start, stop, permuted)
            start = stop


def pack(pieces: list[Piece], capacity: int) -> list[Row]:
    """Rows of at most ``capacity`` tokens, by best-fit decreasing."""
    rows: list[Row] = []
    room: list[tuple[int, int]] = []  # (places left, row), ascending
    for piece in sorted(pieces, key=len, reverse=True):
        at = bisect_left(room, (len(piece), -1))
        if at == len(room):
            rows.append([piece])
            left, row = capacity - len(piece), len(rows) - 1
        else:
            left, row = room.pop(at)
            rows[row].append(piece)
            left -= len(piece)
        if left:
            insort(room, (left, row))
    return rows


def plan(
    lengths: Lengths,
    block: Lengths,
    capacity: int,
    fim: Callable[[int, int], bool],
    key: list[int],
) -> list[Row]:
    """The rows of one block, shuffled by ``key`` so that long and short documents mix."""
    rows = pack(list(cut(lengths, block, capacity, fim)), capacity)
    order = np.random.default_rng(key).permutation(len(rows))
    return [rows[i] for i in order]
