"""Speculation, counted: a draft that is the model itself is always right, and nothing changes."""

from pathlib import Path

import pytest

from tinystarcoder.evaluation.speculation import measure
from tinystarcoder.generation.sampling import SamplingOptions
from tinystarcoder.generation.speculative import PromptLookup
from tinystarcoder.pretrained import load

OPTIONS = SamplingOptions(max_tokens=24)


def test_a_model_that_drafts_for_itself(tiny_checkpoint: Path) -> None:
    model = load(tiny_checkpoint, precision="fp32", draft=tiny_checkpoint)
    assert model.new_drafter is not None
    found = measure(model, model.new_drafter, "def area(width", OPTIONS)
    accepted, guessed = found["accepted"]
    tokens, passes = found["tokens a pass"]
    assert guessed == accepted == tokens - passes > 0
    assert tokens == 24 and found["same text"] == (1.0, 1)
    assert all(seconds > 0 for seconds in found["speed-up"])


@pytest.mark.parametrize("prompt", ["", "def area(width):\n    return width\n" * 2])
def test_prompt_lookup(tiny_checkpoint: Path, prompt: str) -> None:
    model = load(tiny_checkpoint, precision="fp32")
    found = measure(model, PromptLookup, prompt, OPTIONS)
    accepted, guessed = found["accepted"]
    assert 0 <= accepted <= guessed
    assert found["same text"] == (1.0, 1)
