"""Batches of packed rows, each a pure function of (seed, epoch, sample).

The mental model:

    TokenShards          documents as ids, memory-mapped; each ends with end-of-text
      -> keep            some paths (tests, examples), and more of a large package
                         than its limit, stay with a probability
      -> packing.plan    which tokens stand in which row, for one block of an epoch
      -> row             pieces become ids; some are permuted for fill-in-the-middle:
                         back to text, cut at two characters, three parts encoded apart
      -> batch           inputs [rows, context], targets the same shifted by one

No generator carries state from one row to the next: every random draw is seeded
by what it decides about. A run resumes from a :class:`Cursor` of three numbers.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from random import Random
from re import compile as compile_pattern

import numpy as np
import numpy.typing as npt

from .. import fim
from ..corpus.token_shards import TokenShards
from ..errors import TrainingError
from ..tokenizer import Tokenizer
from .loss import IGNORED
from .packing import Lengths, Piece, Row, blocks, plan
from .recipe import DataRecipe

Batch = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]


@dataclass(frozen=True)
class Cursor:
    """Where the next row comes from."""

    epoch: int = 0
    block: int = 0
    row: int = 0


class Dataloader:
    """Endless batches over token shards, epoch after epoch."""

    def __init__(
        self, shards: TokenShards, tokenizer: Tokenizer, recipe: DataRecipe, seed: int
    ) -> None:
        self.shards, self.tokenizer, self.recipe, self.seed = shards, tokenizer, recipe, seed
        tokens = tokenizer.fim
        if tokens is None and recipe.fim_rate:
            raise TrainingError("data.fim_rate is set, but the tokenizer has no FIM tokens")
        self._fim_tokens = tokens
        self._lengths: Lengths = np.asarray(shards.lengths)
        self._keep_probability = self._probabilities()
        self.cursor = Cursor()
        if not self._documents(0).size:
            raise TrainingError("no documents to train on")

    def batches(self, context: int, rows: int) -> Iterator[Batch]:
        """Batches of ``rows`` rows from the cursor on, which moves with each one handed out."""
        source = self._rows(context)
        while True:
            taken = [next(source) for _ in range(rows)]
            self.cursor = taken[-1][2]
            yield self._collate([self.row(epoch, row) for epoch, row, _ in taken], context)

    def skip_block(self) -> None:
        """Moves on to the next block: rows of the present one were planned for another context."""
        if self.cursor.row:
            self.cursor = Cursor(self.cursor.epoch, self.cursor.block + 1)

    def row(self, epoch: int, row: Row) -> list[int]:
        """The ids of one planned row."""
        ids: list[int] = []
        for piece in row:
            ids += self._piece(epoch, piece)
        return ids

    def _rows(self, context: int) -> Iterator[tuple[int, Row, Cursor]]:
        """Planned rows with their epoch and the cursor after each."""
        epoch, block, start = self.cursor.epoch, self.cursor.block, self.cursor.row
        while True:
            parts = blocks(self._lengths, self._documents(epoch), [self.seed, epoch])
            for index in range(block, len(parts)):
                rows = plan(
                    self._lengths,
                    parts[index],
                    context + 1,
                    partial(self._permuted, epoch),
                    [self.seed, epoch, index],
                )
                for number in range(start, len(rows)):
                    yield epoch, rows[number], Cursor(epoch, index, number + 1)
                start = 0
            epoch, block = epoch + 1, 0

    def _documents(self, epoch: int) -> npt.NDArray[np.int64]:
        """Ids of the documents that this epoch keeps."""
        draws = np.random.default_rng([self.seed, epoch, 1]).random(len(self.shards))
        return np.flatnonzero(draws < self._keep_probability)

    def _probabilities(self) -> npt.NDArray[np.float64]:
        """What chance each document has to be read in an epoch: by its path, then its package."""
        keep = np.ones(len(self.shards))
        rules = [(compile_pattern(rule.path), rule.probability) for rule in self.recipe.keep]
        if not rules and not self.recipe.package_tokens:
            return keep
        expected: Counter[str] = Counter()  # tokens an epoch, of each package
        packages = []
        for index, origin in enumerate(self.shards.documents()):
            path = f"{origin['package']}/{origin['path']}"
            keep[index] = min((p for rule, p in rules if rule.search(path)), default=1.0)
            packages.append(origin["package"])
            expected[origin["package"]] += keep[index] * self._lengths[index]
        if limit := self.recipe.package_tokens:
            keep *= [min(1.0, limit / max(expected[package], 1)) for package in packages]
        return keep

    def _draws(self, epoch: int, document: int, start: int) -> Random:
        return Random(f"{self.seed}/{epoch}/{document}/{start}")

    def _permuted(self, epoch: int, document: int, start: int) -> bool:
        return self._draws(epoch, document, start).random() < self.recipe.fim_rate

    def _piece(self, epoch: int, piece: Piece) -> list[int]:
        ids: list[int] = self.shards.document(piece.document)[piece.start : piece.stop].tolist()
        if not piece.fim or self._fim_tokens is None:
            return ids
        end = self.tokenizer.eos_id
        text = self.tokenizer.decode(ids[:-1] if ids[-1] == end else ids)
        if "\ufffd" in text:  # A piece may begin or end inside a character: leave it whole.
            return ids
        draws = self._draws(epoch, piece.document, piece.start)
        draws.random()  # What decided that this piece is permuted.
        order: fim.Order = "spm" if draws.random() < self.recipe.spm_rate else "psm"
        cuts = fim.draw_cuts(len(text), draws)
        permuted = fim.permute(text, cuts, self.tokenizer.encode, self._fim_tokens, order)
        # The end of a middle is what the model must learn to say, in a piece of a file too.
        # More than the planned places: rather no permutation than a middle without its end.
        permuted.append(end)
        return permuted if len(permuted) <= len(piece) else ids

    def _collate(self, rows: list[list[int]], context: int) -> Batch:
        """Inputs and targets, both ``[rows, context]``; padding is a target of IGNORED."""
        ids = np.full((len(rows), context + 1), self.tokenizer.eos_id, dtype=np.int64)
        filled = np.zeros(ids.shape, dtype=bool)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = row
            filled[index, : len(row)] = True
        return ids[:, :-1], np.where(filled, ids, IGNORED)[:, 1:]
