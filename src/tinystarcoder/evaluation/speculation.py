"""What speculation brings a model: how many guesses are right, how much sooner the text is there.

Each prompt is computed once and then continued twice from there, plainly and with
the drafter, so that only the writing is timed. It gives up counting where a guess
failed: a pass gives one token and every right guess before it, so passes and
tokens tell how many were right.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ..engine.decoder import Decoder, Logits
from ..generation.generate import fit_prompt, generate_ids, new_slot
from ..generation.sampling import SamplingOptions
from ..generation.sequence import Sequence as Text
from ..generation.sequence import Token
from ..generation.speculative import Drafter, NewDrafter, speculative_ids
from ..pretrained import Model


@dataclass
class _Counts:
    guessed: int = 0
    passes: int = 0
    draft_seconds: float = 0.0


class _CountedDrafter:
    def __init__(self, drafter: Drafter, counts: _Counts) -> None:
        self._drafter, self._counts = drafter, counts

    def guess(self, text: Text, limit: int) -> list[int]:
        start = time.perf_counter()
        guesses = self._drafter.guess(text, limit)
        self._counts.draft_seconds += time.perf_counter() - start
        self._counts.guessed += len(guesses)
        return guesses

    def close(self) -> None:
        self._drafter.close()


class _CountedDecoder:
    """A decoder that counts its passes; in everything else it is the one that it wraps."""

    def __init__(self, decoder: Decoder, counts: _Counts) -> None:
        self._decoder, self._counts = decoder, counts

    def extend(self, slot: int, ids: Sequence[int], *, all_logits: bool = False) -> Logits:
        self._counts.passes += 1
        return self._decoder.extend(slot, ids, all_logits=all_logits)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._decoder, name)


def measure(
    model: Model, new_drafter: NewDrafter, prompt: str, options: SamplingOptions
) -> dict[str, tuple[float, float]]:
    """Numerator and denominator of each metric, for one prompt of a file's text.

    ``accepted``: right guesses of all guesses; ``tokens a pass``; ``speed-up``: seconds
    without by seconds with; ``drafting``: the drafter's share of the seconds;
    ``same text``: whether speculation changed nothing, as it must.
    """
    ids = fit_prompt(model.tokenizer.encode(prompt), model.config, options.max_tokens)
    stops = model.tokenizer.special_ids
    counts = _Counts()
    counted: Any = _CountedDecoder(model.decoder, counts)
    with new_slot(model.decoder) as prefilled:
        if ids[:-1]:
            model.decoder.extend(prefilled, ids[:-1])
        plain, without = _timed(
            model.decoder,
            prefilled,
            lambda slot: generate_ids(model.decoder, slot, ids, options, stop_ids=stops),
        )
        guessed, seconds = _timed(
            model.decoder,
            prefilled,
            lambda slot: speculative_ids(
                counted,
                slot,
                ids,
                options,
                lambda: _CountedDrafter(new_drafter(), counts),
                stop_ids=stops,
            ),
        )
    return {
        "accepted": (len(guessed) - counts.passes, counts.guessed),
        "tokens a pass": (len(guessed), counts.passes),
        "speed-up": (without, seconds),
        "drafting": (counts.draft_seconds, seconds),
        "same text": (float(plain == guessed), 1),
    }


def _timed(
    decoder: Decoder, prefilled: int, write: Callable[[int], Iterable[Token]]
) -> tuple[list[int], float]:
    with new_slot(decoder) as slot:
        decoder.copy(prefilled, slot)
        start = time.perf_counter()
        ids = [token.id for token in write(slot)]
        return ids, time.perf_counter() - start
