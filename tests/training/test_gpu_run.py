"""scripts/gpu-run, which no GPU has seen: packed, begun, gone on with and brought back on a CPU."""

import json
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from tinystarcoder.corpus import parquet
from tinystarcoder.corpus.document import Document
from tinystarcoder.model.checkpoint import CONFIG, WEIGHTS, Checkpoint
from tinystarcoder.training.checkpoint import steps_in

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def script(tmp_path, monkeypatch) -> ModuleType:
    """The script, its runs in the test's folder and pieces small enough for several."""
    loader = SourceFileLoader("gpu_run", str(ROOT / "scripts" / "gpu-run"))
    module = module_from_spec(spec_from_loader("gpu_run", loader))
    loader.exec_module(module)
    monkeypatch.setattr(module, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(module, "PIECE", 100_000)
    return module


@pytest.fixture
def corpus(tmp_path) -> Path:
    """A corpus of this package's own training code."""
    paths = sorted((ROOT / "src" / "tinystarcoder" / "training").glob("*.py"))
    documents = [Document(p.read_text(), p.name, "own", "1", "Apache-2.0") for p in paths]
    folder = tmp_path / "corpus"
    folder.mkdir()
    with parquet.new_file(folder / "0.parquet") as writer:
        writer.write_table(parquet.table_of(documents))
    (folder / parquet.MANIFEST).write_text(json.dumps({"shards": [{"file": "0.parquet"}]}))
    return folder


def test_a_run_passes_through_the_door_and_goes_on(script, corpus, tmp_path, capsys):
    packed, output = tmp_path / "corpus.xz", tmp_path / "out"
    script.pack(corpus, packed, 60 << 20)
    said = capsys.readouterr().out
    count = len(list(parquet.read_documents(corpus)))
    assert f"{count} of {count} documents" in said
    small = {"model.overrides.n_layer": "1", "phases": "[{until = 1.0, context = 64, rows = 2}]"}
    for steps in (3, 5):
        changes = {"schedule.steps": str(steps), "validation.every": "0", **small}
        folder = script.train(ROOT / "recipes" / "debug.toml", packed, output, 60.0, changes)
        assert len(script.log(output)) == steps
    script.bring_back(folder, output)
    pieces = sorted(output.glob(f"{WEIGHTS}.*"))
    assert len(pieces) > 1
    assert max(piece.stat().st_size for piece in pieces) <= 100_000
    (output / WEIGHTS).write_bytes(b"".join(piece.read_bytes() for piece in pieces))
    back, kept = Checkpoint.open(output), Checkpoint.open(steps_in(folder.parent)[-1])
    assert (output / CONFIG).exists()
    for name in kept.names:
        np.testing.assert_allclose(back.tensor(name), kept.tensor(name), rtol=0.01)
