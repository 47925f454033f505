"""Rewards: what a prompt is, what loops, the loss against its definition, and a run that learns."""

from random import Random

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from tinystarcoder.errors import TrainingError
from tinystarcoder.model.config import ModelConfig
from tinystarcoder.model.gpt_bigcode import GPTBigCode
from tinystarcoder.training.recipe import Recipe, RewardRecipe
from tinystarcoder.training.reward import (
    SHORTEST_LOOP,
    Prompt,
    Reward,
    cut,
    find_loops,
    openings,
)
from tinystarcoder.training.trainer import Trainer
from tinystarcoder.verdict import judge, one_pass_makes_it_whole

from .test_trainer import assert_goes_on_bit_for_bit, log_of


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
    """Of fewer than SHORTEST_LOOP tokens, the third time that they fill twice that."""
    second = max(2 * len(looped), len(looped) + SHORTEST_LOOP)
    ids = [*before, *looped * (times + SHORTEST_LOOP // len(looped))]
    found = find_loops(np.array([ids]))[0]
    assert not found[: len(before) + second - 1].any()
    assert found[len(before) + second - 1 :].all()


SOURCE = '''\
import os

LIMIT = 3


class Counter:
    """Counts."""

    def __init__(self):
        self.count = 0

    async def add(self, number):
        # As many as there may be.
        for step in range(number):
            self.count += 1

        return min(
            self.count,
            LIMIT,
        )
'''


@given(st.randoms(use_true_random=False), st.integers(0, 40), st.integers(0, 40))
def test_a_prompt_ends_where_a_statement_of_a_function_may_stand(draws, first, last):
    """Whatever piece of a file it is cut from."""
    lines = SOURCE.splitlines()
    piece = SOURCE[first : len(SOURCE) - last]
    prompt = cut(piece, draws)
    assume(prompt is not None)
    assert prompt in piece
    following = piece[piece.index(prompt) + len(prompt) :].lstrip("\n").split("\n")[0]
    assert following in lines
    assert one_pass_makes_it_whole(f"{prompt}\n", following)
    assert judge(prompt, f"\n{following}\n", ended=False).passed or following.endswith(("(", ":"))
    assert "def " in prompt


@pytest.mark.parametrize(
    "text", ["", "x = 1\ny = 2\n", "class A:\n    x = 1\n    y = 2\n", "  )\n    return 1\n"]
)
def test_a_text_without_a_function_has_no_prompt(text):
    assert cut(text, Random(0)) is None


def test_openings_are_first_lines_of_functions_as_in_no_class():
    assert openings(SOURCE) == ["def __init__(self):", "async def add(self, number):"]
    assert openings("def f(\n    x):\n    pass\nif x:\n    pass\n") == []


@pytest.fixture
def reward(toy_tokenizer):
    """Of a small random model, with some other fields of the recipe."""

    def build(positions: int = 256, **changes) -> Reward:
        shape = {"vocab_size": 320, "n_layer": 2, "n_embd": 32, "n_head": 2, "n_inner": 64}
        none = {"embd_pdrop": 0.0, "attn_pdrop": 0.0, "resid_pdrop": 0.0}
        model = GPTBigCode(ModelConfig(**shape, **none, n_positions=positions))
        model.initialize(0, std=0.1)
        recipe = RewardRecipe(**{"weight": 2.0, "tokens": 12, "temperature": 1.0} | changes)
        return Reward(model, toy_tokenizer, recipe, seed=3)

    return build


@pytest.fixture
def rows(toy_tokenizer):
    """Four rows of 128 ids: SOURCE, over and over, from another place each."""
    ids = [*toy_tokenizer.encode(SOURCE), toy_tokenizer.eos_id]
    return np.array([(ids * 4)[start : start + 128] for start in (0, 40, 80, 120)])


def test_prompts_are_the_same_whatever_the_ranks(reward, rows, toy_tokenizer, monkeypatch):
    shortest = {len(toy_tokenizer.encode(line)) for line in openings(SOURCE)}
    monkeypatch.setattr("tinystarcoder.training.reward.OPENINGS", tuple(shortest))
    ours, lengths = reward(prompts=3), set()
    for step in range(20):
        prompts = ours.prompts(rows, step, range(4))
        for prompt in prompts:
            assert toy_tokenizer.encode(prompt.text)[-len(prompt.ids) :] == prompt.ids
            assert prompt.text in SOURCE
            assert len(prompt.ids) not in shortest or prompt.text in openings(SOURCE)
        two = [ours.prompts(rows[rank::2], step, range(rank, 4, 2)) for rank in range(2)]

        def key(prompt):
            return prompt.text, tuple(prompt.ids), tuple(prompt.draws.flat)

        assert sorted(map(key, prompts)) == sorted(map(key, [*two[0], *two[1]]))
        lengths |= {len(prompt.ids) for prompt in prompts}
    assert lengths == {32, 64, *shortest}


def test_a_row_without_text_has_no_prompt(reward, rows):
    assert reward().prompts(np.zeros_like(rows), 0, range(4)) == []
    assert reward().backward([], 1.0) == {"reward": 0.0, "loops": 0.0}


def test_the_loss_is_that_of_its_definition(reward, rows, toy_tokenizer, monkeypatch):
    """By whole passes, without a cache, a text at a time; judged by a rule that many pass."""
    monkeypatch.setattr("tinystarcoder.training.reward.judge", passes_with("e"))
    ours = reward(samples=3, temperature=0.7)
    prompts = next(filter(None, (ours.prompts(rows, step, range(4)) for step in range(9))))
    means = ours.backward(prompts, share=0.5)
    gradients = {n: p.grad.clone() for n, p in ours.model.named_parameters()}
    ours.model.zero_grad()
    total, count, passed = torch.zeros(()), 0, 0.0
    for prompt in prompts:
        rewards, likelihoods = [], []
        for draws in prompt.draws:
            ids, likelihood = list(prompt.ids), torch.zeros(())
            for draw in draws:
                odds = (ours.model(torch.tensor([ids]))[0, -1] / 0.7).softmax(-1)
                ids.append(int((odds.double().cumsum(0) <= draw).sum()))
                likelihood = likelihood + odds[ids[-1]].log()
                if ids[-1] in toy_tokenizer.special_ids:
                    break
            written = [i for i in ids[len(prompt.ids) :] if i not in toy_tokenizer.special_ids]
            loops = find_loops(np.array([written])).any() if written else False
            rewards.append(float("e" in toy_tokenizer.decode(written) and not loops))
            likelihoods.append(likelihood)
        for value, likelihood in zip(rewards, likelihoods, strict=True):
            total = total - (value - np.mean(rewards)) * likelihood
        count, passed = count + len(rewards), passed + sum(rewards)
    assert 0 < passed < count
    (2.0 * 0.5 * total / (count * 12)).backward()
    assert means["reward"] == pytest.approx(passed / count)
    for name, parameter in ours.model.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-3, atol=1e-6)


def test_what_is_written_ends_with_the_context(reward, rows):
    ours = reward(positions=80, tokens=64)
    for step in range(20):
        if prompts := ours.prompts(rows, step, range(4)):
            room = 80 - len(prompts[0].ids)
            assert ours._sample(prompts).shape == (4 * len(prompts), min(64, room))
            ours.backward(prompts, 1.0)


def passes_with(letter: str):
    """A verdict that a random model's texts pass now and then."""

    def judged(prompt, completion, *, ended):
        return judge("", "x = 1\n" if letter in completion else "", ended=True)

    return judged


def test_what_is_rewarded_is_written_more_often(reward, rows, monkeypatch):
    monkeypatch.setattr("tinystarcoder.training.reward.judge", passes_with("e"))
    monkeypatch.setattr("tinystarcoder.training.reward.OPENINGS", ())
    ours = reward(weight=1.0, prompts=4)
    optimizer = torch.optim.Adam(ours.model.parameters(), lr=3e-3)
    means = []
    for step in range(60):
        means.append(ours.backward(ours.prompts(rows, step, range(4)), 1.0)["reward"])
        optimizer.step()
        optimizer.zero_grad()
    assert np.mean(means[-10:]) > np.mean(means[:10]) + 0.3


@pytest.mark.parametrize(
    ("text", "worth"),
    [
        ("\n    return 1\n", 1),
        ("  # Why.\n    return 1\n", 1),
        ("\n    retur n 1\n", 0),
        ("\n    pass\n", 0),
        ("\n    return [1,\n", 0),
        ("\n    a()\n" * 9, 0),
        ("", 0),
    ],
)
def test_python_that_does_something_and_does_not_loop_is_rewarded(
    reward, toy_tokenizer, text, worth
):
    ours = reward(samples=2, tokens=60)
    prompt = Prompt("def f():", [], np.empty((2, 60)))
    ids = [*toy_tokenizer.encode(text), toy_tokenizer.eos_id]
    written = np.array([ids[:60] + [7] * (60 - len(ids))] * 2)
    rewards, loops = ours._rewards([prompt], written)
    assert rewards.tolist() == [worth, worth]
    assert (loops > 0) == (text.count("a()") > 1)


@pytest.mark.parametrize("compiled", ["false", pytest.param("true", marks=pytest.mark.full)])
def test_a_stopped_run_goes_on_bit_for_bit(reward_recipe, tmp_path, monkeypatch, compiled):
    recipe = Recipe.read(reward_recipe, {"hardware.compile": compiled})
    assert_goes_on_bit_for_bit(recipe, tmp_path, monkeypatch, 1)
    rewards = [record["reward"] for record in log_of(tmp_path / "through") if "reward" in record]
    assert len(rewards) == 2
    assert any(0 < reward < 1 for reward in rewards)  # There was a gradient.


def test_a_sharded_model_is_one_clear_error(reward_recipe, tmp_path, monkeypatch):
    monkeypatch.setattr("tinystarcoder.training.trainer.choose_parallel", lambda *_: "fsdp")
    with pytest.raises(TrainingError, match=r"reward\.weight.*hardware\.parallel"):
        Trainer(Recipe.read(reward_recipe), tmp_path / "run")
