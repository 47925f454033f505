"""The train command's plan; training itself is tested in tests/training."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
Run = Callable[..., tuple[int, str, str]]


def test_a_plan_is_printed_and_nothing_trained(run: Run, tmp_path: Path) -> None:
    output = tmp_path / "run"
    code, out, err = run(
        "train",
        str(RECIPES / "nano.toml"),
        *("--plan", "--hardware", "2xcpu-amx", "--output", str(output)),
    )
    assert (code, err) == (0, "")
    assert "6,768,384" in out
    assert "DDP" not in out  # A CPU's cores are one rank.
    assert not output.exists()


def test_a_plan_for_several_gpus_has_both_ways_to_spread(run: Run) -> None:
    code, out, _ = run("train", str(RECIPES / "tiny-164m.toml"), "--plan", "--hardware", "8xa100")
    assert code == 0
    assert "DDP" in out
    assert "FSDP" in out


def test_hardware_is_for_a_plan(run: Run) -> None:
    said = run("train", str(RECIPES / "nano.toml"), "--hardware", "a100")
    assert said == (2, "", "error: --hardware a100: goes with --plan; a run takes what is there\n")


@pytest.mark.parametrize("library", ["torch", "safetensors"])
def test_without_the_extra_it_is_named(
    run: Run, monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    """Whichever of its libraries is missed."""
    for name in [name for name in sys.modules if name.startswith("tinystarcoder.training.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)
    said = run("train", str(RECIPES / "nano.toml"))
    told = "error: tinystarcoder train needs an extra: pip install 'tinystarcoder[train]'\n"
    assert said == (2, "", told)


@pytest.mark.parametrize("hardware", ["h900", "0xh100"])
def test_unknown_hardware_is_one_line(run: Run, hardware: str) -> None:
    code, out, err = run("train", str(RECIPES / "nano.toml"), "--plan", "--hardware", hardware)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: hardware '{hardware}' is unknown; known are a100, h100")
    assert err.count("\n") == 1
