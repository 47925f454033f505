"""Many texts, as many at a time as there are slots, handed back in the order asked for.

    for completion in complete_all(decoder, tokenizer, prompts): …

Each is the text that :func:`~.generate.complete_text` writes alone, where the
decoder gives the same bits in any company. Prompts are taken up as slots come
free, so that neither they nor the texts are ever all in memory. It gives up
time to the first: a text is handed back once those before it are, and at most
``AHEAD`` times as many as there are slots wait for that.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from ..engine.decoder import Decoder
from ..tokenizer import Tokenizer
from .generate import Completion, FinishReason, pieces_of
from .healing import Healing
from .sampling import SamplingOptions
from .scheduler import Scheduler
from .sequence import Token
from .speculative import NewDrafter

SLOTS = 16
AHEAD = 4


@dataclass(frozen=True)
class Prompt:
    """What :func:`~.generate.complete_text` takes for one text, under the same names."""

    ids: Sequence[int]
    options: SamplingOptions
    sample: int = 0
    beginning: str = ""


def complete_all(
    decoder: Decoder,
    tokenizer: Tokenizer,
    prompts: Iterable[Prompt],
    *,
    slots: int = SLOTS,
    new_drafter: NewDrafter | None = None,
) -> Iterator[Completion]:
    """The text of each prompt, in their order. The decoder is this iterator's until its end.

    Raises RequestError for a prompt that cannot be computed when its turn comes.
    """
    room = AHEAD * slots
    scheduler = Scheduler(decoder, slots=slots, waiting=room, new_drafter=new_drafter)
    coming, texts = iter(prompts), deque[_Text]()
    try:
        while True:
            found = islice(coming, room - len(texts))
            texts.extend(_Text(scheduler, tokenizer, prompt) for prompt in found)
            if not texts:
                return
            if texts[0].finish is not None:
                yield texts.popleft().completion()
                continue
            scheduler.step()
            for text in texts:
                text.read()
    finally:
        scheduler.close()


class _Text:
    """One text and what has come of it so far."""

    def __init__(self, scheduler: Scheduler, tokenizer: Tokenizer, prompt: Prompt) -> None:
        beginning = prompt.beginning
        self._generation = scheduler.submit(
            prompt.ids,
            prompt.options,
            stop_ids=tokenizer.special_ids,
            sample=prompt.sample,
            healing=Healing(tokenizer, beginning) if beginning else None,
        )
        self._pieces = pieces_of(self._generation, tokenizer, prompt.options, beginning)
        self._parts: list[str] = []
        self._tokens: list[Token] = []
        self.finish: FinishReason | None = None

    def read(self) -> None:
        """Takes what has come, a piece a token, without waiting; once it is whole, no more."""
        while self.finish is None and not self._generation.events.empty():
            piece = next(self._pieces)
            self._parts.append(piece.text)
            self._tokens += piece.tokens
            self.finish = piece.finish_reason
            if self.finish is not None:
                self._generation.cancel()

    def completion(self) -> Completion:
        """All of it. Not before there is a finish reason."""
        assert self.finish is not None
        return Completion("".join(self._parts), tuple(self._tokens), self.finish)
