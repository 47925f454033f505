"""Who writes: one method for models of this family, transformers' and servers'.

It takes all that is asked of a task, lazily, so that whoever can writes many texts
at a time. Texts are texts: special tokens in a prompt are never parsed.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import NamedTuple, Protocol

from ..fim import Order
from ..generation.batch import Prompt, complete_all
from ..generation.generate import fit_prompt
from ..generation.healing import take_back
from ..generation.sampling import SamplingOptions
from ..pretrained import Model


@dataclass(frozen=True)
class Ask:
    """``number`` texts that continue ``prefix``, or stand between it and ``suffix``."""

    prefix: str
    suffix: str | None
    options: SamplingOptions
    number: int = 1


class Written(NamedTuple):
    """A text, and whether the writer ended it rather than ``max_tokens``."""

    text: str
    ended: bool


class Generator(Protocol):
    """Deterministic: the same arguments, the same texts."""

    def generate(self, asked: Iterable[Ask]) -> Iterator[list[Written]]:
        """The texts of each, in the order asked."""
        ...


class FamilyModel:
    """A model of this family in one of this package's decoders, a batch at a time.

    The texts are those that it would write one by one, where the decoder's are.
    """

    def __init__(self, model: Model, order: Order = "spm") -> None:
        self._model, self._order = model, order

    def generate(self, asked: Iterable[Ask]) -> Iterator[list[Written]]:
        model, numbers = self._model, deque[int]()

        def prompts() -> Iterator[Prompt]:
            for ask in asked:
                numbers.append(ask.number)
                prompt = self._prompt(ask)
                yield from (replace(prompt, sample=sample) for sample in range(ask.number))

        texts = (
            Written(completion.text, completion.finish_reason == "stop")
            for completion in complete_all(
                model.decoder, model.tokenizer, prompts(), new_drafter=model.new_drafter
            )
        )
        for first in texts:
            yield [first, *islice(texts, numbers.popleft() - 1)]

    def _prompt(self, ask: Ask) -> Prompt:
        model, limit = self._model, ask.options.max_tokens
        if ask.suffix is None:
            ids = fit_prompt(model.tokenizer.encode(ask.prefix), model.config, limit)
        else:
            ids = model.infill_ids(ask.prefix, ask.suffix, limit, self._order)
        ids, beginning = take_back(model.tokenizer, ids)
        return Prompt(ids, ask.options, beginning=beginning)
