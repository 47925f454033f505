"""Loops: what counts as one, the loss against them, and a run that unlearns its own."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tinystarcoder.errors import TrainingError
from tinystarcoder.model.config import ModelConfig
from tinystarcoder.model.gpt_bigcode import GPTBigCode
from tinystarcoder.training.recipe import Recipe, UnlikelihoodRecipe
from tinystarcoder.training.trainer import Trainer
from tinystarcoder.training.unlikelihood import SHORTEST, Unlikelihood, find_loops

from .test_trainer import assert_goes_on_bit_for_bit, log_of

CHANGES = {"unlikelihood.weight": "1.0", "unlikelihood.every": "2", "unlikelihood.tokens": "16"}


@pytest.mark.parametrize(
    ("ids", "found"),
    [
        ([1, 2, 3, 4, 5, 6, 7, 8], []),
        ([1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 3], [10, 11]),
        ([7, 7, 7, 7, 7, 7, 7, 7, 7, 7], [8, 9]),
        ([1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3, 4, 5, 6, 7, 8, 9, 1], [17, 18]),
        # A line again with one name changed.
        ([1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3, 4, 5, 6, 7, 10, 9, 1], []),
    ],
)  # fmt: skip
def test_a_loop_repeats_what_stands_directly_before(ids, found):
    assert np.flatnonzero(find_loops(np.array([ids]))[0]).tolist() == found


@given(
    st.lists(st.integers(0, 50), max_size=12, unique=True),
    st.lists(st.integers(100, 150), min_size=1, max_size=12, unique=True),
    st.integers(3, 6),
)
def test_a_third_time_is_always_found_and_a_second_never(before, looped, times):
    """Of fewer than SHORTEST tokens, the third time that they fill twice that."""
    second = max(2 * len(looped), len(looped) + SHORTEST)
    ids = [*before, *looped * (times + SHORTEST // len(looped))]
    found = find_loops(np.array([ids]))[0]
    assert not found[: len(before) + second - 1].any()
    assert found[len(before) + second - 1 :].all()


def unlikelihood(recipe: UnlikelihoodRecipe) -> Unlikelihood:
    torch.manual_seed(0)
    shape = {"vocab_size": 50, "n_layer": 2, "n_embd": 32, "n_head": 2, "n_inner": 64}
    config = ModelConfig(**shape, n_positions=128, embd_pdrop=0, attn_pdrop=0, resid_pdrop=0)
    model = GPTBigCode(config)
    model.initialize(0, std=0.2)
    return Unlikelihood(model, recipe, frozenset({0, 1}), seed=3)


def test_prompts_are_windows_of_rows_without_control_tokens_whatever_the_ranks():
    ours = unlikelihood(UnlikelihoodRecipe(weight=1.0, tokens=16))
    rows = np.random.default_rng(0).integers(2, 50, (4, 64))
    rows[1] = 0
    for step in range(8):
        prompts = ours.prompts(rows, step, range(4))
        assert len(prompts) == 12
        windows = {tuple(row[i : i + prompts.shape[1]]) for row in rows for i in range(64)}
        assert windows.issuperset(map(tuple, prompts))
        two = [ours.prompts(rows[rank::2], step, range(rank, 4, 2)) for rank in range(2)]
        assert sorted(map(tuple, prompts)) == sorted(map(tuple, np.concatenate(two)))
    assert len({ours.prompts(rows, step, range(4)).shape[1] for step in range(20)}) > 2
    assert ours.prompts(rows[1:2], 0, range(1)).shape[0] == 0


def test_the_loss_is_that_of_its_definition():
    ours = unlikelihood(UnlikelihoodRecipe(weight=2.0, tokens=24))
    prompts = torch.from_numpy(np.random.default_rng(1).integers(2, 50, (8, 8)))
    part = ours.backward(prompts, share=0.5)
    gradients = {n: p.grad.clone() for n, p in ours.model.named_parameters() if p.grad is not None}
    ours.model.zero_grad()
    # The same by whole passes, without a cache, a text at a time.
    total, marked = torch.zeros(()), 0
    for prompt in prompts:
        ids = prompt
        for _ in range(24):
            ids = torch.cat([ids, ours.model(ids[None])[0, -1].argmax()[None]])
        written = ids[8:].numpy()
        ended = np.isin(written, [0, 1]).cumsum() > 0
        likelihood = ours.model(ids[None, :-1])[0, 7:].softmax(-1)
        for place in np.flatnonzero(find_loops(written[None])[0] & ~ended):
            total = total - (1 - likelihood[place, written[place]]).log()
            marked += 1
    (2.0 * 0.5 * total / (8 * 24)).backward()
    assert marked
    assert part == pytest.approx(marked / (8 * 24))
    for name, parameter in ours.model.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-3, atol=1e-6)


def test_a_loop_that_is_sure_has_a_finite_gradient():
    ours = unlikelihood(UnlikelihoodRecipe(weight=1.0, tokens=24))
    with torch.no_grad():
        ours.model.transformer.wte.weight *= 100
    ours.backward(torch.full((2, 8), 7), share=1.0)
    norms = [p.grad.norm() for p in ours.model.parameters() if p.grad is not None]
    assert norms
    assert torch.isfinite(torch.stack(norms)).all()


def test_a_run_unlearns_its_loops(toy_recipe, tmp_path):
    """The toy model, trained on few files, loops as soon as it writes anything."""
    steady = {"schedule.steps": "80", "phases": "[{until=1.0, context=64, rows=4}]"}
    steady |= {"checkpoint.every": "80", "validation.every": "0", "unlikelihood.tokens": "40"}
    looped = {}
    for weight in ("1e-9", "3.0"):
        changes = CHANGES | steady | {"unlikelihood.weight": weight}
        Trainer(Recipe.read(toy_recipe, changes), tmp_path / weight).run()
        parts = [record["loops"] for record in log_of(tmp_path / weight) if "loops" in record]
        assert len(parts) == 40
        looped[weight] = np.mean(parts[-10:])
    assert looped["3.0"] < 0.5 * looped["1e-9"]


@pytest.mark.parametrize("compiled", ["false", pytest.param("true", marks=pytest.mark.full)])
def test_a_stopped_run_goes_on_bit_for_bit(toy_recipe, tmp_path, monkeypatch, compiled):
    recipe = Recipe.read(toy_recipe, CHANGES | {"hardware.compile": compiled})
    assert_goes_on_bit_for_bit(recipe, tmp_path, monkeypatch, 5)


def test_a_sharded_model_is_one_clear_error(toy_recipe, tmp_path, monkeypatch):
    monkeypatch.setattr("tinystarcoder.training.trainer.choose_parallel", lambda *_: "fsdp")
    with pytest.raises(TrainingError, match=r"unlikelihood\.weight.*hardware\.parallel"):
        Trainer(Recipe.read(toy_recipe, CHANGES), tmp_path / "run")
