"""What the published card shows under transformers, word for word, with checkpoints of ours."""

import re
from collections.abc import Callable
from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tinystarcoder.generation.generate import generate_ids, new_slot
from tinystarcoder.generation.sampling import SamplingOptions
from tinystarcoder.model import checkpoint
from tinystarcoder.model.checkpoint import Checkpoint
from tinystarcoder.model.config import ModelConfig
from tinystarcoder.pretrained import load
from tinystarcoder.tokenizer import Tokenizer

NANO = Path(str(resources.files("tinystarcoder") / "weights" / "nano"))

HELLO = "def print_hello_world():"
INFILL = (
    "<fim_prefix>def print_one_two_three():\n    print('one')\n    "
    "<fim_suffix>\n    print('three')<fim_middle>"
)


@pytest.fixture(scope="module", params=["random", "nano"])
def folder(request: pytest.FixtureRequest, tiny_checkpoint: Path) -> Path:
    if request.param == "random":
        return tiny_checkpoint
    if not NANO.is_dir():
        pytest.skip("this tree holds no bundled model yet")
    return NANO


def snippets(card: str, folder: Path) -> tuple[str, str]:
    """The card's two programs, their checkpoint and device set; nothing else is changed."""
    end = r"print\(tokenizer\.decode\(outputs\[0\]\)\)\n"
    generation = re.search(rf"^# pip install.*?{end}", card, re.DOTALL | re.MULTILINE)
    infilling = re.search(rf"^input_text = .*?{end}", card, re.DOTALL | re.MULTILINE)
    assert generation
    assert infilling
    program, set_checkpoint = re.subn(
        r'^checkpoint = ".*"$', f"checkpoint = {str(folder)!r}", generation[0], flags=re.MULTILINE
    )
    program, set_device = re.subn(
        r'^device = "cuda"', 'device = "cpu"', program, flags=re.MULTILINE
    )
    assert (set_checkpoint, set_device) == (1, 1)
    return program, infilling[0]


def greedy(folder: Path, prompt: str, number: int) -> str:
    """Prompt and continuation as the numpy decoder writes them, special tokens shown."""
    model = load(folder, precision="fp32")
    ids = model.tokenizer.encode(prompt, special=True)
    stop = frozenset({model.tokenizer.eos_id})
    options = SamplingOptions(max_tokens=number)
    with new_slot(model.decoder) as slot:
        tokens = generate_ids(model.decoder, slot, ids, options, stop_ids=stop)
        return model.tokenizer.decode([*ids, *(token.id for token in tokens)])


def test_the_cards_snippets(
    folder: Path, shared_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card = (shared_data / "card" / "card.txt").read_text(encoding="utf-8")
    names: dict[str, object] = {}
    for program, prompt in zip(snippets(card, folder), (HELLO, INFILL), strict=True):
        exec(compile(program, "card.txt", "exec"), names)
        shown = capsys.readouterr().out
        inputs, outputs = names["inputs"], names["outputs"]
        assert isinstance(inputs, torch.Tensor)
        assert isinstance(outputs, torch.Tensor)
        number = outputs.shape[1] - inputs.shape[1]
        assert number > 0
        assert shown.startswith(prompt)
        if Checkpoint.open(folder).dtype("transformer.wte.weight") == "float32":
            # Narrower weights are computed narrowly there, and widened here.
            assert shown == greedy(folder, prompt, number) + "\n"


def test_drafting_for_a_larger_model(
    folder: Path, tmp_path: Path, random_tensors: Callable[..., dict[str, np.ndarray]]
) -> None:
    """``assistant_model``: the same greedy text as the larger, random model writes alone."""
    opened = Checkpoint.open(folder)
    config: ModelConfig = replace(opened.config, n_layer=3, n_embd=64, n_head=4, n_inner=128)
    checkpoint.write(tmp_path, config, random_tensors(config, seed=1))
    Tokenizer.from_folder(folder).save(tmp_path)

    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    draft = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    drafted = []
    draft.register_forward_hook(lambda *_: drafted.append(1))
    for prompt in (HELLO, INFILL):
        inputs = tokenizer(prompt, return_tensors="pt")
        options = {"max_new_tokens": 40, "do_sample": False, "pad_token_id": 0}
        alone = model.generate(**inputs, **options)
        assisted = model.generate(**inputs, **options, assistant_model=draft)
        assert drafted
        assert tokenizer.decode(assisted[0]) == tokenizer.decode(alone[0])
