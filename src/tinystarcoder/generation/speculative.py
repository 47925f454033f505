"""Speculative decoding: several tokens from one pass, and never another text.

A drafter guesses what comes next; one pass of the model over the guesses gives
its logits behind each of them. Guessing costs little, and a pass over a few
tokens reads the weights once, as a pass over one does.

    PromptLookup    what followed the last few ids where they stood before
    DraftModel      a smaller model with the same vocabulary

The accept rule: the model chooses at each guess as it would have without one,
by the same random number; a guess is kept while it is what was chosen, and
behind the first other choice everything is forgotten. So the text is, token for
token, that of :func:`~.generate.generate_ids`, greedy or sampled by the same
seed, where the decoder gives the same bits for a token alone and among others.
It gives up the few more tokens that Leviathan's rule would keep of a sampled
draft, min(1, p/q), since those are other texts, if of the same distribution.
"""

from array import array
from collections import abc
from collections.abc import Callable, Generator, Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ..engine.decoder import Decoder, Logits
from ..engine.prefix_cache import common
from .healing import Healing
from .sampling import SamplingOptions
from .sequence import NEVER, Cancellation, Sequence, Token, extend_to

# Longest guesses: beyond, a pass over them is no longer about as cheap as over one.
LONGEST = 12
# Ids that must have stood before for what followed them to be a guess.
NGRAMS = range(2, 5)


class Drafter(Protocol):
    """Guesses how one text goes on."""

    def guess(self, text: Sequence, limit: int) -> list[int]:
        """At most ``limit`` ids that may follow ``text.ids``, maybe none."""
        ...

    def close(self) -> None:
        """Gives back what it holds."""
        ...


# Makes a drafter for one more text.
NewDrafter = Callable[[], Drafter]


class Speculation:
    """One text's drafter, and how much it is let guess: twice as much where all was right.

    Where nothing was, it pauses, longer each time, so that a text in which
    nothing can be guessed is written about as fast as without.
    """

    def __init__(self, drafter: Drafter) -> None:
        self._drafter = drafter
        self._length = 2
        self._pause = 0
        self._waiting = 0

    def guess(self, text: Sequence) -> list[int]:
        """Ids to compute behind those of the text; fewer than may still be chosen."""
        if self._waiting:
            self._waiting -= 1
            return []
        return self._drafter.guess(text, min(self._length, text.left - 1))

    def learn(self, guessed: int, kept: int) -> None:
        """Tells how many of the guessed ids were right."""
        if not guessed:
            return
        if kept:
            self._pause = 0
            self._length = min(LONGEST, 2 * self._length) if kept == guessed else kept + 1
        else:
            self._pause = min(32, 2 * self._pause + 1)
            self._length = 2
        self._waiting = self._pause

    def close(self) -> None:
        """Gives back what the drafter holds."""
        self._drafter.close()


def speculative_ids(
    decoder: Decoder,
    slot: int,
    prompt_ids: abc.Sequence[int],
    options: SamplingOptions,
    new_drafter: NewDrafter,
    *,
    stop_ids: frozenset[int] = frozenset(),
    sample: int = 0,
    healing: Healing | None = None,
    cancelled: Cancellation = NEVER,
) -> Generator[Token, None, None]:
    """The tokens of :func:`~.generate.generate_ids`, by fewer passes."""
    text = Sequence(
        decoder.config, prompt_ids, options, stop_ids=stop_ids, sample=sample, healing=healing
    )
    if extend_to(decoder, slot, text.ids[:-1], cancelled) is None and cancelled.is_set():
        return
    speculation = Speculation(new_drafter())
    try:
        while not (text.is_finished or cancelled.is_set()):
            guesses = speculation.guess(text)
            rows = decoder.extend(slot, [text.ids[-1], *guesses], all_logits=True)
            generated = text.generated
            yield from accepted(text, rows, guesses)
            decoder.truncate(slot, len(text.ids) - 1)
            speculation.learn(len(guesses), text.generated - generated - 1)
    finally:
        # Wherever it ended, the slot holds no guess, and not the last token.
        decoder.truncate(slot, min(decoder.length(slot), len(text.ids) - 1))
        speculation.close()


def accepted(text: Sequence, rows: Logits, guesses: list[int]) -> Iterator[Token]:
    """The tokens that a pass gives: the guesses that are right, and the one behind them.

    ``rows`` are the logits behind the text and behind each of its guesses,
    ``[1 + guesses, V]``.
    """
    for logits, guess in zip(rows, [*guesses, None], strict=True):
        token = text.take(logits)
        yield token
        if text.is_finished or token.id != guess:
            return


class PromptLookup:
    """Guesses that what followed the last ids where they last stood follows them again.

    Of the lengths in ``NGRAMS``, the longest that did. The ids are searched each
    time: an index of a prompt would take as long as a short text.
    """

    def __init__(self) -> None:
        self._known = array("i")

    def guess(self, text: Sequence, limit: int) -> list[int]:
        ids = text.ids
        self._known.extend(ids[len(self._known) :])
        start = self._follower(np.frombuffer(self._known, np.intc))
        if start is None:
            return []
        # A loop's guess runs into its own end: it goes on in the loop.
        return [ids[start + step % (len(ids) - start)] for step in range(limit)]

    def close(self) -> None: ...

    def _follower(self, known: npt.NDArray[np.intc]) -> int | None:
        """Where what followed the last n-gram begins, for the longest n that stood before."""
        found = np.flatnonzero(known[:-1] == known[-1]) + 1
        for n in range(2, NGRAMS.stop):
            longer = found[found >= n]
            longer = longer[known[longer - n] == known[-n:][:1]]
            if not len(longer):
                return int(found[-1]) if n > NGRAMS.start else None
            found = longer
        return int(found[-1])


class DraftModel:
    """Guesses by a smaller model, which chooses by the random numbers that the text will.

    Both models' vocabularies must be the same: whoever makes one sees to it.
    """

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._slot = decoder.allocate()
        self._held: list[int] = []
        self._common = 0  # Ids that the slot and the text share for certain.

    def guess(self, text: Sequence, limit: int) -> list[int]:
        decoder, slot, ids = self._decoder, self._slot, list(text.ids)
        limit = min(limit, decoder.config.n_positions - len(ids) + 1)
        if limit < 1:
            return []
        start = self._common
        start += common(self._held[start:], ids[start:-1])
        decoder.truncate(slot, start)
        guesses: list[int] = []
        for ahead in range(limit):
            logits = extend_to(decoder, slot, ids)
            assert logits is not None
            chosen = text.sampler.foresee(logits, ids, ahead)
            guesses.append(chosen)
            ids.append(chosen)
        self._held, self._common = ids[:-1], len(text.ids)
        return guesses

    def close(self) -> None:
        self._decoder.release(self._slot)
