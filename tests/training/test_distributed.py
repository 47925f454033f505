"""Two ranks over gloo against one process: losses, weights, resume, and a rank that dies."""

import json
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch

from tinystarcoder.model.checkpoint import Checkpoint
from tinystarcoder.training import checkpoint
from tinystarcoder.training.distributed import World, gather, own_rows
from tinystarcoder.training.recipe import Recipe
from tinystarcoder.training.run_log import LOG
from tinystarcoder.training.trainer import Trainer

MAIN = "from tinystarcoder.cli.main import main; main()"

# At this step rank 1 is gone. torchrun ends rank 0 then, perhaps before it has said why.
DYING = """
import os, signal
from tinystarcoder.errors import TrainingError
from tinystarcoder.training.trainer import Trainer
run, step = Trainer.run, Trainer._step
def ended(self):
    try:
        return run(self)
    except TrainingError:
        os.kill(os.getpid(), signal.SIGTERM)
        raise
def dying(self, batch, phase):
    if self.world.rank == 1 and self.progress.step == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, batch, phase)
Trainer.run, Trainer._step = ended, dying
"""

# At step 6 rank 1 has no room for its share of the checkpoint.
FULL = """
from tinystarcoder.training.checkpoint import HuggingFaceStorageWriter as Writer
from tinystarcoder.training.trainer import Trainer
save, write = Trainer._save, Writer.write_data
def full(*_):
    raise OSError(28, "No space left on device")
def saving(self):
    Writer.write_data = full if self.world.rank == 1 and self.progress.step == 6 else write
    return save(self)
Trainer._save = saving
"""


def test_alone_there_is_nothing_to_gather():
    world = World()
    tensors = [torch.ones(2, 3), torch.zeros(2, 3)]
    assert world.sum(1.5, 2) == [1.5, 2]
    assert not world.any(False)
    assert all(map(torch.equal, gather(tensors, 2, world), tensors))
    assert own_rows(tensors[0], tensors[1]) is tensors[0]


def two_ranks(recipe: Path, run: Path, changes: dict[str, str], program: str = MAIN) -> list[str]:
    """The command."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    torchrun += ["--nproc-per-node", "2", "--no-python"]
    options = [f"--set={name}={value}" for name, value in changes.items()]
    train = ["train", str(recipe), "--output", str(run), *options]
    return [*torchrun, sys.executable, "-c", program, *train]


def failing(recipe: Path, run: Path, changes: dict[str, str], program: str = MAIN) -> str:
    """What two ranks that must fail say, its lines unbroken."""
    line = two_ranks(recipe, run, changes, program)
    done = subprocess.run(line, capture_output=True, text=True)
    assert done.returncode != 0
    return " ".join(done.stderr.split())


def train(recipe: Path, run: Path, way: str, changes: dict[str, str]) -> None:
    if way == "one":
        Trainer(Recipe.read(recipe, EXACT | changes), run).run()
        return
    line = two_ranks(recipe, run, EXACT | WAYS[way] | changes)
    done = subprocess.run(line, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def log_of(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / LOG).read_text().splitlines()]


def series(run: Path, key: str = "loss") -> list[float]:
    return [record[key] for record in log_of(run) if key in record]


def last_weights(run: Path) -> dict[str, np.ndarray]:
    stored = Checkpoint.open(checkpoint.steps_in(run)[-1])
    return {name: stored.tensor(name) for name in stored.names}


EXACT = {"hardware.precision": "fp32"}
WAYS = {
    "ddp": {"hardware.parallel": "ddp"},
    "fsdp": {"hardware.parallel": "fsdp", "optimizer.ema": "0.5"},
    "fsdp-recomputing": {
        "hardware.parallel": "fsdp",
        "hardware.activation_checkpointing": "true",
    },
}


@pytest.fixture(scope="module")
def runs(toy_recipe_text, tmp_path_factory):
    """A run of the toy recipe in each way, made when it is first asked for."""
    folder = tmp_path_factory.mktemp("runs")
    recipe = folder / "toy.toml"
    recipe.write_text(toy_recipe_text)

    def run(way: str) -> Path:
        if not (folder / way).exists():
            train(recipe, folder / way, way, {})
        return folder / way

    return run


@pytest.mark.full
@pytest.mark.parametrize("way", ["ddp", "fsdp", "fsdp-recomputing"])
@pytest.mark.parametrize("key", ["loss", "grad_norm", "bits_per_byte"])
def test_two_ranks_see_what_one_sees(runs, way, key):
    np.testing.assert_allclose(series(runs(way), key), series(runs("one"), key), rtol=2e-3)


@pytest.mark.full
def test_two_ranks_validate_what_one_does(runs):
    for key in ("validation_bits_per_byte", "validation_fim_bits_per_byte"):
        np.testing.assert_allclose(series(runs("ddp"), key), series(runs("one"), key), rtol=2e-3)


@pytest.mark.full
def test_fsdp_ends_with_the_weights_of_ddp(runs):
    ddp, fsdp = last_weights(runs("ddp")), last_weights(runs("fsdp-recomputing"))
    for name, value in ddp.items():
        # Where a gradient is little but rounding, AdamW and Newton-Schulz make a whole step of
        # it: some directions differ. With rows of another matrix, all of them would.
        difference = np.linalg.norm(fsdp[name] - value) / np.linalg.norm(value)
        assert difference < 0.1, name


@pytest.mark.full
def test_fsdp_in_bfloat16_compiled_sees_what_one_process_sees(toy_recipe, tmp_path):
    """As the large recipes run; sharded, the residual stream is bfloat16 as well."""
    changes = {"hardware.precision": "bf16", "hardware.compile": "true", "schedule.steps": "4"}
    changes |= {"phases": "[{until=1.0, context=32, rows=4}]", "validation.every": "0"}
    for way in ("fsdp", "one"):
        train(toy_recipe, tmp_path / way, way, changes)
    found, expected = (series(tmp_path / way) for way in ("fsdp", "one"))
    np.testing.assert_allclose(found, expected, rtol=1e-2)
    assert found != expected  # Not both in float32.


@pytest.mark.full
def test_two_ranks_reward_the_same_texts(reward_recipe, tmp_path):
    for way in ("ddp", "one"):
        train(reward_recipe, tmp_path / way, way, {})
    for key in ("loss", "reward", "grad_norm"):
        found, expected = (series(tmp_path / way, key) for way in ("ddp", "one"))
        assert any(expected)
        np.testing.assert_allclose(found, expected, rtol=2e-3)


@pytest.mark.full
@pytest.mark.parametrize(("first", "then"), [("fsdp", "one"), ("one", "fsdp"), ("fsdp", "ddp")])
def test_a_run_goes_on_with_another_number_of_ranks(toy_recipe, tmp_path, first, then):
    steady = {"schedule.decay": "0", "phases": "[{until=1.0, context=32, rows=4}]"}
    steady["optimizer.ema"] = "0.5"
    through, changed = tmp_path / "through", tmp_path / "changed"
    train(toy_recipe, through, "one", steady)
    train(toy_recipe, changed, first, steady | {"schedule.steps": "6"})
    train(toy_recipe, changed, then, steady)
    np.testing.assert_allclose(series(changed), series(through), rtol=2e-3)
    assert len(series(changed)) == 12


@pytest.mark.full
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_a_rank_that_dies_is_one_clear_message(toy_recipe, tmp_path, parallel):
    said = failing(toy_recipe, tmp_path / "run", {"hardware.parallel": parallel}, DYING + MAIN)
    assert "rank 0 of 2 lost another rank" in said, said
    assert [path.name for path in checkpoint.steps_in(tmp_path / "run")][-1] == "step-000006"
    assert Trainer(Recipe.read(toy_recipe), tmp_path / "run").run().name == "step-000012"


@pytest.mark.full
def test_a_rank_without_room_stops_all_and_leaves_the_last_checkpoint(toy_recipe, tmp_path):
    said = failing(toy_recipe, tmp_path / "run", WAYS["fsdp"], FULL + MAIN)
    assert "No space left on device; earlier steps are intact" in said
    assert [path.name for path in checkpoint.steps_in(tmp_path / "run")] == ["step-000003"]


@pytest.mark.full
def test_a_lost_shard_is_one_clear_message_on_all_ranks(toy_recipe, toy_shards, tmp_path):
    lost = shutil.copytree(toy_shards.folder, tmp_path / "lost")
    next(lost.glob("tokens-*.bin")).unlink()
    said = failing(toy_recipe, tmp_path / "run", {"data.train": str(lost)})
    assert "missing; no token shards here" in said
    assert "run_setup.py" not in said  # torchrun's own traceback is there, none of ours.


@pytest.mark.full
def test_rows_that_do_not_spread_are_one_clear_error(toy_recipe, tmp_path):
    phases = {"phases": "[{until=1.0, context=32, rows=3}]"}
    said = failing(toy_recipe, tmp_path / "run", phases)
    assert "phases[0].rows 3 do not spread over 2 ranks" in said


@pytest.mark.full
def test_sigterm_to_torchrun_leaves_a_checkpoint_to_go_on_from(toy_recipe, tmp_path):
    run = tmp_path / "run"
    changes = {"schedule.steps": "4000", "checkpoint.every": "4000", "validation.every": "0"}
    process = subprocess.Popen(
        two_ranks(toy_recipe, run, changes), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    while process.poll() is None and not (run / LOG).exists():
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.01)
    process.send_signal(signal.SIGTERM)
    process.communicate()
    (last,) = checkpoint.steps_in(run)
    progress, _ = checkpoint.read_state(last)
    assert 0 < progress.step == len(log_of(run)) < 4000
