import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from tinystarcoder.corpus.document import Document
from tinystarcoder.errors import TrainingError
from tinystarcoder.model import checkpoint as folders
from tinystarcoder.model.checkpoint import Checkpoint
from tinystarcoder.tokenizer import Tokenizer
from tinystarcoder.training import checkpoint
from tinystarcoder.training import finetune as tuning
from tinystarcoder.training.finetune import Options, StoppedError, finetune, split
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
    assert facts["versions"] == checkpoint.versions()
    assert len(facts["data"]) == 1
    card = (output / "MODEL_CARD.md").read_text()
    assert "license: mit" in card
    assert f"| after | {result.after:.4f} |" in card
    assert {path.name for path in output.iterdir()} == {
        *("config.json", "generation_config.json", "model.safetensors", "log.jsonl"),
        *("tokenizer.json", "tokenizer_config.json", "finetune.json", "MODEL_CARD.md"),
    }
    assert not output.with_name("tuned.partial").exists()
    tuned = Checkpoint.open(output)
    changed = [n for n in tuned.names if not np.array_equal(tuned.tensor(n), before[n])]
    # Adapters stand beside the blocks' matrices alone.
    assert all(".h." in name and name.endswith("weight") for name in changed) == bool(lora)
    assert_written_as_measured(output, source, result)


def test_positions_beyond_its_rows_are_not_left_behind(eager, base, source, tmp_path, monkeypatch):
    monkeypatch.setattr(tuning, "MAX_CONTEXT", 16)
    finetune(source, base, tmp_path / "tuned", Options(epochs=6), base_license="mit")
    old, new = (
        Checkpoint.open(x).tensor("transformer.wpe.weight") for x in (base, tmp_path / "tuned")
    )
    assert (old != new).any(1).all()


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


@pytest.fixture
def stop_once(monkeypatch) -> None:
    """The first run in the folder "stopped" gets a SIGTERM at its sixth step."""
    step, came = Trainer._step, []

    def interrupted(self, batch, phase):
        if self.progress.step == 5 and self.output.name == "stopped.partial" and not came:
            came.append(os.kill(os.getpid(), signal.SIGTERM))
        return step(self, batch, phase)

    monkeypatch.setattr(Trainer, "_step", interrupted)


def test_a_stopped_fine_tune_goes_on(eager, base, source, tmp_path, stop_once):
    through = finetune(source, base, tmp_path / "through", Options(epochs=2))
    with pytest.raises(StoppedError, match="the same command goes on") as stopped:
        finetune(source, base, tmp_path / "stopped", Options(epochs=2))
    assert stopped.value.signal == signal.SIGTERM
    assert not (tmp_path / "stopped").exists()
    resumed = finetune(source, base, tmp_path / "stopped", Options(epochs=2))
    assert (resumed.before, resumed.after) == (through.before, through.after)
    assert_same_weights(through.folder, resumed.folder)


def assert_same_weights(folder: Path, other: Path) -> None:
    one, two = Checkpoint.open(folder), Checkpoint.open(other)
    assert all(np.array_equal(one.tensor(name), two.tensor(name)) for name in one.names)


def test_one_with_adapters_says_that_it_begins_again(eager, base, source, tmp_path, stop_once):
    pytest.importorskip("peft", reason="adapters need peft")
    with pytest.raises(StoppedError, match="the same command begins again"):
        finetune(source, base, tmp_path / "stopped", Options(epochs=2, lora=4))


def test_one_that_is_not_the_begun_one_is_one_clear_error(eager, base, source, tmp_path, stop_once):
    output = tmp_path / "stopped"
    with pytest.raises(StoppedError):
        finetune(source, base, output, Options(epochs=2))
    with pytest.raises(TrainingError, match="begun with another --seed"):
        finetune(source, base, output, Options(epochs=2, seed=1))
    with pytest.raises(TrainingError, match="begun with another --model"):
        finetune(source, shutil.copytree(base, tmp_path / "other"), output, Options(epochs=2))
    edited = source / "part_3.py"
    text = edited.read_text()
    edited.write_text(text + "# One line more.\n")
    with pytest.raises(TrainingError, match="begun with another state of the source's files"):
        finetune(source, base, output, Options(epochs=2))
    edited.write_text(text)
    assert finetune(source, base, output, Options(epochs=2)).folder == output


def test_one_killed_while_it_writes_the_model_goes_on(eager, base, source, tmp_path, monkeypatch):
    output = tmp_path / "tuned"
    write = folders.write

    def killed(*arguments):
        write(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(folders, "write", killed)
        finetune(source, base, output, Options(epochs=1))
    assert not output.exists()
    result = finetune(source, base, output, Options(epochs=1))
    facts = json.loads((output / "finetune.json").read_text())
    assert (facts["before"], facts["after"]) == (result.before, result.after)
    assert f"| before | {result.before:.4f} |" in (output / "MODEL_CARD.md").read_text()


def test_adapters_leave_no_state_for_weights_that_stand_still(eager, base, source, tmp_path):
    pytest.importorskip("peft", reason="adapters need peft")
    recipe = tuning.prepare(
        base, *split(tuning._documents(source), seed=0), tmp_path / "run", Options(lora=4)
    )
    tuner = tuning._Tuner(recipe, tmp_path / "run", lora=4)
    assert not tuner._tensors
    (group,) = [group for optimizer in tuner.optimizers for group in optimizer.param_groups]
    names = {parameter: name for name, parameter in tuner.model.named_parameters()}
    assert group["params"]
    assert all("lora" in names[parameter] for parameter in group["params"])


def test_a_folder_that_exists_is_not_written_to(base, source):
    with pytest.raises(TrainingError, match="choose another --output"):
        finetune(source, base, base, Options())


def test_several_processes_are_one_clear_error(base, source, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(TrainingError, match="without torchrun"):
        finetune(source, base, tmp_path / "tuned", Options())
    assert not list(tmp_path.glob("tuned*"))


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
