"""Sampling against transformers' logits processors, and by counting draws."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from tinystarcoder.errors import RequestError
from tinystarcoder.generation.sampling import (
    Sampler,
    SamplingOptions,
    log_normalizer,
    penalized,
    probabilities,
)

VOCABULARY = 60


def logits_by(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 3, VOCABULARY).astype(np.float32)


@pytest.mark.parametrize(
    ("field", "values", "message"),
    [
        ("max_tokens", [0, -1, 1.5, True, None], "must be 1 or more"),
        ("temperature", [-0.1, math.inf, math.nan, "hot", True], "must be 0 or more"),
        ("top_k", [-1, 1.0, None], "must be 0 (off) or more"),
        ("top_p", [-0.5, 1.01, math.nan], "must be in [0, 1]"),
        ("min_p", [-0.1, 1.5, math.nan, None], "must be in [0, 1]"),
        ("repetition_penalty", [0, -1, math.inf, math.nan], "must be above 0"),
        ("seed", [-1, 0.5, "dice"], "must be 0 or more, or None"),
        ("top_logprobs", [-1, 2.0], "must be 0 or more"),
        ("stop", ["", ["a", ""], [3]], "must be strings, none of them empty"),
    ],
)
def test_values_out_of_range(field: str, values: list[Any], message: str) -> None:
    for value in values:
        with pytest.raises(RequestError) as caught:
            SamplingOptions(**{field: value})
        assert str(caught.value) == f"{field} {value!r}: {message}"
        assert caught.value.field == field


def test_one_stop_string_may_come_alone() -> None:
    assert SamplingOptions(stop="\n\n").stop == ("\n\n",)
    assert SamplingOptions(stop=["a", "b"]).stop == ("a", "b")


@given(
    seed=st.integers(0, 10**6),
    temperature=st.floats(0.05, 5),
    top_k=st.integers(0, VOCABULARY + 5),
    top_p=st.just(0.0) | st.floats(0.01, 1),
    min_p=st.floats(0, 1),
)
def test_the_distribution_is_transformers(
    seed: int, temperature: float, top_k: int, top_p: float, min_p: float
) -> None:
    logits = logits_by(seed)
    options = SamplingOptions(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    ours = probabilities(logits, options)
    ours /= ours.sum()
    scores = torch.from_numpy(logits).double()[None]
    scores = TemperatureLogitsWarper(temperature)(None, scores)
    if top_k:
        scores = TopKLogitsWarper(top_k)(None, scores)
    if top_p < 1:
        scores = TopPLogitsWarper(top_p)(None, scores)
    scores = MinPLogitsWarper(min_p)(None, scores)
    theirs = scores.softmax(-1)[0].numpy()
    np.testing.assert_allclose(ours, theirs, atol=1e-9)


@given(
    seed=st.integers(0, 10**6),
    penalty=st.floats(0.1, 10),
    seen=st.lists(st.integers(0, VOCABULARY - 1), min_size=1),
)
def test_the_repetition_penalty_is_transformers(seed: int, penalty: float, seen: list[int]) -> None:
    logits = logits_by(seed)
    before = logits.copy()
    processor = RepetitionPenaltyLogitsProcessor(penalty)
    theirs = processor(torch.tensor([seen]), torch.from_numpy(logits.copy())[None])[0].numpy()
    np.testing.assert_allclose(penalized(logits, seen, penalty), theirs, rtol=1e-6)
    np.testing.assert_array_equal(logits, before)


def test_draws_follow_the_distribution() -> None:
    """Chi-squared over 20,000 draws of a fixed seed; tokens cut off are never drawn."""
    options = SamplingOptions(temperature=1.3, top_k=12, seed=1)
    logits, sampler = logits_by(4), Sampler(options)
    counts = np.bincount([sampler.choose(logits, []) for _ in range(20_000)], minlength=VOCABULARY)
    expected = probabilities(logits, options)
    expected *= 20_000 / expected.sum()
    assert counts[expected == 0].sum() == 0
    kept = expected > 0
    assert kept.sum() == 12
    # The 99.9% point of chi-squared with 11 degrees of freedom.
    assert ((counts - expected)[kept] ** 2 / expected[kept]).sum() < 31.3


def test_the_lowest_draw_takes_the_first_token_that_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Lowest:
        def random(self) -> float:
            return 0.0

    monkeypatch.setattr(np.random, "default_rng", lambda _: Lowest())
    sampler = Sampler(SamplingOptions(temperature=1.0, top_k=2))
    assert sampler.choose(np.array([0, 1, 5, 5], np.float32), []) == 2


@pytest.mark.parametrize("temperature", [0.0, 1e-30])
def test_greedy_takes_the_likeliest(temperature: float) -> None:
    logits = logits_by(5)
    sampler = Sampler(SamplingOptions(temperature=temperature))
    assert sampler.choose(logits, []) == logits.argmax()


@pytest.mark.filterwarnings("error")
def test_a_penalty_beyond_all_logits_rules_what_was_seen_out_without_a_warning() -> None:
    logits = np.array([-1.0, 2.0, 1.0], dtype=np.float32)
    assert penalized(logits, [0, 1], 1e300).tolist() == [np.finfo(np.float32).min, 0.0, 1.0]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_penalty_next_to_nothing_takes_what_was_seen(temperature: float) -> None:
    options = SamplingOptions(temperature=temperature, repetition_penalty=1e-300)
    logits = np.array([1.0, 3.0, 2.0, 0.0], dtype=np.float32)
    assert {Sampler(options).choose(logits, [0, 2, 3]) for _ in range(20)} <= {0, 2}


def test_greedy_minds_the_repetition_penalty() -> None:
    logits = np.array([1.0, 4.0, 3.0], np.float32)
    sampler = Sampler(SamplingOptions(repetition_penalty=2.0))
    assert [sampler.choose(logits, seen) for seen in ([0], [1, 0])] == [1, 2]


def test_a_seed_fixes_the_draws_of_each_sample() -> None:
    def draws(seed: int | None, sample: int) -> list[int]:
        sampler = Sampler(SamplingOptions(temperature=2.0, seed=seed), sample)
        return [sampler.choose(logits_by(6), []) for _ in range(20)]

    assert draws(3, 0) == draws(3, 0)
    assert draws(3, 1) == draws(3, 1)
    assert len({tuple(draws(*pair)) for pair in [(3, 0), (3, 1), (4, 0), (None, 0)]}) == 4


@given(seed=st.integers(0, 10**6), scale=st.sampled_from([1, 1e4]))
def test_log_normalizer(seed: int, scale: float) -> None:
    logits = logits_by(seed) * np.float32(scale)
    theirs = torch.from_numpy(logits).double().log_softmax(-1).numpy()
    ours = logits.astype(float) - log_normalizer(logits)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)
