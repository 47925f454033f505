"""``tinystarcoder evaluate`` on a small random model that lies in a folder like any other."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from typer.testing import CliRunner

from tinystarcoder.cli.evaluate import app
from tinystarcoder.errors import CorpusError, EvaluationError, ModelNotFoundError
from tinystarcoder.evaluation.bits_per_byte import Scorer
from tinystarcoder.generation.generate import sample_texts
from tinystarcoder.generation.sampling import SamplingOptions
from tinystarcoder.model import checkpoint
from tinystarcoder.model.config import ModelConfig
from tinystarcoder.pretrained import load
from tinystarcoder.tokenizer import Tokenizer

Tensors = dict[str, npt.NDArray[np.float32]]

CODE = '''def area(width, height):
    """The area of a rectangle."""
    if width < 0:
        return 0
    return width * height
'''


@pytest.fixture(scope="module")
def model(
    tmp_path_factory: pytest.TempPathFactory,
    tokenizer: Tokenizer,
    tiny_config: ModelConfig,
    random_tensors: Callable[..., Tensors],
) -> Path:
    """A model whose context holds a window."""
    folder = tmp_path_factory.mktemp("model")
    config = replace(tiny_config, n_positions=1024)
    checkpoint.write(folder, config, random_tensors(config))
    tokenizer.save(folder)
    return folder


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source") / "shapes"
    folder.mkdir()
    (folder / "a.py").write_text(CODE)
    (folder / "b.py").write_text(CODE * 300)
    (folder / "bad.py").write_bytes(b"\0")
    return folder


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)


def test_bits_per_byte(model: Path, source: Path) -> None:
    report = json.loads(run("bits-per-byte", model, source, source / "a.py", "--json").stdout)
    loaded = load(model, precision="fp32")
    expected = Scorer(loaded.decoder, loaded.tokenizer).text(CODE)
    assert report["scores"]["a.py"]["bits-per-byte"]["bits_per_byte"] == expected.bits_per_byte
    total = report["scores"]["total"]["bits-per-byte"]
    assert total["bytes"] == 302 * len(CODE)
    parts = [report["scores"][name]["bits-per-byte"]["nats"] for name in ("shapes", "a.py")]
    assert total["nats"] == pytest.approx(sum(parts))
    assert report["unreadable"] == ["shapes: bad.py: NUL bytes"]


def test_bits_per_byte_as_a_table(model: Path, source: Path) -> None:
    done = run("bits-per-byte", model, source)
    assert "shapes" in done.stdout and f"{301 * len(CODE):,}" in done.stdout
    assert "not scored: shapes: bad.py: NUL bytes" in done.stderr


def test_middles(model: Path, source: Path) -> None:
    arguments = ("bits-per-byte", model, source, "--fim", "--json")
    report = json.loads(run(*arguments).stdout)
    assert report == json.loads(run(*arguments).stdout)
    scores = report["scores"]["shapes"]
    assert list(scores) == ["prefix only", "psm", "spm"]
    assert len({score["bits_per_byte"] for score in scores.values()}) == 3
    assert len({score["bytes"] for score in scores.values()}) == 1
    assert report != json.loads(run(*arguments, "--seed", 1).stdout)


def test_where_nothing_is_scored(model: Path, source: Path, tmp_path: Path) -> None:
    """A source is null in JSON, which has no NaN; nothing at all is an error."""
    (tmp_path / "one.py").write_text("x")
    options = ("--fim", "--seed", 5)  # Which draws a middle of no character.
    with pytest.raises(EvaluationError, match=r"one\.py: no text of which something can be "):
        run("bits-per-byte", model, tmp_path / "one.py", *options)
    arguments = ("bits-per-byte", model, tmp_path / "one.py", source / "a.py", *options)
    report = json.loads(run(*arguments, "--json").stdout, parse_constant=pytest.fail)
    assert report["scores"]["one.py"]["psm"]["bits_per_byte"] is None
    assert "nan" not in run(*arguments).stdout


def test_parse_rate(model: Path, source: Path) -> None:
    arguments = ("parse-rate", model, source / "a.py", "--count", 4, "--max-tokens", 8)
    report = json.loads(run(*arguments, "--json").stdout)
    results = report["results"]
    assert (report["count"], len(results)) == (4, 4)
    assert report["passed"] == sum(not result["verdict"]["reason"] for result in results)
    (plain,) = {line for line in run(*arguments).stdout.splitlines() if " pass (" in line}
    assert plain.startswith(f"{report['passed']} of 4 pass")


def test_a_file_that_spells_control_tokens_is_text(model: Path, tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text('def f(x):\n    y = "<|endoftext|>"\n    return y\n')
    arguments = ("parse-rate", model, tmp_path, "--count", 2, "--max-tokens", 8, "--json")
    results = json.loads(run(*arguments).stdout)["results"]
    completions = {result["prompt"]["text"]: result["completion"] for result in results}
    (spelling,) = (prompt for prompt in completions if "<|endoftext|>" in prompt)
    loaded, options = load(model, precision="fp32"), SamplingOptions(max_tokens=8)
    ids = loaded.tokenizer.encode(spelling)
    (expected,) = sample_texts(loaded.decoder, loaded.tokenizer, ids, options, 1)
    assert completions[spelling] == expected.text != loaded.complete(spelling, max_tokens=8).text


def test_bad_names_are_errors(model: Path, source: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="no-such"):
        run("bits-per-byte", "no-such", source)
    with pytest.raises(CorpusError, match=r"none\.whl"):
        run("bits-per-byte", model, "none.whl")
    with pytest.raises(CorpusError, match="prompts can be cut"):
        run("parse-rate", model, source / "a.py", "--count", 99)
