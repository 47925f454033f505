"""Batches of packed rows, each a pure function of (seed, epoch, sample).

The mental model:

    TokenShards          documents as ids, memory-mapped; each ends with end-of-text
      -> Mixture         several of them as one, each with its share of an epoch
      -> keep            some paths (tests, examples), and more of a large package
                         than its limit, stay with a probability
      -> packing.plan    which tokens stand in which row, for one block of an epoch
      -> row             pieces become ids, a file's name perhaps before it; some are
                         permuted for fill-in-the-middle:
                         back to text, cut at two characters, three parts encoded apart
      -> Batch           inputs [rows, context], targets the same shifted by one
      -> prefetch        made by a thread while the step before is computed

No generator carries state from one row to the next: every random draw is seeded
by what it decides about. A run resumes from a :class:`Cursor` of three numbers, and
rank r of n makes rows r, r + n, r + 2n, … of each step, whatever n is. What it
gives up: a mixture holds the index of all its documents in memory, 8 bytes for each
time that one is read in an epoch.
"""

import math
from collections import Counter, deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from random import Random
from re import compile as compile_pattern
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from .. import fim
from ..corpus.token_shards import TokenShards
from ..errors import TrainingError
from ..tokenizer import Tokenizer
from .loss import IGNORED
from .metadata import Prefixes
from .packing import Lengths, Piece, Row, blocks, plan
from .recipe import DataRecipe

Ids = npt.NDArray[np.int64]
T = TypeVar("T")


@dataclass(frozen=True)
class Cursor:
    """Where the next row comes from, inside a block that was planned as rows of ``context``."""

    epoch: int = 0
    block: int = 0
    row: int = 0
    context: int = 0

    def planned_for(self, context: int) -> "Cursor":
        """The same, or the next block, where this one's rows are of another context."""
        if not self.row or self.context == context:
            return self
        return Cursor(self.epoch, self.block + 1)


@dataclass(frozen=True)
class Batch:
    """What one rank takes in a step. All arrays are ``[rows, context]``."""

    inputs: Ids
    targets: Ids
    """IGNORED where a row has ended."""
    documents: Ids
    """Which of its row's pieces each input belongs to, from 0; padding is one more."""
    bytes: int
    """Of the text that the targets spell; special tokens have none."""
    cursor: Cursor
    """Where the next step's batch begins."""


class Mixture:
    """Documents of several token shards, numbered through; ``weights`` are shares of tokens."""

    def __init__(self, parts: Sequence[TokenShards], weights: Sequence[float]) -> None:
        self._parts = parts
        self._ends = np.cumsum([len(part) for part in parts])
        self.lengths: Lengths = np.concatenate([part.lengths for part in parts])
        tokens = np.array([part.num_tokens for part in parts], dtype=np.float64)
        shares = np.array(weights) / sum(weights)
        # A lone source is read once an epoch, exactly: no rounding decides about a document.
        times = shares * tokens.sum() / tokens if len(parts) > 1 else np.ones(1)
        self.times = np.repeat(times, [len(part) for part in parts])
        """How often an epoch reads each document [N], on average."""

    def __len__(self) -> int:
        return len(self.lengths)

    def document(self, index: int) -> npt.NDArray[np.uint16]:
        """The ids of one document, its end of text included."""
        part = int(np.searchsorted(self._ends, index, side="right"))
        return self._parts[part].document(index - (int(self._ends[part - 1]) if part else 0))

    def documents(self) -> Iterator[dict[str, Any]]:
        """What is known of each document, in order."""
        for part in self._parts:
            yield from part.documents()


class Dataloader:
    """Endless batches over token shards, epoch after epoch: one rank's share of them."""

    def __init__(
        self,
        shards: Mixture,
        tokenizer: Tokenizer,
        recipe: DataRecipe,
        seed: int,
        *,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        self.shards, self.tokenizer, self.recipe, self.seed = shards, tokenizer, recipe, seed
        self.rank, self.ranks = rank, ranks
        tokens = tokenizer.fim
        if tokens is None and recipe.fim_rate:
            raise TrainingError("data.fim_rate is set, but the tokenizer has no FIM tokens")
        self._fim_tokens = tokens
        self._token_bytes = np.array([len(token) for token in tokenizer.vocabulary])
        self._times = self._times_read()
        # A document that is read again has a number of its own: other cuts, other draws.
        copies = max(math.ceil(self._times.max(initial=0.0)), 1)
        self._lengths: Lengths = np.tile(shards.lengths, copies)
        self._prefixes: Prefixes | None = None
        if rate := recipe.metadata_rate:
            self._prefixes = Prefixes(shards.documents(), tokenizer, rate, seed, copies)
        if not self._documents(0).size:
            raise TrainingError("no documents to train on")

    def batches(self, cursor: Cursor, context: int, rows: int) -> Iterator[Batch]:
        """This rank's share of steps of ``rows`` rows, from ``cursor`` on."""
        source = self._rows(cursor, context)
        while True:
            taken = [next(source) for _ in range(rows)]
            mine = [self.row(epoch, row) for epoch, row, _ in taken[self.rank :: self.ranks]]
            yield self._collate(mine, context, taken[-1][2])

    def row(self, epoch: int, row: Row) -> list[list[int]]:
        """The ids of one planned row, piece by piece."""
        return [self._piece(epoch, piece) for piece in row]

    def _rows(self, cursor: Cursor, context: int) -> Iterator[tuple[int, Row, Cursor]]:
        """Planned rows with their epoch and the cursor after each."""
        cursor = cursor.planned_for(context)
        epoch, block, start = cursor.epoch, cursor.block, cursor.row
        while True:
            lengths = self._lengths
            if self._prefixes:
                lengths = lengths + self._prefixes.lengths(epoch)
            parts = blocks(lengths, self._documents(epoch), [self.seed, epoch])
            for index in range(block, len(parts)):
                rows = plan(
                    lengths,
                    parts[index],
                    context + 1,
                    partial(self._permuted, epoch),
                    [self.seed, epoch, index],
                )
                for number in range(start, len(rows)):
                    yield epoch, rows[number], Cursor(epoch, index, number + 1, context)
                start = 0
            epoch, block = epoch + 1, 0

    def _documents(self, epoch: int) -> Ids:
        """Numbers of the documents that this epoch reads; of a second copy, N further on."""
        count = len(self.shards)
        draws = np.random.default_rng([self.seed, epoch, 1]).random(count)
        copies = np.floor(self._times) + (draws < self._times % 1)
        each = [np.flatnonzero(copies > copy) + copy * count for copy in range(int(copies.max()))]
        return np.concatenate(each) if each else np.empty(0, dtype=np.int64)

    def _times_read(self) -> npt.NDArray[np.float64]:
        """How often an epoch reads each document: by its path, its package, its source."""
        keep = np.ones(len(self.shards))
        rules = [(compile_pattern(rule.path), rule.probability) for rule in self.recipe.keep]
        power = self.recipe.quality_power
        if not rules and not self.recipe.package_tokens and not power:
            return self.shards.times
        expected: Counter[str] = Counter()  # tokens an epoch, of each package
        packages = []
        for index, origin in enumerate(self.shards.documents()):
            path = f"{origin['package']}/{origin['path']}"
            keep[index] = min((p for rule, p in rules if rule.search(path)), default=1.0)
            keep[index] *= origin.get("quality", 1.0) ** power
            packages.append(origin["package"])
            expected[origin["package"]] += keep[index] * self.shards.lengths[index]
        if limit := self.recipe.package_tokens:
            keep *= [min(1.0, limit / max(expected[package], 1)) for package in packages]
        times: npt.NDArray[np.float64] = keep * self.shards.times
        return times

    def _draws(self, epoch: int, document: int, start: int) -> Random:
        return Random(f"{self.seed}/{epoch}/{document}/{start}")

    def _permuted(self, epoch: int, document: int, start: int) -> bool:
        return self._draws(epoch, document, start).random() < self.recipe.fim_rate

    def _piece(self, epoch: int, piece: Piece) -> list[int]:
        document = self.shards.document(piece.document % len(self.shards))
        before = self._prefixes.ids(epoch, piece.document) if self._prefixes else []
        start, stop = max(piece.start - len(before), 0), max(piece.stop - len(before), 0)
        prefix, ids = before[piece.start : piece.stop], document[start:stop].tolist()
        return self._permuted_ids(epoch, piece, prefix, ids) or prefix + ids

    def _permuted_ids(
        self, epoch: int, piece: Piece, prefix: list[int], ids: list[int]
    ) -> list[int] | None:
        """The ids with a middle moved to the end; None where they are to be left as they are."""
        if not piece.fim or self._fim_tokens is None or not ids:
            return None
        end = self.tokenizer.eos_id
        body = ids[:-1] if ids[-1] == end else ids
        text = self.tokenizer.decode(body)
        # A piece may begin or end inside a character; a notebook's tokens are no text.
        if "\ufffd" in text or not self.tokenizer.special_ids.isdisjoint(body):
            return None
        draws = self._draws(epoch, piece.document, piece.start)
        draws.random()  # What decided that this piece is permuted.
        order: fim.Order = "spm" if draws.random() < self.recipe.spm_rate else "psm"
        # No rate, no draw: the batches of recipes without one stay what they were.
        if self.recipe.line_rate and draws.random() < self.recipe.line_rate:
            cuts = fim.draw_line_cuts(text, draws)
        else:
            cuts = fim.draw_cuts(len(text), draws)
        permuted = fim.permute(text, cuts, self.tokenizer.encode, self._fim_tokens, order)
        # What is told of a file stands where the file begins.
        begin = 1 if order == "psm" else permuted.index(self._fim_tokens.middle) + 1
        permuted[begin:begin] = prefix
        # The end of a middle is what the model must learn to say, in a piece of a file too.
        # More than the planned places: rather no permutation than a middle without its end.
        permuted.append(end)
        return permuted if len(permuted) <= len(piece) else None

    def _collate(self, rows: list[list[list[int]]], context: int, cursor: Cursor) -> Batch:
        ids = np.full((len(rows), context + 1), self.tokenizer.eos_id, dtype=np.int64)
        filled = np.zeros(ids.shape, dtype=bool)
        documents = np.zeros(ids.shape, dtype=np.int64)
        for index, row in enumerate(rows):
            at = 0
            for number, piece in enumerate(row):
                ids[index, at : at + len(piece)] = piece
                documents[index, at : at + len(piece)] = number
                at += len(piece)
            filled[index, :at] = True
            documents[index, at:] = len(row)
        targets = np.where(filled, ids, IGNORED)[:, 1:]
        size = int(self._token_bytes[targets[targets != IGNORED]].sum())
        return Batch(ids[:, :-1], targets, documents[:, :-1], size, cursor)


def prefetch(source: Iterator[T], ahead: int = 2) -> Generator[T, None, None]:
    """The same items in the same order; a thread makes the next ones while one is used.

    So the place to resume from is the one that an item carries, not where ``source`` is.
    """
    end = object()
    pool = ThreadPoolExecutor(1, "prefetch")
    waiting = deque(pool.submit(next, source, end) for _ in range(ahead))
    try:
        while (item := waiting.popleft().result()) is not end:
            waiting.append(pool.submit(next, source, end))
            yield item  # type: ignore[misc]
    finally:
        pool.shutdown(cancel_futures=True)
