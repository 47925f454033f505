"""scripts/gpu-run, which no GPU has seen: all of its commands, small and on a CPU."""

import json
import signal
import subprocess
import threading
import time
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from tinystarcoder.corpus import parquet
from tinystarcoder.corpus.document import Document
from tinystarcoder.errors import TrainingError
from tinystarcoder.model.checkpoint import Checkpoint
from tinystarcoder.tokenizer import Tokenizer
from tinystarcoder.training.checkpoint import steps_in
from tinystarcoder.training.recipe import Recipe

ROOT = Path(__file__).resolve().parents[2]
DEBUG = str(ROOT / "recipes" / "debug.toml")
SMALL = {
    "model.preset": "nano",
    "model.overrides.n_layer": "1",
    "hardware.compile": "false",
    "hardware.precision": "fp32",
    "phases": "[{until = 1.0, context = 64, rows = 2}]",
}


def sets(**changes: str) -> list[str]:
    fields = SMALL | {name.replace("__", "."): value for name, value in changes.items()}
    return [f"--set={name}={value}" for name, value in fields.items()]


@pytest.fixture
def script(tmp_path, monkeypatch) -> ModuleType:
    """The script, its runs in the test's folder and pieces small enough for several parts."""
    loader = SourceFileLoader("gpu_run", str(ROOT / "scripts" / "gpu-run"))
    module = module_from_spec(spec_from_loader("gpu_run", loader))
    loader.exec_module(module)
    monkeypatch.setattr(module, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(module, "PIECE", 1 << 18)
    monkeypatch.setattr(module, "AT_ONCE", 2)
    return module


@pytest.fixture
def packed(script, tmp_path, capsys) -> str:
    """This package's own training code, packed."""
    paths = sorted((ROOT / "src" / "tinystarcoder" / "training").glob("*.py"))
    documents = [Document(p.read_text(), p.name, "own", "1", "Apache-2.0") for p in paths]
    folder = tmp_path / "corpus"
    folder.mkdir()
    with parquet.new_file(folder / "0.parquet") as writer:
        writer.write_table(parquet.table_of(documents))
    (folder / parquet.MANIFEST).write_text(json.dumps({"shards": [{"file": "0.parquet"}]}))
    script.main(["pack", str(folder), str(tmp_path / "corpus.xz")])
    assert f"{len(documents)} of {len(documents)} documents" in capsys.readouterr().out
    return str(tmp_path / "corpus.xz")


@pytest.fixture
def run(script, packed, tmp_path) -> Path:
    """A run of two calls; what came back lies in out/."""
    for steps in ("3", "5"):
        changes = sets(name="small", schedule__steps=steps, validation__every="0")
        script.main(["train", DEBUG, packed, str(tmp_path / "out"), "--commit", "abc", *changes])
    return tmp_path / "runs" / "small"


def test_what_is_packed_fits_beside_the_checkout(script, tmp_path, monkeypatch):
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    for name, size in (("code", 1000), ("ignored", 50_000), ("corpus.xz", 70_000)):
        (checkout / name).write_bytes(bytes(size))
    (checkout / ".gitignore").write_text("ignored\n")
    subprocess.run(["git", "init", "--quiet", checkout], check=True)
    monkeypatch.setattr(script, "ROOT", checkout)
    # Neither is ignored; an earlier corpus.xz is written over.
    left = script.room(checkout / "corpus.xz")
    assert left == script.IN - script.MARGIN - 1000 - len("ignored\n")


def test_a_run_goes_on_and_says_what_it_was(run, tmp_path):
    back = tmp_path / "out" / "small"
    assert [json.loads(line)["step"] for line in (back / "log.jsonl").open()] == [1, 2, 3, 4, 5]
    facts = json.loads((back / "run.json").read_text())
    assert facts["versions"]["commit"] and facts["versions"]["torch"]
    assert facts["recipe"]["schedule"]["steps"] == 5


def test_a_model_passes_in_parts(script, run, tmp_path, capsys):
    script.main(["export", "small", str(tmp_path / "1")])
    parts = int(capsys.readouterr().out.split()[-1])
    assert parts > 2
    for part in range(2, parts + 1):
        script.main(["export", "small", str(tmp_path / str(part)), "--part", str(part)])
        assert len(list((tmp_path / str(part)).iterdir())) <= 3
    folders = [str(tmp_path / str(part)) for part in range(parts, 0, -1)]
    script.main(["join", str(tmp_path / "model"), *folders])
    back, kept = Checkpoint.open(tmp_path / "model"), Checkpoint.open(steps_in(run)[-1])
    for name in kept.names:
        assert back.dtype(name) == "bfloat16"
        np.testing.assert_allclose(back.tensor(name), kept.tensor(name), rtol=0.01)
    vocabulary = Tokenizer.from_folder(script.TOKENIZER).vocabulary
    assert Tokenizer.from_folder(tmp_path / "model").vocabulary == vocabulary
    assert (tmp_path / "model" / "log.jsonl").exists()
    assert (tmp_path / "model" / "run.json").exists()


def test_what_is_missing_or_damaged_is_one_clear_error(script, run, tmp_path):
    output, model = tmp_path / "pieces", str(tmp_path / "model")
    with pytest.raises(TrainingError, match="pieces of 0 exports"):
        script.main(["join", model, str(tmp_path)])
    script.main(["export", "small", str(output)])
    with pytest.raises(TrainingError, match="has the parts 1 to"):
        script.main(["export", "small", str(output), "--part", "99"])
    count = int(next(output.glob("*.001-of-*")).name[-3:])
    again = ", ".join(str(part) for part in range(2, count // 2 + count % 2 + 1))
    missing = ", ".join(str(number) for number in range(3, count + 1))
    expected = f"missing of {count} pieces: {missing}; export again: --part {again}"
    with pytest.raises(TrainingError, match=expected):
        script.main(["join", model, str(output)])
    for part in range(2, count // 2 + count % 2 + 1):
        script.main(["export", "small", str(output), "--part", str(part)])
    cut = next(output.glob("*.002-of-*"))
    cut.write_bytes(cut.read_bytes()[:-1])
    with pytest.raises(TrainingError, match="damaged on its way"):
        script.main(["join", model, str(output)])
    assert not Path(model).exists()


def test_a_curve_takes_the_minutes_by_the_speed_that_was_measured(script, packed, tmp_path, capsys):
    output = str(tmp_path / "out")
    with pytest.raises(TrainingError, match=r"0 steps, .* call speed on this machine"):
        script.main(["curve", packed, output, *sets()])
    with pytest.raises(TrainingError, match=r"3 steps, .* after the tenth"):
        script.main(["speed", packed, output, *sets(schedule__steps="3")])
    for _ in range(2):  # The second measures anew.
        script.main(["speed", packed, output, *sets(schedule__steps="14")])
        *_, steps, line = capsys.readouterr().out.splitlines()
        assert steps == "tiny-164m-speed: step 14 of 14"
        assert "tokens/s, MFU " in line and "TFLOP/s of a large product" in line
    log = (tmp_path / "out" / "tiny-164m-speed" / "log.jsonl").read_text().splitlines()
    assert len(log) == 14
    rates = [json.loads(line)["tokens_per_second"] for line in log[10:]]
    assert script.steps_in_minutes(3.0) == int(180 * np.median(rates) / 128)
    for done in (2, 4):
        changes = sets(validation__every="0", schedule__steps=str(done), schedule__warmup="1")
        script.main(["curve", packed, output, "--total", "0.1", *changes])
        assert capsys.readouterr().out.endswith(f"tiny-164m-curve: step {done} of {done}\n")


def test_mfu_is_told_by_both_peaks(script):
    recipe = Recipe.read(script.TINY, {"phases": script.PHASES})
    line = script.speed_line(recipe, 190_000.0, "NVIDIA H100 80GB HBM3", 808e12)
    assert line == (
        "NVIDIA H100 80GB HBM3: 190,000 tokens/s, MFU 40.0% of the 808.0 TFLOP/s of a large "
        "product, 32.7% of the data sheet's 989 (h100)"
    )
    assert "sheet" not in script.speed_line(recipe, 1.0, "x86_64", 1e12)


def test_without_time_for_steps_none_begins(script, packed, tmp_path):
    short = ["--minutes", str((script.SAVING + script.LEAST) / 60), *sets()]
    with pytest.raises(TrainingError, match="no time is left for steps, as 60 seconds are for"):
        script.main(["train", DEBUG, packed, str(tmp_path / "out"), *short])


def test_the_deadline_is_a_signal_that_does_not_come_when_all_is_over(script, monkeypatch):
    came = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: came.set())
    monkeypatch.setattr(script, "LEAST", 0)
    try:
        with script.ended_at(time.monotonic() + 0.2):
            pass
        assert not came.wait(0.4)
        with script.ended_at(time.monotonic() + 0.2):
            assert came.wait(30)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_field_without_a_value_is_one_clear_error(script, capsys):
    with pytest.raises(SystemExit):
        script.main(["speed", "corpus.xz", "out", "--set", "phases"])
    assert "expected FIELD=VALUE" in capsys.readouterr().err
