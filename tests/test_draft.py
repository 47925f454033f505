"""Guesses by way of load() and the command line: the same text as without."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tinystarcoder.errors import TokenizerError
from tinystarcoder.generation.speculative import DraftModel, PromptLookup
from tinystarcoder.model import checkpoint
from tinystarcoder.model.config import ModelConfig
from tinystarcoder.pretrained import Options, load
from tinystarcoder.tokenizer import Tokenizer

PROMPT = "import os\n\n\ndef list_files(path):\n    return [name for name in os"


@pytest.fixture(scope="module")
def smaller(
    tmp_path_factory: pytest.TempPathFactory,
    tokenizer: Tokenizer,
    tiny_config: ModelConfig,
    random_tensors: Callable[..., dict[str, object]],
) -> Path:
    """A model of the same vocabulary, one layer and half the context."""
    folder = tmp_path_factory.mktemp("models") / "smaller"
    config = replace(tiny_config, n_layer=1, n_positions=64)
    checkpoint.write(folder, config, random_tensors(config))  # type: ignore[arg-type]
    tokenizer.save(folder)
    return folder


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_same_text(tiny_checkpoint: Path, smaller: Path, temperature: float) -> None:
    options = Options(max_tokens=40, temperature=temperature, seed=3)
    plain = load(tiny_checkpoint, prompt_lookup=False)
    assert plain.new_drafter is None
    for model in (
        load(tiny_checkpoint),
        load(tiny_checkpoint, draft=smaller),
        load(tiny_checkpoint, draft=tiny_checkpoint),
    ):
        assert model.new_drafter is not None
        assert model.complete(PROMPT, **options) == plain.complete(PROMPT, **options)
        assert "".join(model.stream(PROMPT, **options)) == plain.complete(PROMPT, **options).text
        assert model.infill("def f(", "):\n", **options) == plain.infill(
            "def f(", "):\n", **options
        )


def test_what_guesses(tiny_checkpoint: Path, smaller: Path) -> None:
    assert load(tiny_checkpoint).new_drafter is PromptLookup
    new = load(tiny_checkpoint, draft=smaller).new_drafter
    assert new is not None
    assert isinstance(new(), DraftModel)


def test_another_vocabulary(
    tiny_checkpoint: Path,
    tmp_path: Path,
    tiny_config: ModelConfig,
    random_tensors: Callable[..., object],
) -> None:
    Tokenizer.train(["another = text\n"] * 9, 290).save(tmp_path)
    config = replace(tiny_config, vocab_size=290)
    checkpoint.write(tmp_path, config, random_tensors(config))  # type: ignore[arg-type]
    with pytest.raises(TokenizerError, match="vocabulary is not the model's"):
        load(tiny_checkpoint, draft=tmp_path)
