"""The scaling ladder's rungs and its arithmetic; a run that benchmarks measure."""

import math
from types import ModuleType

import pytest

from tinystarcoder.training.plan import hardware, plan
from tinystarcoder.training.recipe import Recipe


@pytest.fixture
def ladder(benchmark) -> ModuleType:
    return benchmark("ladder")


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


def test_a_run_is_measured_once(benchmark, toy_recipe, tmp_path, monkeypatch):
    comparison = benchmark("comparison")
    monkeypatch.setattr(comparison, "VALIDATION_CONTEXT", 64)
    recipe = Recipe.read(toy_recipe)
    found = comparison.measure(recipe, tmp_path / "run")
    assert found["tokens"] == recipe.total_tokens()
    assert found["flops"] == plan(recipe, hardware("cpu-amx")).flops
    assert 0 < found["bits_per_byte"] < 10
    (tmp_path / "run" / "log.jsonl").unlink()
    assert comparison.measure(recipe, tmp_path / "run") == found
    assert not (tmp_path / "run" / "log.jsonl").exists()
