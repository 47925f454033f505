"""Bits-per-byte: how many bits a model needs for each byte of text it has not seen.

Independent of the vocabulary, so any two models can be compared. The protocol:

- Each file is scored from its start, alone. One end-of-text id stands before
  it, as a document follows one in training: it is what the first token is
  predicted from, it takes one place of the window, and is not scored itself.
- Windows of 1,024 tokens, each 512 further on, every token scored once: the
  first window scores all of its tokens, each later one only its second half.
  So a token has all of the file before it, or at least 512 tokens.
- No end-of-text is scored at the end of a file either.
- The sum of -ln p, divided by ln 2 and by the bytes of the text in UTF-8. (For
  a UTF-8 file with ``\\n`` line ends that is its size on the disk.)

The middle of a file is measured in the same unit with both sides given, and
with the prefix alone: the difference is what a model knows how to take from a
suffix. Files are cut on characters, so that every model is asked for the same
middles: stretches of whole lines of at most 2,048 characters, in each of them
two cuts, uniform, drawn from a seed. Again an end-of-text stands in front and
none is scored.

What it gives up: each window is computed anew, since learned absolute
positions allow no sliding, so a token costs about two.
"""

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from .. import fim
from ..engine.decoder import Logits
from ..errors import RequestError
from ..model.config import ModelConfig

WINDOW = 1024
STRIDE = 512
STRETCH = 2048

# Positions whose logits are held at a time: 512 x 49,152 float32 are 100 MB.
_CHUNK = 512


# What the middles of a file are scored after: the columns of Scorer.middles.
MIDDLES = ("prefix only", "psm", "spm")


@dataclass(frozen=True)
class Score:
    """-ln p summed over ``tokens`` tokens that spell ``bytes`` bytes."""

    bytes: int = 0
    tokens: int = 0
    nats: float = 0.0
    skipped: int = 0
    """Stretches that do not fit the model's context."""

    def __add__(self, other: "Score") -> "Score":
        return Score(
            self.bytes + other.bytes,
            self.tokens + other.tokens,
            self.nats + other.nats,
            self.skipped + other.skipped,
        )

    @property
    def bits_per_byte(self) -> float:
        """nats / ln 2 / bytes; not a number where nothing was scored."""
        return self.nats / math.log(2) / self.bytes if self.bytes else math.nan


class ScoringDecoder(Protocol):
    """As much of a decoder as scoring needs."""

    @property
    def config(self) -> ModelConfig: ...

    def allocate(self) -> int: ...

    def extend(self, slot: int, ids: Sequence[int], *, all_logits: bool = False) -> Logits: ...

    def truncate(self, slot: int, length: int) -> None: ...


class Encoder(Protocol):
    """As much of a tokenizer as scoring needs."""

    @property
    def eos_id(self) -> int: ...

    @property
    def fim(self) -> fim.FimTokens | None: ...

    def encode(self, text: str) -> list[int]: ...


class Scorer:
    """Scores texts with one decoder and one of its slots."""

    def __init__(
        self,
        decoder: ScoringDecoder,
        tokenizer: Encoder,
        *,
        window: int = WINDOW,
        stride: int = STRIDE,
    ) -> None:
        """RequestError where the context is shorter than a window."""
        self._context = decoder.config.n_positions
        if self._context < window:
            raise RequestError(
                f"windows of {window} tokens do not fit this model's context of {self._context}"
            )
        self._decoder, self._tokenizer = decoder, tokenizer
        self._window, self._stride = window, stride
        self._slot = decoder.allocate()

    def text(self, text: str) -> Score:
        """One file, by the protocol above."""
        ids = [self._tokenizer.eos_id, *self._tokenizer.encode(text)]
        nats = 0.0
        scored = 1
        for start in range(0, len(ids), self._stride):
            window = ids[start : start + self._window]
            nats += self._nats(window, scored - start)
            scored = start + len(window)
            if scored == len(ids):
                break
        return Score(len(text.encode()), len(ids) - 1, nats)

    def middles(self, text: str, rng: random.Random) -> tuple[Score, Score, Score]:
        """The middles of one file, the same after each of ``MIDDLES``.

        RequestError where the vocabulary has no FIM tokens.
        """
        tokens = self._tokenizer.fim
        if tokens is None:
            raise RequestError("this model's vocabulary has no fill-in-the-middle tokens")
        eos, encode = self._tokenizer.eos_id, self._tokenizer.encode
        prefix_only = psm = spm = Score()
        for stretch in stretches(text):
            start, end = fim.draw_cuts(len(stretch), rng)
            prefix, suffix = encode(stretch[:start]), encode(stretch[end:])
            middle = encode(stretch[start:end])
            size = len(stretch[start:end].encode())
            if 1 + fim.SENTINELS + len(prefix) + len(middle) + len(suffix) > self._context:
                skipped = Score(skipped=1)
                prefix_only, psm, spm = prefix_only + skipped, psm + skipped, spm + skipped
                continue
            prefix_only += self._after([eos, *prefix], middle, size)
            psm += self._after([eos, *fim.prompt(prefix, suffix, tokens, "psm")], middle, size)
            spm += self._after([eos, *fim.prompt(prefix, suffix, tokens, "spm")], middle, size)
        return prefix_only, psm, spm

    def _after(self, context: list[int], ids: list[int], size: int) -> Score:
        return Score(size, len(ids), self._nats([*context, *ids], len(context)))

    def _nats(self, ids: Sequence[int], first: int) -> float:
        """-ln p of ``ids[first:]``, each given all of ``ids`` before it; ``first`` is not 0."""
        self._decoder.truncate(self._slot, 0)
        if first > 1:
            self._decoder.extend(self._slot, ids[: first - 1])
        total = 0.0
        for start in range(first - 1, len(ids) - 1, _CHUNK):
            targets = ids[start + 1 : start + 1 + _CHUNK]
            inputs = ids[start : start + len(targets)]
            total += cross_entropy(
                self._decoder.extend(self._slot, inputs, all_logits=True), targets
            )
        return total


def cross_entropy(logits: Logits, targets: Sequence[int]) -> float:
    """-ln softmax of ``[T, V]`` at the ``[T]`` targets, summed, in float64."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    picked = shifted[np.arange(len(targets)), targets].astype(np.float64)
    totals = np.exp(shifted, out=shifted).sum(axis=-1, dtype=np.float64)
    return float((np.log(totals) - picked).sum())


def stretches(text: str, length: int = STRETCH) -> Iterator[str]:
    """``text`` in consecutive pieces of whole lines, at most ``length`` characters each.

    A line longer than that is cut where the characters run out.
    """
    start = 0
    while start < len(text):
        end = min(start + length, len(text))
        if end < len(text):
            end = text.rfind("\n", start, end) + 1 or end
        yield text[start:end]
        start = end
