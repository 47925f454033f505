"""Generation at three depths: ids, a stream of text, a whole text.

    generate_ids     a slot and prompt ids -> one token after another
    stream_text      the same, as text that is safe to show at once
    complete_text    the same, whole; sample_texts: several from one prefill

Text holds no special token, no half character and no stop string. It gives up
whatever a special token would begin: any of them ends the text, since what
follows (another file, another hole) is no continuation of this one.

Room: prompt and ``max_tokens`` together fit the context; :func:`fit_prompt`
cuts a longer prompt on the left.
"""

import warnings
from collections import abc
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Literal

from ..engine.decoder import Decoder
from ..errors import RequestError
from ..model.config import ModelConfig
from ..tokenizer import Tokenizer
from .healing import Healing
from .sampling import SamplingOptions
from .sequence import NEVER, Cancellation, Sequence, Token, extend_to, room_for_prompt
from .speculative import NewDrafter, speculative_ids
from .stopping import StopStrings

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True)
class Piece:
    """Text that one token made safe to show, maybe none; the last has a finish reason."""

    text: str
    tokens: tuple[Token, ...]
    finish_reason: FinishReason | None = None


@dataclass(frozen=True)
class Completion:
    """A generated text.

    ``finish_reason`` is ``"stop"`` where a stop string or a special token ended
    it, ``"length"`` where max_tokens did. ``tokens`` are all that were
    generated, those of the stop included.
    """

    text: str
    tokens: tuple[Token, ...]
    finish_reason: FinishReason

    @property
    def logprobs(self) -> tuple[float, ...]:
        """Natural logarithm of each token's probability."""
        return tuple(token.logprob for token in self.tokens)


def fit_prompt(ids: abc.Sequence[int], config: ModelConfig, max_tokens: int) -> list[int]:
    """The prompt, cut on the left with a warning where it is too long.

    An empty prompt becomes the token that a document begins with.
    """
    room = room_for_prompt(config, max_tokens)
    if len(ids) > room:
        warnings.warn(
            f"the prompt's first {len(ids) - room} of {len(ids)} tokens were cut off: the "
            f"context holds {config.n_positions}, of which {max_tokens} are kept for the answer",
            stacklevel=2,
        )
    return list(ids[-room:]) or [config.bos_token_id]


@contextmanager
def new_slot(decoder: Decoder) -> Iterator[int]:
    """A slot of the decoder for the time of a ``with`` block."""
    slot = decoder.allocate()
    try:
        yield slot
    finally:
        decoder.release(slot)


def generate_ids(
    decoder: Decoder,
    slot: int,
    prompt_ids: abc.Sequence[int],
    options: SamplingOptions,
    *,
    stop_ids: frozenset[int] = frozenset(),
    sample: int = 0,
    healing: Healing | None = None,
    cancelled: Cancellation = NEVER,
) -> Generator[Token, None, None]:
    """Yields tokens until ``max_tokens``, or one of ``stop_ids``, which is yielded too.

    What the slot already holds must be the beginning of ``prompt_ids``, not
    all of it; the rest is computed. At the end the slot holds all but the last
    token. ``sample`` numbers texts of one seed; ``healing`` limits the first
    tokens; once ``cancelled``, no more come. Raises RequestError where prompt
    and ``max_tokens`` do not fit the context.
    """
    text = Sequence(
        decoder.config, prompt_ids, options, stop_ids=stop_ids, sample=sample, healing=healing
    )
    while not text.is_finished:
        logits = extend_to(decoder, slot, text.ids, cancelled)
        if logits is None:
            return
        yield text.take(logits)


def stream_text(
    decoder: Decoder,
    slot: int,
    tokenizer: Tokenizer,
    prompt_ids: abc.Sequence[int],
    options: SamplingOptions,
    *,
    sample: int = 0,
    beginning: str = "",
    new_drafter: NewDrafter | None = None,
    cancelled: Cancellation = NEVER,
) -> Iterator[Piece]:
    """Yields a piece a token: the text that it made safe to show, maybe none.

    At ``max_tokens``, half a character is dropped. ``beginning`` is what
    :func:`~.healing.take_back` took: it is written again, and not shown.
    ``new_drafter`` makes what guesses, see :mod:`~.speculative`. Once
    ``cancelled``, no more come, and none has a finish reason.
    """
    generate = partial(speculative_ids, new_drafter=new_drafter) if new_drafter else generate_ids
    tokens = generate(
        decoder,
        slot,
        prompt_ids,
        options,
        stop_ids=tokenizer.special_ids,
        sample=sample,
        healing=Healing(tokenizer, beginning) if beginning else None,
        cancelled=cancelled,
    )
    with closing(tokens):
        yield from pieces_of(tokens, tokenizer, options, beginning)


def pieces_of(
    tokens: Iterable[Token], tokenizer: Tokenizer, options: SamplingOptions, beginning: str = ""
) -> Iterator[Piece]:
    """The pieces of text that tokens make, up to a stop string, special token or max_tokens."""
    characters, stops = tokenizer.stream(), StopStrings(options.stop)
    ended, hidden = tokenizer.special_ids, len(beginning)
    for number, token in enumerate(tokens, start=1):
        written = characters.feed(token.id)
        text = stops.feed(written[hidden:])
        hidden = max(0, hidden - len(written))
        if stops.stopped:
            yield Piece(text, (token,), "stop")
            return
        if token.id in ended:
            yield Piece(text + stops.flush(), (token,), "stop")
        elif number == options.max_tokens:
            yield Piece(text + stops.flush(), (token,), "length")
        else:
            yield Piece(text, (token,))


def complete_text(
    decoder: Decoder,
    slot: int,
    tokenizer: Tokenizer,
    prompt_ids: abc.Sequence[int],
    options: SamplingOptions,
    *,
    sample: int = 0,
    beginning: str = "",
    new_drafter: NewDrafter | None = None,
) -> Completion:
    """The whole text that :func:`stream_text` yields."""
    stream = stream_text(
        decoder,
        slot,
        tokenizer,
        prompt_ids,
        options,
        sample=sample,
        beginning=beginning,
        new_drafter=new_drafter,
    )
    pieces = list(stream)
    reason = pieces[-1].finish_reason
    assert reason is not None
    tokens = tuple(token for piece in pieces for token in piece.tokens)
    return Completion("".join(piece.text for piece in pieces), tokens, reason)


def sample_texts(
    decoder: Decoder,
    tokenizer: Tokenizer,
    prompt_ids: abc.Sequence[int],
    options: SamplingOptions,
    number: int,
    *,
    beginning: str = "",
    new_drafter: NewDrafter | None = None,
) -> list[Completion]:
    """``number`` texts from one prefill; the first is what :func:`complete_text` gives."""
    if number < 1:
        raise RequestError(f"samples {number}: must be 1 or more")
    completions = []
    with new_slot(decoder) as prefilled:
        if prompt_ids[:-1]:
            decoder.extend(prefilled, prompt_ids[:-1])
        for sample in range(number):
            with new_slot(decoder) as slot:
                decoder.copy(prefilled, slot)
                completion = complete_text(
                    decoder,
                    slot,
                    tokenizer,
                    prompt_ids,
                    options,
                    sample=sample,
                    beginning=beginning,
                    new_drafter=new_drafter,
                )
                completions.append(completion)
    return completions
