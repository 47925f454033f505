"""``tinystarcoder info``: what a folder's files say."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tinystarcoder.engine import native_decoder, packed_weights
from tinystarcoder.engine.native_decoder import default_threads, instruction_sets
from tinystarcoder.model import checkpoint
from tinystarcoder.model.config import ModelConfig
from tinystarcoder.tokenizer import Tokenizer

Run = Callable[..., tuple[int, str, str]]


@pytest.mark.skipif(not native_decoder.is_built(), reason="the native engine is not built")
def test_json(run: Run, tiny_checkpoint: Path, tiny_config: ModelConfig) -> None:
    code, out, err = run("info", str(tiny_checkpoint), "--json")
    assert (code, err) == (0, "")
    parameters = tiny_config.num_parameters()
    facts = json.loads(out)
    # The header, a page at most, is the file's only other content.
    assert 4 * parameters < facts.pop("disk_bytes") < 4 * parameters + 4096
    assert facts == {
        "folder": str(tiny_checkpoint),
        "architecture": "GPTBigCodeForCausalLM",
        "layers": 2,
        "width": 32,
        "heads": 2,
        "attention": "multi-query",
        "activation": "gelu_pytorch_tanh",
        "context_tokens": 128,
        "vocabulary": 400,
        "parameters": parameters,
        "stored_as": "float32",
        "engine": f"native, int8, {instruction_sets()[0]}, threads: {default_threads()}",
        "memory_bytes": packed_weights.plan(tiny_config, "int8").bytes,
        # Bfloat16, K and V, 2 layers, one head of 16, 128 positions.
        "cache_bytes": 2 * 2 * 2 * 16 * 128,
        "tokenizer": "400 ids",
        "infill": True,
        "license": None,
    }


def test_without_the_native_engine(
    run: Run, tiny_checkpoint: Path, tiny_config: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native_decoder, "_native", None)
    facts = json.loads(run("info", str(tiny_checkpoint), "--json")[1])
    assert facts["engine"].startswith("numpy, float32: the native engine is not built here")
    assert facts["memory_bytes"] == 4 * tiny_config.num_parameters()
    assert facts["cache_bytes"] == 4 * 2 * 2 * 16 * 128


def test_plain_when_piped(run: Run, tiny_checkpoint: Path) -> None:
    code, out, _ = run("info", str(tiny_checkpoint))
    lines = dict(line.split(": ", 1) for line in out.splitlines())
    assert code == 0
    assert lines["folder"] == str(tiny_checkpoint)
    assert (lines["stored as"], lines["infill"], lines["license"]) == ("float32", "yes", "unknown")
    assert lines["cache"] == "0.0 MB"


def test_a_table_on_a_terminal(
    run: Run, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(sys.stdout), "isatty", lambda _: True)
    code, out, _ = run("info", str(tiny_checkpoint))
    assert code == 0
    assert "multi-query" in out
    assert "─" in out


@pytest.mark.parametrize("card", ["README.md", "MODEL_CARD.md"])
def test_license_of_the_card(run: Run, tiny_checkpoint: Path, tmp_path: Path, card: str) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_checkpoint, folder)
    (folder / card).write_text("---\nlanguage: code\nlicense: apache-2.0\n---\n# A model\n")
    assert json.loads(run("info", str(folder), "--json")[1])["license"] == "apache-2.0"
    (folder / card).write_text("# A model\n\nlicense: none of this\n")
    assert json.loads(run("info", str(folder), "--json")[1])["license"] is None


def test_a_model_without_a_fitting_tokenizer(
    run: Run,
    tmp_path: Path,
    tokenizer: Tokenizer,
    random_tensors: Callable[..., dict[str, np.ndarray]],
) -> None:
    config = ModelConfig(vocab_size=300, n_positions=16, n_embd=8, n_layer=1, n_head=1, n_inner=8)
    checkpoint.write(tmp_path, config, random_tensors(config), "bfloat16")
    told = run("info", str(tmp_path))[1]
    assert "tokenizer: none: " in told
    assert "stored as: bfloat16" in told
    tokenizer.save(tmp_path)
    assert "tokenizer: 400 ids: too many for this model" in run("info", str(tmp_path))[1]


def test_a_broken_model_is_an_error(run: Run, tmp_path: Path) -> None:
    code, out, err = run("info", str(tmp_path))
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert "config.json: missing" in err
