import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from tinystarcoder.errors import TinyStarcoderError, TrainingError
from tinystarcoder.model.checkpoint import Checkpoint
from tinystarcoder.training import checkpoint, trainer
from tinystarcoder.training.recipe import Recipe
from tinystarcoder.training.trainer import Trainer

ROOT = Path(__file__).resolve().parents[2]


def weights(folder: Path) -> dict[str, np.ndarray]:
    stored = Checkpoint.open(folder)
    return {name: stored.tensor(name) for name in stored.config.shapes()}


def assert_same_weights(first: Path, second: Path) -> None:
    ours, theirs = weights(first), weights(second)
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


def log_of(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / trainer.LOG).read_text().splitlines()]


def stop_after(monkeypatch, steps: int) -> None:
    """Makes the trainer die without warning after so many steps."""
    step = Trainer._step

    def dying(self, batch, phase):
        if self.progress.step == steps:
            raise KeyboardInterrupt
        return step(self, batch, phase)

    monkeypatch.setattr(Trainer, "_step", dying)


def test_a_run_learns_and_its_checkpoint_loads_in_transformers(toy_recipe, tmp_path):
    recipe = Recipe.read(toy_recipe, {"schedule.steps": "60"})
    folder = Trainer(recipe, tmp_path / "run").run()
    log = log_of(tmp_path / "run")
    assert [record["step"] for record in log] == list(range(1, 61))
    assert np.mean([r["loss"] for r in log[-5:]]) < 0.7 * np.mean([r["loss"] for r in log[:5]])
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert sum(p.numel() for p in model.parameters()) == recipe.model_config().num_parameters()


@pytest.mark.parametrize("stop", [1, 4, 6, 7, 11])
def test_a_stopped_run_ends_with_the_weights_of_one_that_ran_through(
    toy_recipe, tmp_path, monkeypatch, stop
):
    recipe = Recipe.read(toy_recipe)
    through = Trainer(recipe, tmp_path / "through").run()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_after(patch, stop)
        Trainer(recipe, tmp_path / "stopped").run()
    resumed = Trainer(recipe, tmp_path / "stopped").run()
    assert_same_weights(through, resumed)
    timeless = [
        [{k: v for k, v in r.items() if "second" not in k} for r in log_of(tmp_path / run)]
        for run in ("through", "stopped")
    ]
    assert timeless[0] == timeless[1]


def test_a_run_begins_from_the_weights_of_another(toy_recipe, tmp_path):
    first = Trainer(Recipe.read(toy_recipe), tmp_path / "first").run()
    recipe = Recipe.read(toy_recipe, {"model.weights": str(first)})
    trainer = Trainer(recipe, tmp_path / "second")
    begun = trainer.model.to_arrays()
    assert all(np.array_equal(value, begun[name]) for name, value in weights(first).items())
    assert trainer.progress.step == 0


def test_weights_of_another_architecture_are_one_clear_error(toy_recipe, tmp_path):
    first = Trainer(Recipe.read(toy_recipe), tmp_path / "first").run()
    wider = {"model.weights": str(first), "model.overrides.n_inner": "128"}
    with pytest.raises(TrainingError, match="another architecture than the recipe's"):
        Trainer(Recipe.read(toy_recipe, wider), tmp_path / "second")


def test_micro_batches_change_nothing_but_rounding(toy_recipe, tmp_path):
    phases = "[{until=1.0, context=32, rows=4, micro_rows=%d}]"
    losses = []
    for micro in (0, 1):
        recipe = Recipe.read(toy_recipe, {"phases": phases % micro, "hardware.precision": "fp32"})
        Trainer(recipe, tmp_path / str(micro)).run()
        losses.append([record["loss"] for record in log_of(tmp_path / str(micro))])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-3)


def test_only_the_newest_checkpoints_stay(toy_recipe, tmp_path):
    Trainer(Recipe.read(toy_recipe), tmp_path / "run").run()
    names = [path.name for path in checkpoint.steps_in(tmp_path / "run")]
    assert names == ["step-000009", "step-000012"]


def test_validation_is_logged_when_it_is_due(toy_recipe, tmp_path):
    Trainer(Recipe.read(toy_recipe), tmp_path / "run").run()
    key = "validation_bits_per_byte"
    assert [r["step"] for r in log_of(tmp_path / "run") if key in r] == [6, 12]


def test_compiled_and_eager_agree(toy_recipe, tmp_path):
    losses = {}
    for compiled in ("true", "false"):
        changes = {
            "hardware.compile": compiled,
            "hardware.precision": "fp32",
            "schedule.steps": "4",
        }
        Trainer(Recipe.read(toy_recipe, changes), tmp_path / compiled).run()
        losses[compiled] = [record["loss"] for record in log_of(tmp_path / compiled)]
    np.testing.assert_allclose(losses["true"], losses["false"], rtol=1e-4)


def test_another_recipe_does_not_go_on_with_a_run(toy_recipe, tmp_path):
    Trainer(Recipe.read(toy_recipe), tmp_path / "run").run()
    other = Recipe.read(toy_recipe, {"optimizer.lr": "0.5"})
    with pytest.raises(TrainingError, match=r"another recipe \(\[optimizer\] differs\)"):
        Trainer(other, tmp_path / "run")


def test_a_longer_schedule_goes_on_with_a_run(toy_recipe, tmp_path):
    Trainer(Recipe.read(toy_recipe), tmp_path / "run").run()
    longer = Recipe.read(toy_recipe, {"schedule.steps": "15"})
    assert Trainer(longer, tmp_path / "run").run().name == "step-000015"


def test_a_loss_that_is_not_finite_stops_with_the_last_checkpoint_intact(toy_recipe, tmp_path):
    recipe = Recipe.read(toy_recipe)
    run = Trainer(recipe, tmp_path / "run")
    step = run._step

    def poisoned(batch, phase):
        if run.progress.step == 7:
            run.model.transformer.wte.weight.data[3:].fill_(float("nan"))
        return step(batch, phase)

    run._step = poisoned
    with pytest.raises(TrainingError, match="step 7: loss nan"):
        run.run()
    last = checkpoint.steps_in(tmp_path / "run")[-1]
    assert last.name == "step-000006"
    assert all(np.isfinite(value).all() for value in weights(last).values())


def test_a_failed_write_leaves_the_earlier_checkpoint(toy_recipe, tmp_path, monkeypatch):
    def full_disk(*_):
        raise OSError(28, "No space left on device")

    run = Trainer(Recipe.read(toy_recipe), tmp_path / "run")
    written = checkpoint.save_step

    def second_fails(output, progress, *rest):
        if progress.step == 6:
            monkeypatch.setattr(checkpoint, "save", full_disk)
        return written(output, progress, *rest)

    monkeypatch.setattr(checkpoint, "save_step", second_fails)
    with pytest.raises(TrainingError, match="No space left on device; earlier steps are intact"):
        run.run()
    assert [path.name for path in checkpoint.steps_in(tmp_path / "run")] == ["step-000003"]
    assert not list((tmp_path / "run").glob(".*.tmp"))


@pytest.mark.parametrize("name", [checkpoint.TENSORS, checkpoint.STATE, "model.safetensors"])
def test_a_damaged_checkpoint_is_one_error_that_names_the_file(toy_recipe, tmp_path, name):
    recipe = Recipe.read(toy_recipe)
    folder = Trainer(recipe, tmp_path / "run").run()
    path = folder / name
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(TinyStarcoderError, match=name):
        Trainer(recipe, tmp_path / "run")


def test_a_vocabulary_that_does_not_fit_is_one_clear_error(toy_recipe, tmp_path):
    recipe = Recipe.read(toy_recipe, {"model.overrides.vocab_size": "300"})
    with pytest.raises(TrainingError, match=r"set model\.overrides\.vocab_size"):
        Trainer(recipe, tmp_path / "run")


def test_precision_follows_the_hardware(monkeypatch):
    for native, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda n=native: n)
        assert trainer._dtype("auto") == dtype
    assert trainer._dtype("bf16") == torch.bfloat16
    assert trainer._dtype("fp32") == torch.float32


@pytest.fixture(scope="module")
def debug_run(tmp_path_factory):
    """A run of recipes/debug.toml by the command, not disturbed."""
    run = tmp_path_factory.mktemp("debug") / "run"
    subprocess.run(debug_command(run), check=True, capture_output=True)
    return run


def debug_command(run: Path) -> list[str]:
    command = [sys.executable, "-c", "from tinystarcoder.cli.main import main; main()"]
    return [*command, "train", str(ROOT / "recipes" / "debug.toml"), "--output", str(run)]


@pytest.mark.full
@pytest.mark.parametrize("lines", [2, 17, 30, 44])
def test_sigkill_costs_nothing(debug_run, tmp_path, lines):
    """The command, killed when its log has so many lines, and started again."""
    run = tmp_path / "killed"
    process = subprocess.Popen(debug_command(run), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    log = run / trainer.LOG
    while process.poll() is None and not (log.exists() and log.read_bytes().count(b"\n") >= lines):
        os.sched_yield()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    subprocess.run(debug_command(run), check=True, capture_output=True)
    assert_same_weights(debug_run / "step-000060", run / "step-000060")
