import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from tinystarcoder.corpus.document import Document
from tinystarcoder.errors import TrainingError
from tinystarcoder.model.checkpoint import Checkpoint
from tinystarcoder.tokenizer import Tokenizer
from tinystarcoder.training import finetune as tuning
from tinystarcoder.training.finetune import Options, finetune, split
from tinystarcoder.training.recipe import Recipe
from tinystarcoder.training.trainer import Trainer

RECIPES = Path(__file__).resolve().parents[2] / "recipes"


@pytest.fixture
def eager(monkeypatch):
    """Small models are not worth a compiler's half minute."""
    prepare = tuning.prepare

    def prepared(*arguments):
        recipe = prepare(*arguments)
        return Recipe(**{**vars(recipe), "hardware": type(recipe.hardware)(compile=False)})

    monkeypatch.setattr(tuning, "prepare", prepared)


@pytest.fixture
def base(toy_recipe, tmp_path) -> Path:
    return Trainer(Recipe.read(toy_recipe, {"schedule.steps": "30"}), tmp_path / "base").run()


@pytest.fixture
def source(tmp_path) -> Path:
    """A package in a style of its own: its held-out files are learned from the others."""
    folder = tmp_path / "package"
    folder.mkdir()
    for number in range(12):
        lines = [f"class Widget{i}:\n    size = {i * number}\n" for i in range(8)]
        (folder / f"part_{number}.py").write_text("\n".join(lines))
    return folder


@pytest.mark.parametrize("lora", [0, pytest.param(4, marks=pytest.mark.full)])
def test_held_out_files_are_predicted_better(eager, base, source, tmp_path, lora):
    if lora:
        pytest.importorskip("peft", reason="adapters need peft")
    before = {name: Checkpoint.open(base).tensor(name) for name in Checkpoint.open(base).names}
    output = tmp_path / "tuned"
    result = finetune(source, base, output, Options(epochs=6, lora=lora), base_license="mit")
    assert result.after < 0.9 * result.before
    facts = json.loads((output / "finetune.json").read_text())
    assert facts["before"] == result.before
    assert facts["held_out_files"] == list(result.held_out_files)
    card = (output / "MODEL_CARD.md").read_text()
    assert "license: mit" in card
    assert f"| after | {result.after:.4f} |" in card
    assert {path.name for path in output.iterdir()} == {
        *("config.json", "generation_config.json", "model.safetensors", "log.jsonl"),
        *("tokenizer.json", "tokenizer_config.json", "finetune.json", "MODEL_CARD.md"),
    }
    tuned = Checkpoint.open(output)
    changed = [n for n in tuned.names if not np.array_equal(tuned.tensor(n), before[n])]
    # Adapters stand beside the blocks' matrices alone.
    assert all(".h." in name and name.endswith("weight") for name in changed) == bool(lora)
    assert_written_as_measured(output, source, result)


def assert_written_as_measured(folder: Path, source: Path, result: tuning.Result) -> None:
    """transformers, on the written folder, finds the loss that was measured before writing."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = Tokenizer.from_folder(folder)
    nats = 0.0
    for name in result.held_out_files:
        ids = [tokenizer.eos_id, *tokenizer.encode((source / name).read_text())]
        scored = 1
        for start in range(0, len(ids), 32):
            window = torch.tensor([ids[start : start + 64]])
            with torch.no_grad():
                loss = torch.nn.functional.cross_entropy(
                    model(window).logits[0, scored - start - 1 : -1],
                    window[0, scored - start :],
                    reduction="sum",
                )
            nats += float(loss)
            scored = start + window.shape[1]
            if scored == len(ids):
                break
    bits = nats / np.log(2) / result.held_out_bytes
    assert bits == pytest.approx(result.after, rel=0.02)


def test_a_stopped_fine_tune_goes_on(eager, base, source, tmp_path, monkeypatch):
    through = finetune(source, base, tmp_path / "through", Options(epochs=2))
    step = Trainer._step

    def interrupted(self, batch, phase):
        if self.progress.step == 5 and self.output.parent.name == "stopped":
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, batch, phase)

    monkeypatch.setattr(Trainer, "_step", interrupted)
    with pytest.raises(TrainingError, match="the same command goes on"):
        finetune(source, base, tmp_path / "stopped", Options(epochs=2))
    resumed = finetune(source, base, tmp_path / "stopped", Options(epochs=2))
    assert (resumed.before, resumed.after) == (through.before, through.after)
    one, other = Checkpoint.open(through.folder), Checkpoint.open(resumed.folder)
    assert all(np.array_equal(one.tensor(name), other.tensor(name)) for name in one.names)


def test_a_model_is_not_overwritten(base, source):
    with pytest.raises(TrainingError, match="choose another --output"):
        finetune(source, base, base, Options())


def document(path: str, text: str) -> Document:
    return Document(text, path, "package", "1", license="")


def test_files_are_split_whole_and_the_same_each_time():
    documents = [document(f"{n}.py", f"x = {n}\n" * 50) for n in range(100)]
    training, held_out = split(documents, seed=0)
    assert 8 <= len(held_out) <= 10
    assert sorted(d.path for d in (*training, *held_out)) == sorted(d.path for d in documents)
    assert split(list(reversed(documents)), seed=0)[1] == held_out
    assert split(documents, seed=1)[1] != held_out


def test_copies_do_not_stand_on_both_sides():
    documents = [document(f"{n}.py", f"x = {n % 3}\n") for n in range(30)]
    training, held_out = split(documents, seed=0)
    assert not {d.text for d in training} & {d.text for d in held_out}
    assert len(training) + len(held_out) == 3


@pytest.mark.parametrize("texts", [[], ["x = 1\n"], ["x = 1\n", "x = 1\n"]])
def test_too_few_files_are_one_clear_error(texts):
    with pytest.raises(TrainingError, match="at least two are needed"):
        split([document(f"{n}.py", text) for n, text in enumerate(texts)], seed=0)
