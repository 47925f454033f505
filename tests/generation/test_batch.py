"""Many texts at once are the texts that each would be alone, in the order asked for."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinystarcoder.engine.native_decoder import is_built
from tinystarcoder.engine.numpy_decoder import NumpyDecoder
from tinystarcoder.errors import RequestError
from tinystarcoder.generation.batch import AHEAD, Prompt, complete_all
from tinystarcoder.generation.generate import complete_text, new_slot
from tinystarcoder.generation.healing import take_back
from tinystarcoder.generation.sampling import SamplingOptions
from tinystarcoder.generation.speculative import PromptLookup
from tinystarcoder.model.checkpoint import Checkpoint
from tinystarcoder.pretrained import Model, load
from tinystarcoder.tokenizer import Tokenizer

TEXTS = ("import os\n", "def f(x", "x = 1", "class Stack:\n    def", "def f(x):\n    return x")
CHOSEN = st.builds(
    SamplingOptions,
    max_tokens=st.integers(1, 24),
    temperature=st.sampled_from([0.0, 1.0]),
    seed=st.integers(0, 3),
    stop=st.sampled_from([(), ("\n",), ("e", "a ")]),
)
ASKED = st.lists(st.tuples(st.sampled_from(TEXTS), CHOSEN, st.integers(0, 2)), max_size=24)


@pytest.fixture(scope="module", params=["numpy", "native"])
def model(request: pytest.FixtureRequest, tiny_checkpoint: Path) -> Model:
    if request.param == "native" and not is_built():
        pytest.skip("the native engine is not built here")
    model = load(tiny_checkpoint, precision="fp32")
    if request.param == "numpy":
        model.decoder = NumpyDecoder(Checkpoint.open(tiny_checkpoint))
    return model


def prompts(
    tokenizer: Tokenizer, asked: list[tuple[str, SamplingOptions, int]]
) -> Iterator[Prompt]:
    for text, options, sample in asked:
        ids, beginning = take_back(tokenizer, tokenizer.encode(text))
        yield Prompt(ids, options, sample, beginning)


@pytest.mark.parametrize("new_drafter", [None, PromptLookup])
@settings(max_examples=15)
@given(asked=ASKED, slots=st.integers(1, 4))
def test_as_alone(
    model: Model, new_drafter: Any, asked: list[tuple[str, SamplingOptions, int]], slots: int
) -> None:
    decoder, tokenizer = model.decoder, model.tokenizer
    together = complete_all(
        decoder, tokenizer, prompts(tokenizer, asked), slots=slots, new_drafter=new_drafter
    )
    found = list(together)
    for prompt, completion in zip(prompts(tokenizer, asked), found, strict=True):
        with new_slot(decoder) as slot:
            alone = complete_text(
                decoder,
                slot,
                tokenizer,
                prompt.ids,
                prompt.options,
                sample=prompt.sample,
                beginning=prompt.beginning,
            )
        same = (completion.text, completion.finish_reason) == (alone.text, alone.finish_reason)
        assert same and [t.id for t in completion.tokens] == [t.id for t in alone.tokens]


def test_prompts_are_taken_up_as_texts_are_handed_back(model: Model) -> None:
    options, taken = SamplingOptions(max_tokens=2), []

    def endless() -> Iterator[Prompt]:
        while True:
            taken.append(1)
            yield Prompt([len(taken)], options)

    together = complete_all(model.decoder, model.tokenizer, endless(), slots=2)
    for number in range(1, 20):
        next(together)
        assert number < len(taken) <= number + 2 * AHEAD
    together.close()  # type: ignore[attr-defined]


def test_slots_are_given_back(table: Callable[..., Any], tokenizer: Tokenizer) -> None:
    """At the end, when it is given up and when it fails."""
    model = table()
    asked = [Prompt([1, 2], SamplingOptions(max_tokens=9)) for _ in range(5)]
    assert len(list(complete_all(model, tokenizer, asked, slots=2))) == 5
    assert model.slots == {}
    given_up = complete_all(model, tokenizer, asked, slots=2)
    next(given_up)
    assert model.slots
    given_up.close()  # type: ignore[attr-defined]
    assert model.slots == {}
    model.logits[2, 2] = model.logits[1, 2] = np.nan
    with pytest.raises(RequestError, match="not finite"):
        list(complete_all(model, tokenizer, asked, slots=2))
    assert model.slots == {}
