"""Where a file comes from, told before it: BigCode's prefixes.

    <reponame>R<filename>P<gh_stars>B⏎code          each part with its own draw

The tokens are ids that are put here; a name that spells one stays text. Which
documents have which parts is a function of (seed, epoch, document). Where stars
are not known nothing is said of them. In fill-in-the-middle the prefix stays at
the beginning of the file.

What it gives up: the ids of all names and paths are held in memory.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import TrainingError
from ..tokenizer import Tokenizer

PARTS = ("<reponame>", "<filename>", "<gh_stars>")
_BUCKETS = ((0, "0"), (10, "1-10"), (100, "10-100"), (1000, "100-1000"))

Ids = list[int]


class Prefixes:
    """The prefixes of N documents in every epoch; ``origins`` is what is known of each."""

    def __init__(
        self,
        origins: Iterable[Mapping[str, Any]],
        tokenizer: Tokenizer,
        rate: float,
        seed: int,
        copies: int = 1,
    ) -> None:
        """Documents N and further are copies of the first ones, with draws of their own.

        Raises TrainingError where the vocabulary lacks the tokens.
        """
        controls = [tokenizer.token_id(part) for part in PARTS]
        if None in controls:
            raise TrainingError(f"data.metadata_rate is set, but the tokenizer lacks {PARTS}")
        self._controls = [control for control in controls if control is not None]
        self._rate, self._seed, self._copies = rate, seed, copies
        self._end = tokenizer.encode("\n")
        self._texts = _encoded(origins, tokenizer)
        sizes = [[len(ids) + 1 if ids else 0 for ids in column] for column in self._texts]
        self._sizes = np.array(sizes, dtype=np.int64).T
        self._epoch, self._drawn = -1, np.zeros((0, len(PARTS)), dtype=bool)

    def lengths(self, epoch: int) -> npt.NDArray[np.int64]:
        """Tokens before each document [N * copies]."""
        sizes = np.tile(self._sizes, (self._copies, 1)) * self._draws(epoch)
        total: npt.NDArray[np.int64] = sizes.sum(axis=1)
        return total + len(self._end) * (total > 0)

    def ids(self, epoch: int, document: int) -> Ids:
        """The tokens before one document, line end included; none where no part was drawn."""
        index, ids = document % len(self._sizes), Ids()
        for part, drawn in enumerate(self._draws(epoch)[document]):
            if drawn and (text := self._texts[part][index]):
                ids += [self._controls[part], *text]
        return ids + self._end if ids else ids

    def _draws(self, epoch: int) -> npt.NDArray[np.bool_]:
        if epoch != self._epoch:
            shape = (len(self._sizes) * self._copies, len(PARTS))
            draws = np.random.default_rng([self._seed, epoch, 2]).random(shape)
            self._epoch, self._drawn = epoch, draws < self._rate
        return self._drawn


def bucket(stars: int) -> str:
    """BigCode's name for so many stars."""
    return next((name for most, name in _BUCKETS if stars <= most), "1000+")


def _encoded(origins: Iterable[Mapping[str, Any]], tokenizer: Tokenizer) -> list[list[Ids]]:
    """Ids of each document's package, path and stars; none where they are not known."""
    known: dict[str, Ids] = {"": []}
    columns: list[list[Ids]] = [[] for _ in PARTS]
    for origin in origins:
        stars = origin.get("stars")
        texts = (origin["package"], origin["path"], "" if stars is None else bucket(stars))
        for column, text in zip(columns, texts, strict=True):
            if text not in known:
                known[text] = tokenizer.encode(text)
            column.append(known[text])
    return columns
