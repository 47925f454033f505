"""One text on its way: its ids so far, and how the next one is chosen.

Plain generation, speculation and the scheduler all choose here, so that they
choose alike: which decoder call brought the logits makes no difference.
"""

from collections import abc
from dataclasses import dataclass
from threading import Event
from typing import Protocol

import numpy as np

from ..engine.decoder import Decoder, Logits
from ..errors import RequestError
from ..model.config import ModelConfig
from .healing import Healing
from .sampling import Sampler, SamplingOptions, log_normalizer

# Prompt tokens computed between two looks at a cancellation.
PREFILL_STEP = 128


class Cancellation(Protocol):
    """What tells that an answer is no longer wanted: ``threading.Event`` is one."""

    def is_set(self) -> bool: ...


NEVER: Cancellation = Event()


class Mixture(Protocol):
    """What is known besides the model: it changes the distribution that all else begins with."""

    def mix(self, logits: Logits, ids: abc.Sequence[int]) -> Logits:
        """The ``[V]`` logits of what follows ``ids``; called for each token in turn."""
        ...


@dataclass(frozen=True)
class Token:
    """One generated id, and what the model gave it, a mixture included, before any option
    reshaped it.

    ``logprob`` is a natural logarithm, of a healed token's among those that spell
    what stands there; ``alternatives`` are the likeliest of all ids with theirs,
    likeliest first.
    """

    id: int
    logprob: float
    alternatives: tuple[tuple[int, float], ...] = ()


class Sequence:
    """A prompt and what has been chosen to follow it.

    ``ids`` are all of them, ``generated`` the number of those after the prompt.
    Raises RequestError where prompt and ``max_tokens`` do not fit the context.
    """

    def __init__(
        self,
        config: ModelConfig,
        prompt_ids: abc.Sequence[int],
        options: SamplingOptions,
        *,
        stop_ids: frozenset[int] = frozenset(),
        sample: int = 0,
        healing: Healing | None = None,
        mixture: Mixture | None = None,
    ) -> None:
        check_fits(config, len(prompt_ids), options.max_tokens)
        self.ids = list(prompt_ids)
        self.generated = 0
        self.options = options
        self.sampler = Sampler(options, sample)
        self.is_finished = False
        self._stop_ids = stop_ids
        self._healing = healing
        self._mixture = mixture

    @property
    def left(self) -> int:
        """Tokens that may still be chosen."""
        return self.options.max_tokens - self.generated

    def take(self, logits: Logits) -> Token:
        """Chooses what follows ``ids`` from its ``[V]`` logits, and appends it.

        Raises RequestError for logits that are not finite.
        """
        if not np.isfinite(logits.max()):
            raise RequestError("the model's logits are not finite: its weights are damaged")
        healing = self._healing
        if self._mixture:
            logits = self._mixture.mix(logits, self.ids)
        fitting = healing.mask(logits) if healing else logits
        chosen = self.sampler.choose(fitting, self.ids)
        if healing:
            healing.accept(chosen)
        self.ids.append(chosen)
        self.generated += 1
        self.is_finished = chosen in self._stop_ids or not self.left
        logprob = float(fitting[chosen]) - log_normalizer(fitting)
        return Token(chosen, logprob, _alternatives(logits, self.options.top_logprobs))


def room_for_prompt(config: ModelConfig, max_tokens: int) -> int:
    """Ids that a prompt may have. Raises RequestError where max_tokens leaves none."""
    if max_tokens >= config.n_positions:
        raise RequestError(
            f"max_tokens {max_tokens} leaves no room for a prompt in this model's context of "
            f"{config.n_positions}; ask for fewer",
            "max_tokens",
        )
    return config.n_positions - max_tokens


def room_for_answer(config: ModelConfig, prompt_tokens: int) -> int:
    """Tokens that may follow a prompt. Raises RequestError where it leaves none."""
    if prompt_tokens >= config.n_positions:
        raise RequestError(
            f"the prompt has {prompt_tokens} tokens and leaves no room for an answer in this "
            f"model's context of {config.n_positions}; shorten it",
            "prompt",
        )
    return config.n_positions - prompt_tokens


def check_fits(config: ModelConfig, prompt_tokens: int, max_tokens: int) -> None:
    """Raises RequestError where a prompt and what may follow it do not fit the context."""
    if prompt_tokens > (room := room_for_prompt(config, max_tokens)):
        raise RequestError(
            f"the prompt has {prompt_tokens} tokens: with max_tokens {max_tokens}, this "
            f"model's context has room for {room}; shorten it or ask for fewer",
            "prompt",
        )


def extend_to(
    decoder: Decoder, slot: int, ids: abc.Sequence[int], cancelled: Cancellation = NEVER
) -> Logits | None:
    """Appends what a slot lacks of ``ids`` and returns what follows them; None once cancelled.

    In steps, so that a cancellation is soon seen: what was computed by then stays.
    """
    logits = None
    for start in range(decoder.length(slot), len(ids), PREFILL_STEP):
        if cancelled.is_set():
            return None
        logits = decoder.extend(slot, ids[start : start + PREFILL_STEP])
    return logits


def _alternatives(logits: Logits, number: int) -> tuple[tuple[int, float], ...]:
    if not number:
        return ()
    normalizer = log_normalizer(logits)
    return tuple((i, float(logits[i]) - normalizer) for i in _likeliest(logits, number))


def _likeliest(logits: Logits, number: int) -> list[int]:
    number = min(number, len(logits))
    ids = np.argpartition(logits, -number)[-number:]
    found: list[int] = ids[np.argsort(-logits[ids], kind="stable")].tolist()
    return found
