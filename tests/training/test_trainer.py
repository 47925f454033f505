import json
import os
import random
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from tinystarcoder.errors import CorpusError, TinyStarcoderError, TrainingError
from tinystarcoder.model.checkpoint import Checkpoint
from tinystarcoder.model.gpt_bigcode import GPTBigCode
from tinystarcoder.tokenizer import Tokenizer
from tinystarcoder.training import checkpoint, run_setup, trainer, validation
from tinystarcoder.training.dataloader import Cursor
from tinystarcoder.training.recipe import Recipe
from tinystarcoder.training.run_log import LOG
from tinystarcoder.training.trainer import Trainer

ROOT = Path(__file__).resolve().parents[2]


def weights(folder: Path) -> dict[str, np.ndarray]:
    stored = Checkpoint.open(folder)
    return {name: stored.tensor(name) for name in stored.config.shapes()}


def assert_same_weights(first: Path, second: Path) -> None:
    ours, theirs = weights(first), weights(second)
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


def log_of(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / LOG).read_text().splitlines()]


def timeless(run: Path) -> list[dict]:
    """The log without what depends on the clock."""
    return [
        {k: v for k, v in record.items() if "second" not in k and k != "mfu"}
        for record in log_of(run)
    ]


def stop_after(monkeypatch, steps: int) -> None:
    """Makes the trainer die without warning after so many steps."""
    step = Trainer._step

    def dying(self, batch, phase):
        if self.progress.step == steps:
            raise KeyboardInterrupt
        return step(self, batch, phase)

    monkeypatch.setattr(Trainer, "_step", dying)


def assert_goes_on_bit_for_bit(recipe: Recipe, folder: Path, monkeypatch, stop: int) -> None:
    """Killed after ``stop`` steps and started again, it has the weights and log of a whole run."""
    through = Trainer(recipe, folder / "through").run()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_after(patch, stop)
        Trainer(recipe, folder / "stopped").run()
    assert_same_weights(through, Trainer(recipe, folder / "stopped").run())
    assert timeless(folder / "through") == timeless(folder / "stopped")


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
    assert_goes_on_bit_for_bit(Recipe.read(toy_recipe), tmp_path, monkeypatch, stop)


@pytest.mark.full
def test_a_compiled_run_goes_on_bit_for_bit(toy_recipe, tmp_path, monkeypatch):
    """As recipes are by default; rows of 512, whose attention's backward pass is by hand."""
    changes = {"hardware.compile": "true", "model.overrides.n_positions": "512"}
    changes |= {"phases": "[{until=1.0, context=512, rows=2}]", "schedule.steps": "8"}
    assert_goes_on_bit_for_bit(Recipe.read(toy_recipe, changes), tmp_path, monkeypatch, 5)


@pytest.mark.parametrize("rate", [0, 1])
def test_shifted_rows_train_positions_beyond_their_length(toy_recipe, tmp_path, rate):
    changes = {"data.shift_rate": str(rate), "optimizer.weight_decay": "0"}
    changes |= {"phases": "[{until=1.0, context=16, rows=4}]"}
    trainer = Trainer(Recipe.read(toy_recipe, changes), tmp_path / "run")
    before = trainer.model.transformer.wpe.weight.detach().clone()
    trainer.run()
    moved = (trainer.model.transformer.wpe.weight != before).any(1)
    assert moved[:16].all() or rate
    assert moved[16:].sum() > 40 if rate else not moved[16:].any()


def test_a_shifted_run_goes_on_bit_for_bit(toy_recipe, tmp_path, monkeypatch):
    recipe = Recipe.read(toy_recipe, {"data.shift_rate": "0.5"})
    assert_goes_on_bit_for_bit(recipe, tmp_path, monkeypatch, 4)


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
    with pytest.raises(TrainingError, match=r"another architecture than .* \(n_inner\)"):
        Trainer(Recipe.read(toy_recipe, wider), tmp_path / "second")
    # Of the same shapes, but it computes something else.
    other = {"model.weights": str(first), "model.overrides.activation_function": "gelu"}
    with pytest.raises(TrainingError, match=r"\(activation_function\)"):
        Trainer(Recipe.read(toy_recipe, other), tmp_path / "third")


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


def test_validation_is_logged_when_it_is_due_left_to_right_and_middles_apart(toy_recipe, tmp_path):
    Trainer(Recipe.read(toy_recipe), tmp_path / "run").run()
    for key in ("validation_bits_per_byte", "validation_fim_bits_per_byte"):
        assert [r["step"] for r in log_of(tmp_path / "run") if key in r] == [6, 12]


def test_bits_per_byte_of_no_validation_data_is_one_clear_error(toy_recipe, tmp_path):
    run = Trainer(Recipe.read(toy_recipe, {"data.validation": "''"}), tmp_path / "run")
    with pytest.raises(TrainingError, match=r"set data\.validation"):
        run.bits_per_byte(32)


def test_milestones_and_the_best_stay(toy_recipe, tmp_path, monkeypatch):
    losses = iter([3.0, 1.0, 2.0, 4.0])
    changes = {
        "validation.every": "3",
        "checkpoint.keep": "1",
        "checkpoint.keep_best": "true",
        "checkpoint.milestones": "[2, 5]",
    }
    run = Trainer(Recipe.read(toy_recipe, changes), tmp_path / "run")
    found = lambda *_, **__: {"validation_bits_per_byte": next(losses)}  # noqa: E731
    monkeypatch.setattr(validation, "bits_per_byte", found)
    run.run()
    names = [path.name for path in checkpoint.steps_in(tmp_path / "run")]
    # Step 6 was better than 3, but over rows of 32; of those over 64, 9 is better than 12.
    assert names == ["step-000002", "step-000005", "step-000009", "step-000012"]


def test_a_damaged_old_checkpoint_ends_no_run(toy_recipe, tmp_path):
    changes = {"validation.every": "3", "checkpoint.keep_best": "true"}
    run = Trainer(Recipe.read(toy_recipe, changes | {"schedule.steps": "6"}), tmp_path / "run")
    run.run()
    (checkpoint.steps_in(tmp_path / "run")[0] / "model.safetensors").unlink()
    longer = Trainer(Recipe.read(toy_recipe, changes), tmp_path / "run")
    assert longer.run().name == "step-000012"


def test_dropout_goes_on_as_if_nothing_had_happened(toy_recipe, tmp_path, monkeypatch):
    recipe = Recipe.read(toy_recipe, {"model.dropout": "0.2"})
    through = Trainer(recipe, tmp_path / "through").run()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_after(patch, 7)
        Trainer(recipe, tmp_path / "stopped").run()
    assert_same_weights(through, Trainer(recipe, tmp_path / "stopped").run())


def test_averaged_weights_are_exported_and_the_others_trained_on(toy_recipe, tmp_path, monkeypatch):
    plain = Trainer(Recipe.read(toy_recipe), tmp_path / "plain").run()
    recipe = Recipe.read(toy_recipe, {"optimizer.ema": "0.9"})
    run = Trainer(recipe, tmp_path / "average")
    averaged = run.run()
    trained, exported = weights(plain), weights(averaged)
    assert all(np.array_equal(trained[n], value) for n, value in run.model.to_arrays().items())
    assert not np.array_equal(trained["transformer.wte.weight"], exported["transformer.wte.weight"])
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_after(patch, 7)
        Trainer(recipe, tmp_path / "stopped").run()
    assert_same_weights(averaged, Trainer(recipe, tmp_path / "stopped").run())


def test_a_document_mask_is_as_if_each_document_stood_alone(toy_recipe, tmp_path):
    """But for its positions: here the first of a row, so they are the same."""
    model = GPTBigCode(Recipe.read(toy_recipe).model_config()).eval()
    ids = torch.randint(0, 320, (1, 24), generator=torch.Generator().manual_seed(0))
    documents = torch.tensor([[0] * 10 + [1] * 14])
    with torch.no_grad():
        masked = model.transformer(ids, documents=documents)
        alone = model.transformer(ids[:, :10])
        crossing = model.transformer(ids)
    torch.testing.assert_close(masked[:, :10], alone)
    assert not torch.allclose(masked[:, 10:], crossing[:, 10:])
    recipe = Recipe.read(toy_recipe, {"data.document_mask": "true"})
    Trainer(recipe, tmp_path / "masked").run()
    Trainer(Recipe.read(toy_recipe), tmp_path / "crossing").run()
    losses = [[r["loss"] for r in log_of(tmp_path / run)] for run in ("masked", "crossing")]
    assert losses[0][-1] != losses[1][-1]


def test_activation_checkpointing_changes_no_loss(toy_recipe, tmp_path):
    for value in ("true", "false"):
        recipe = Recipe.read(
            toy_recipe,
            {"hardware.activation_checkpointing": value, "model.dropout": "0.1"},
        )
        Trainer(recipe, tmp_path / value).run()
    assert timeless(tmp_path / "true") == timeless(tmp_path / "false")


def spiking(run, monkeypatch, steps):
    """Makes the gradient of these steps a thousand times larger."""
    clip = trainer.clip_gradients

    def clip_or_spike(model, limit):
        norm = clip(model, limit)
        return 1000 * norm if run.progress.step in steps else norm

    monkeypatch.setattr(trainer, "clip_gradients", clip_or_spike)


def test_a_spike_is_left_out(toy_recipe, tmp_path, monkeypatch):
    recipe = Recipe.read(toy_recipe, {"schedule.steps": "30", "checkpoint.every": "100"})
    run = Trainer(recipe, tmp_path / "run")
    spiking(run, monkeypatch, {24})
    run.run()
    assert [r["step"] for r in log_of(tmp_path / "run") if r.get("skipped")] == [25]
    assert 1000 * min(run.progress.norms) > max(run.progress.norms)


def test_the_second_spike_in_a_row_is_taken(toy_recipe, tmp_path, monkeypatch):
    """It is the weights then, which stay what they are if nothing is taken."""
    recipe = Recipe.read(toy_recipe, {"schedule.steps": "30", "checkpoint.every": "100"})
    run = Trainer(recipe, tmp_path / "run")
    spiking(run, monkeypatch, {24, 25, 26})
    run.run()
    assert [r["step"] for r in log_of(tmp_path / "run") if r.get("skipped")] == [25]
    assert 1000 * min(run.progress.norms) > max(run.progress.norms)


def test_a_skipped_step_changes_no_weight(toy_recipe, tmp_path, monkeypatch):
    changes = {"schedule.steps": "24", "checkpoint.milestones": "[22, 23]"}
    run = Trainer(Recipe.read(toy_recipe, changes), tmp_path / "run")
    spiking(run, monkeypatch, {22})
    run.run()
    before, skipped, after = checkpoint.steps_in(tmp_path / "run")[-3:]
    assert_same_weights(before, skipped)
    assert not np.array_equal(*(weights(f)["transformer.wte.weight"] for f in (skipped, after)))


def test_spikes_without_end_stop_the_run(toy_recipe, tmp_path, monkeypatch):
    run = Trainer(Recipe.read(toy_recipe, {"schedule.steps": "60"}), tmp_path / "run")
    spiking(run, monkeypatch, range(30, 60))
    with pytest.raises(TrainingError, match="5 steps in a row above 10 times the usual"):
        run.run()
    # None of the weights that the spikes were taken into.
    assert checkpoint.steps_in(tmp_path / "run")[-1].name == "step-000030"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_run_after_the_step_with_a_checkpoint(
    toy_recipe, tmp_path, monkeypatch, number
):
    through = Trainer(Recipe.read(toy_recipe), tmp_path / "through").run()
    run = Trainer(Recipe.read(toy_recipe), tmp_path / "run")
    step = run._step

    def signalled(batch, phase):
        if run.progress.step == 4:
            signal.raise_signal(number)
        return step(batch, phase)

    run._step = signalled
    assert run.run().name == "step-000005"
    assert run.stopped_by == number
    again = Trainer(Recipe.read(toy_recipe), tmp_path / "run")
    assert_same_weights(through, again.run())
    assert again.stopped_by is None


def test_a_signal_while_the_last_checkpoint_is_written_is_not_swallowed(toy_recipe, tmp_path):
    run = Trainer(Recipe.read(toy_recipe), tmp_path / "run")
    save = run._save

    def signalled():
        if run.progress.step == 12:
            signal.raise_signal(signal.SIGTERM)
        return save()

    run._save = signalled
    assert run.run().name == "step-000012"
    assert run.stopped_by == signal.SIGTERM


def test_a_checkpoint_says_what_made_it(toy_recipe, tmp_path):
    recipe = Recipe.read(toy_recipe)
    folder = Trainer(recipe, tmp_path / "run").run()
    state = json.loads((folder / checkpoint.STATE).read_text())
    assert state["recipe"] == json.loads(json.dumps(recipe.to_dict()))
    assert state["versions"]["torch"] == torch.__version__
    assert state["versions"]["commit"] == checkpoint.commit()


def test_other_data_does_not_go_on_with_a_run(toy_recipe, toy_tokenizer, tmp_path):
    recipe = Recipe.read(toy_recipe)
    folder = Trainer(recipe, tmp_path / "run").run()
    state = json.loads((folder / checkpoint.STATE).read_text())
    (folder / checkpoint.STATE).write_text(json.dumps({**state, "data": ["another"]}))
    with pytest.raises(TrainingError, match="trained on other token shards"):
        Trainer(recipe, tmp_path / "run")


@pytest.mark.parametrize("harm", ["lost", "changed"])
def test_a_lost_or_changed_shard_is_one_error_that_names_it(toy_recipe, toy_shards, tmp_path, harm):
    shutil.copytree(toy_shards.folder, tmp_path / "tokens")
    shard = tmp_path / "tokens" / "tokens-00000.bin"
    if harm == "lost":
        shard.unlink()
    else:
        shard.write_bytes(shard.read_bytes()[:-2] + b"\1\0")
    recipe = Recipe.read(toy_recipe, {"data.train": str(tmp_path / "tokens")})
    with pytest.raises(CorpusError, match=r"tokens-00000\.bin"):
        Trainer(recipe, tmp_path / "run")


def test_what_a_killed_run_was_writing_is_removed(toy_recipe, tmp_path):
    remains = tmp_path / "run" / ".step-000003.tmp"
    remains.mkdir(parents=True)
    Trainer(Recipe.read(toy_recipe), tmp_path / "run")
    assert not remains.exists()


def test_a_log_that_cannot_be_written_is_one_clear_error(toy_recipe, tmp_path):
    run = Trainer(Recipe.read(toy_recipe), tmp_path / "run")
    (tmp_path / "run" / LOG).mkdir()
    with pytest.raises(TrainingError, match="cannot be written"):
        run.run()


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


def test_a_longer_schedule_may_bring_back_shorter_rows(toy_recipe, tmp_path):
    """What was planned as long rows is not taken for the numbers of short ones."""
    Trainer(Recipe.read(toy_recipe, {"schedule.steps": "9"}), tmp_path / "run").run()
    longer = Trainer(Recipe.read(toy_recipe, {"schedule.steps": "24"}), tmp_path / "run")
    cursor = longer.progress.cursor
    assert (cursor.context, longer.recipe.phase_at(9).context) == (64, 32)
    _, batch = next(longer._batches())
    expected = next(longer.loader.batches(Cursor(cursor.epoch, cursor.block + 1), 32, 4))
    assert np.array_equal(batch.inputs, expected.inputs)


def test_a_ramp_of_the_batch_leaves_no_rows_out(toy_recipe, tmp_path):
    changes = {"phases": "[{until=0.5, context=32, rows=2}, {until=1.0, context=32, rows=4}]"}
    run = Trainer(Recipe.read(toy_recipe, changes), tmp_path / "run")
    ramped = np.concatenate([batch.inputs for _, batch in run._batches()])
    even = islice(run.loader.batches(Cursor(), 32, 2), 18)
    assert np.array_equal(ramped, np.concatenate([batch.inputs for batch in even]))


def test_a_checkpoint_from_before_a_field_goes_on(toy_recipe, tmp_path):
    Trainer(Recipe.read(toy_recipe, {"schedule.steps": "6"}), tmp_path / "run").run()
    path = checkpoint.steps_in(tmp_path / "run")[-1] / checkpoint.STATE
    state = json.loads(path.read_text())
    del state["recipe"]["data"]["line_rate"], state["validation_context"]
    path.write_text(json.dumps(state))
    assert Trainer(Recipe.read(toy_recipe), tmp_path / "run").run().name == "step-000012"


def test_data_may_move_but_not_change_its_tokenizer(toy_recipe, toy_shards, tmp_path):
    Trainer(Recipe.read(toy_recipe, {"schedule.steps": "6"}), tmp_path / "run").run()
    moved = shutil.copytree(toy_shards.folder, tmp_path / "moved")
    places = dict.fromkeys(("data.train", "data.validation", "data.tokenizer"), str(moved))
    recipe = Recipe.read(toy_recipe, places)
    run = Trainer(recipe, tmp_path / "run")
    assert run.progress.step == 6
    (last,) = checkpoint.steps_in(tmp_path / "run")[-1:]
    other = Tokenizer.train(["other = 'words'\n" * 40], 320)
    with pytest.raises(TrainingError, match="another tokenizer"):
        run_setup.check_resumed(last, checkpoint.read_state(last)[1], recipe, other, run.train)


def test_no_clipping_leaves_gradients_as_they_are(toy_recipe, tmp_path):
    recipe = Recipe.read(toy_recipe, {"optimizer.clip": "0", "schedule.steps": "2"})
    run = Trainer(recipe, tmp_path / "run")
    before = run.model.to_arrays()["transformer.wte.weight"].copy()
    run.run()
    assert not np.array_equal(before, run.model.to_arrays()["transformer.wte.weight"])


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


@pytest.mark.parametrize(
    ("where", "what"),
    [(checkpoint.HuggingFaceStorageWriter, "write_data"), (checkpoint.checkpoint, "write")],
)
def test_a_failed_write_leaves_the_earlier_checkpoint(
    toy_recipe, tmp_path, monkeypatch, where, what
):
    def full_disk(*_, **__):
        raise OSError(28, "No space left on device")

    run = Trainer(Recipe.read(toy_recipe), tmp_path / "run")
    written = checkpoint.save_step

    def second_fails(output, progress, *rest):
        if progress.step == 6:
            monkeypatch.setattr(where, what, full_disk)
        return written(output, progress, *rest)

    monkeypatch.setattr(checkpoint, "save_step", second_fails)
    with pytest.raises(TrainingError, match="No space left on device; earlier steps are intact"):
        run.run()
    assert [path.name for path in checkpoint.steps_in(tmp_path / "run")] == ["step-000003"]
    assert not list((tmp_path / "run").glob(".*.tmp"))


SHARD = "shard-00001-model-00001-of-00001.safetensors"


@pytest.mark.parametrize("name", [f"resume/{SHARD}", checkpoint.STATE, "model.safetensors"])
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


# What the package may use elsewhere: importing one of these fails.
ABSENT = ("pyarrow", "packaging", "detect_secrets", "typer", "huggingface_hub", "starlette")
ABSENT += ("uvicorn", "transformers", "peft", "tensorboard", "rich")
BARE_RUN = f"""
import sys
from pathlib import Path
sys.modules.update(dict.fromkeys({ABSENT!r}))
from tinystarcoder.training.recipe import Recipe
from tinystarcoder.training.trainer import Trainer
Trainer(Recipe.read(Path(sys.argv[1])), Path(sys.argv[2])).run()
"""


@pytest.mark.full
def test_a_bare_checkout_trains_from_token_shards(toy_recipe, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", BARE_RUN, str(toy_recipe), str(tmp_path / "run")],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert checkpoint.steps_in(tmp_path / "run")[-1].name == "step-000012"


@pytest.fixture(scope="module")
def debug_run(tmp_path_factory):
    """A run of recipes/debug.toml by the command, not disturbed."""
    run = tmp_path_factory.mktemp("debug") / "run"
    subprocess.run(debug_command(run), check=True, capture_output=True)
    return run


def debug_command(run: Path, *options: str) -> list[str]:
    command = [sys.executable, "-c", "from tinystarcoder.cli.main import main; main()", "train"]
    return [*command, str(ROOT / "recipes" / "debug.toml"), "--output", str(run), *options]


@pytest.mark.full
@pytest.mark.parametrize("seed", range(3))
def test_sigkill_costs_nothing(debug_run, tmp_path, seed):
    """The command, killed three times at random moments and started again each time."""
    draws = random.Random(seed)
    run = tmp_path / "killed"
    # On the tokens of the first run, whatever has become of the sources since.
    data = [f"--set=data.{part}={debug_run / 'data' / part}" for part in ("train", "validation")]
    command = debug_command(run, *data)
    for lines in sorted(draws.sample(range(1, 59), 2)):
        kill_when(command, lambda lines=lines: logged(run) >= lines, draws)
    kill_when(command, lambda: any(run.glob(".step-*.tmp")), draws)
    subprocess.run(command, check=True, capture_output=True)
    assert_same_weights(debug_run / "step-000060", run / "step-000060")
    assert timeless(run) == timeless(debug_run)


def logged(run: Path) -> int:
    log = run / LOG
    return log.read_bytes().count(b"\n") if log.exists() else 0


def kill_when(command: list[str], ready, draws: random.Random) -> None:
    """Kills the command a little after ``ready()`` is true, unless it has ended before."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while process.poll() is None and not ready():
        let_run(process, 0.01)
    let_run(process, draws.uniform(0, 0.5))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode in (-signal.SIGKILL, 0)


def let_run(process: subprocess.Popen, seconds: float) -> None:
    """Waits without taking the process's core, until it ends or for so long."""
    with suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
