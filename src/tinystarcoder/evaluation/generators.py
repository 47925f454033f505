"""Who writes: one method for models of this family, transformers' and servers'.

Texts are texts: special tokens in a prompt are never parsed.
"""

from typing import Protocol

from ..fim import Order
from ..generation.generate import Completion, fit_prompt, sample_texts
from ..generation.healing import take_back
from ..generation.sampling import SamplingOptions
from ..pretrained import Model


class Generator(Protocol):
    """Deterministic: the same arguments, the same texts."""

    def generate(
        self, prefix: str, suffix: str | None, options: SamplingOptions, number: int
    ) -> list[str]:
        """``number`` texts that continue ``prefix``, or stand between it and ``suffix``."""
        ...


class FamilyModel:
    """A model of this family in one of this package's decoders."""

    def __init__(self, model: Model, order: Order = "psm") -> None:
        self._model, self._order = model, order

    def generate(
        self, prefix: str, suffix: str | None, options: SamplingOptions, number: int
    ) -> list[str]:
        if suffix is None:
            return [text.text for text in continuations(self._model, prefix, options, number)]
        fields = {name: getattr(options, name) for name in ("temperature", "top_p", "max_tokens")}
        return [
            self._model.infill(
                prefix,
                suffix,
                order=self._order,
                stop=options.stop,
                seed=None if options.seed is None else options.seed + sample,
                **fields,
            ).text
            for sample in range(number)
        ]


def continuations(
    model: Model, text: str, options: SamplingOptions, number: int
) -> list[Completion]:
    """What the model writes after a file's text."""
    ids = fit_prompt(model.tokenizer.encode(text), model.config, options.max_tokens)
    ids, beginning = take_back(model.tokenizer, ids)
    return sample_texts(model.decoder, model.tokenizer, ids, options, number, beginning=beginning)
