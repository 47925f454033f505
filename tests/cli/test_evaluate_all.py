"""``evaluate MODEL`` and ``compare``: a folder of samples, scores and reports, gone on from."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tinystarcoder.evaluation import suite
from tinystarcoder.model import checkpoint
from tinystarcoder.model.config import ModelConfig
from tinystarcoder.tokenizer import Tokenizer

Run = Callable[..., tuple[int, str, str]]

PROBLEM = {
    "task_id": "HumanEval/0",
    "prompt": 'def half(x):\n    """Half of x."""\n',
    "entry_point": "half",
    "canonical_solution": "    return x / 2\n",
    "test": "def check(candidate):\n    assert candidate(3) == 1.5\n",
}


@pytest.fixture(scope="module")
def model(
    tmp_path_factory: pytest.TempPathFactory,
    tokenizer: Tokenizer,
    tiny_config: ModelConfig,
    random_tensors: Callable[..., dict[str, Any]],
) -> Path:
    folder = tmp_path_factory.mktemp("models") / "model"
    config = replace(tiny_config, n_positions=1024)
    checkpoint.write(folder, config, random_tensors(config))
    tokenizer.save(folder)
    return folder


@pytest.fixture
def arguments(model: Path, tmp_path: Path) -> list[str]:
    """All kinds of tasks, over files small enough for a test."""
    source = tmp_path / "shapes"
    source.mkdir()
    body = "    if width < 0:\n        return 0\n    return width * height\n"
    (source / "a.py").write_text(f"def area(width, height):\n{body}" * 8)
    benchmark = tmp_path / "problems.jsonl"
    benchmark.write_text(json.dumps(PROBLEM) + "\n")
    tasks = ["bits-per-byte", "middles", "parse-rate", "line-match", f"human-eval:{benchmark}"]
    tasks += ["keystrokes", "boundaries"]
    chosen = [word for task in tasks for word in ("--task", task)]
    options = ["--samples", "2", "--temperature", "1", "--lines", "2", "--prompts", "2"]
    return [
        *("evaluate", str(model), str(source), *chosen, *options),
        *("--unsafe-no-sandbox", "--workers", "1", "--output", str(tmp_path / "out")),
    ]


def test_a_suite(run: Run, arguments: list[str], tmp_path: Path) -> None:
    code, output, error = run(*arguments)
    assert code == 0, error
    out = tmp_path / "out"
    report = json.loads((out / "report.json").read_text())
    assert {task: entry["items"] for task, entry in report["tasks"].items()} == {
        "bits-per-byte": 1,
        "middles": 1,
        "parse-rate": 2,
        "line-match": 2,
        "human-eval": 1,
        "keystrokes": 2,
        "boundaries": 2,
    }
    assert report["tasks"]["human-eval"]["metrics"] == {
        "pass@1": {"value": 0.0, "low": 0.0, "high": 0.0}
    }
    assert list(report["tasks"]["bits-per-byte"]["groups"]) == ["shapes"]
    assert output.strip() == (out / "report.md").read_text().strip()
    for name in ("shares.svg", "bits.svg"):
        assert ElementTree.parse(out / name).getroot().tag.endswith("svg")
    assert "<svg" in (out / "report.html").read_text()


def test_what_is_done_is_not_done_again(
    run: Run, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(*arguments, "--no-score")[0] == 0
    assert not (tmp_path / "out" / "report.json").exists()
    written = (tmp_path / "out" / "samples" / "human-eval.jsonl").read_bytes()
    # Scoring needs no model.
    monkeypatch.setattr(suite, "load", lambda *_, **__: pytest.fail("the model was loaded"))
    assert run(*arguments)[0] == 0
    assert (tmp_path / "out" / "samples" / "human-eval.jsonl").read_bytes() == written
    report = (tmp_path / "out" / "report.json").read_bytes()
    assert run(*arguments)[0] == 0
    assert (tmp_path / "out" / "report.json").read_bytes() == report


def test_compare(run: Run, arguments: list[str], tmp_path: Path) -> None:
    out, other = str(tmp_path / "out"), str(tmp_path / "other")
    assert run(*arguments)[0] == run(*arguments, "--output", other, "--precision", "fp32")[0] == 0
    code, output, _ = run("compare", out, other, "--json")
    comparison = json.loads(output)
    for metrics in comparison["tasks"].values():
        for entry in metrics.values():
            assert entry["first"] == entry["second"]
            assert set(entry["difference"].values()) == {0.0}
    code, output, _ = run("compare", out, other)
    assert code == 0 and "| no |" in output and "| yes |" not in output


def test_jedi_types(run: Run, arguments: list[str], tmp_path: Path) -> None:
    pytest.importorskip("jedi")
    output = tmp_path / "jedi"
    command = ["evaluate", "jedi", str(tmp_path / "shapes"), "--output", str(output)]
    command += ["--lines", "2"]
    code, shown, error = run(*command, "--task", "keystrokes")
    assert code == 0, error
    report = json.loads((output / "report.json").read_text())["tasks"]["keystrokes"]
    assert set(report["metrics"]) <= {"saved", "shown", "accepted", "whole lines"}
    assert report["group_items"] and sum(report["group_items"].values()) == 2
    assert "precision" not in report["protocol"] and "| jedi |" in shown
    for task in ("middles", "boundaries"):
        code, _, error = run(*command, "--task", task)
        assert code == 2 and "error: jedi" in error


def test_errors(run: Run, arguments: list[str], model: Path, tmp_path: Path) -> None:
    assert run(*arguments, "--no-score")[0] == 0
    code, _, error = run(*arguments, "--seed", "1")
    assert code == 2 and "is of protocol" in error and "give another --output" in error
    code, _, error = run("evaluate", str(model), "--output", "x", "--task", "chess")
    assert code == 2 and error.startswith("error: --task chess: must be one of bits-per-byte")
    command = ("evaluate", "openai:nourl", str(tmp_path), "--task", "line-match", "--lines", "1")
    (tmp_path / "m.py").write_text("def f(x):\n    return x\n")
    code, out, error = run(*command, "--output", str(tmp_path / "nourl"))
    assert (code, out, error.count("\n")) == (2, "", 1) and "no completion came" in error
    said = "error: --task middles:FILE: middles has no file; it is about SOURCE, named before\n"
    assert run("evaluate", str(model), "--output", "x", "--task", "middles:FILE") == (2, "", said)
    code, _, error = run("evaluate", str(model), "--output", "x", "--samples", "2")
    assert (code, error) == (
        2,
        "error: several samples at temperature 0 are all the same: give --temperature\n",
    )
    code, _, error = run("compare", str(tmp_path), str(tmp_path))
    assert code == 2 and "no scores in it" in error
