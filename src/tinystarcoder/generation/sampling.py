"""Choosing the next token: greedy, or drawn from a reshaped distribution.

The steps and their order are transformers': repetition penalty, temperature,
top-k, top-p, min-p. It gives up reproducing another library's draws: a seed
fixes numpy's generator, so the same seed gives the same text here alone.
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..engine.decoder import Logits
from ..errors import RequestError

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class SamplingOptions:
    """How to continue a prompt. Raises RequestError for a value out of range.

    ``max_tokens``: at most so many are generated. ``temperature``: 0 takes the
    likeliest token each time (greedy). ``top_k``: draw among so many likeliest;
    0 for all. ``top_p``: among the likeliest that reach this probability
    together; at 0, that is one. ``min_p``: among those at least this share of
    the likeliest one's. ``repetition_penalty``: above 1, tokens seen before
    become less likely.
    ``seed``: the same seed, the same draws; None for new ones. ``stop``:
    strings that end the text, not included. ``top_logprobs``: so many
    alternatives are told with each token.
    """

    max_tokens: int = 64
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    stop: Sequence[str] = ()
    top_logprobs: int = 0

    def __post_init__(self) -> None:
        _check(_is_count(self.max_tokens, 1), "max_tokens", self.max_tokens, "1 or more")
        _check(_is_number(self.temperature, 0), "temperature", self.temperature, "0 or more")
        _check(_is_count(self.top_k, 0), "top_k", self.top_k, "0 (off) or more")
        _check(_is_number(self.top_p, 0, 1), "top_p", self.top_p, "in [0, 1]")
        _check(_is_number(self.min_p, 0, 1), "min_p", self.min_p, "in [0, 1]")
        penalty = self.repetition_penalty
        _check(_is_number(penalty, 0) and penalty > 0, "repetition_penalty", penalty, "above 0")
        _check(
            self.seed is None or _is_count(self.seed, 0), "seed", self.seed, "0 or more, or None"
        )
        _check(_is_count(self.top_logprobs, 0), "top_logprobs", self.top_logprobs, "0 or more")
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)
        are_strings = all(isinstance(text, str) and text for text in stop)
        _check(are_strings, "stop", self.stop, "strings, none of them empty")
        object.__setattr__(self, "stop", stop)


def _check(holds: bool, name: str, value: object, expected: str) -> None:
    if not holds:
        raise RequestError(f"{name} {value!r}: must be {expected}", name)


def _is_count(value: object, low: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= low


def _is_number(value: object, low: float, high: float = math.inf) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return math.isfinite(value) and low <= value <= high


class Sampler:
    """Chooses tokens by the options; ``sample`` numbers the texts that share one seed."""

    def __init__(self, options: SamplingOptions, sample: int = 0) -> None:
        self._options = options
        seeds = np.random.SeedSequence(options.seed, spawn_key=(sample,))
        self._random = np.random.default_rng(seeds)
        self._points: deque[float] = deque()  # Random numbers foreseen, not yet used.

    def choose(self, logits: Logits, seen: Sequence[int]) -> int:
        """One id for ``[V]`` logits; ``seen`` are the ids so far, prompt included."""
        chosen = self.foresee(logits, seen, 0)
        if self._points:
            self._points.popleft()
        return chosen

    def foresee(self, logits: Logits, seen: Sequence[int], ahead: int) -> int:
        """What :meth:`choose` will choose, ``ahead`` choices from now, if it gets these then."""
        if self._options.repetition_penalty != 1:
            logits = penalized(logits, seen, self._options.repetition_penalty)
        if self._options.temperature == 0:
            return int(logits.argmax())
        cumulative = probabilities(logits, self._options).cumsum()
        # Scaled by the sum, which rounding leaves a little off 1; the first id
        # past the point, so that one of probability 0 is never drawn.
        while len(self._points) <= ahead:
            self._points.append(self._random.random())
        point = self._points[ahead] * cumulative[-1]
        return int(cumulative.searchsorted(point, side="right"))


def penalized(logits: Logits, seen: Sequence[int], penalty: float) -> Logits:
    """Logits of seen ids divided by the penalty, multiplied where negative (CTRL's rule)."""
    ids = np.unique(np.asarray(seen, dtype=np.intp))
    chosen = logits[ids].astype(np.float64)  # In float32 a tiny penalty would be 0.
    logits = logits.copy()
    limit = np.finfo(logits.dtype).max  # Two infinities would make a NaN of their difference.
    with np.errstate(over="ignore"):
        reshaped = np.where(chosen < 0, chosen * penalty, chosen / penalty)
    logits[ids] = reshaped.clip(-limit, limit)
    return logits


def probabilities(logits: Logits, options: SamplingOptions) -> Floats:
    """The distribution to draw from, ``[V]``: not normalized, its largest value is 1."""
    scaled = logits.astype(np.float64)
    scaled -= scaled.max()
    with np.errstate(over="ignore"):  # A tiny temperature: all but the likeliest become 0.
        weights: Floats = np.exp(scaled / options.temperature)
    if 0 < options.top_k < len(weights):
        kth = np.partition(weights, -options.top_k)[-options.top_k]
        weights[weights < kth] = 0
    if options.top_p < 1:
        descending = np.sort(weights)[::-1]
        reached = descending.cumsum().searchsorted(options.top_p * descending.sum())
        weights[weights < descending[min(reached, len(descending) - 1)]] = 0
    weights[weights < options.min_p] = 0  # The likeliest one's weight is 1.
    return weights


def log_normalizer(logits: Logits) -> float:
    """What to subtract from ``[V]`` logits for natural log-probabilities, to six digits."""
    top = logits.max()
    # In float32 but for the sum: a vocabulary of 49,152 takes 50 microseconds, not 500.
    return float(top) + math.log(np.exp(logits - top).sum(dtype=np.float64))
