"""The scaling ladder's rungs and its arithmetic; no training."""

import importlib.util
import math
from pathlib import Path
from types import ModuleType

import pytest

from tinystarcoder.training.plan import hardware, plan

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "training" / "ladder.py"


@pytest.fixture(scope="module")
def ladder() -> ModuleType:
    spec = importlib.util.spec_from_file_location("ladder", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_rungs_take_the_same_compute(ladder):
    shared = dict.fromkeys(("data.train", "data.tokenizer", "data.validation"), "tokens")
    recipes = [ladder.recipe(size, 6e13, shared) for size in ladder.SIZES]
    sizes = [recipe.model_config().num_parameters() for recipe in recipes]
    assert sizes == sorted(set(sizes))
    assert 2_500_000 < sizes[0] < sizes[-1] < 11_500_000
    for recipe in recipes:
        assert plan(recipe, hardware("cpu-amx")).flops == pytest.approx(6e13, rel=0.02)


def rungs(bits) -> list[dict[str, float]]:
    sizes = (2_000_000, 4_000_000, 8_000_000, 16_000_000)
    return [{"parameters": n, "bits_per_byte": bits(n)} for n in sizes]


def test_the_lowest_point_lies_between_rungs_or_at_an_end(ladder):
    assert ladder.lowest(rungs(lambda n: 1.2 + math.log(n / 5e6) ** 2)) == "5,000,000 parameters"
    assert "16,000,000 parameters" in ladder.lowest(rungs(lambda n: 9 - math.log(n)))


def test_the_plot_shows_every_rung(ladder):
    svg = ladder.plot({6e13: rungs(lambda n: 9 - math.log(n))})
    assert svg.count("<circle") == 4
    assert all(name in svg for name in ("2.0M", "16.0M", "6e+13 FLOPs"))
