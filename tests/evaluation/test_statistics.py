"""pass@k against counting, and intervals that do what intervals should."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinystarcoder.evaluation.statistics import difference, pass_at_k, ratio


@given(st.integers(1, 8), st.data())
def test_pass_at_k_is_the_share_of_choices_with_a_pass(samples: int, data: st.DataObject) -> None:
    passed, k = data.draw(st.integers(0, samples)), data.draw(st.integers(1, samples))
    choices = list(combinations(range(samples), k))
    lucky = sum(min(choice) < passed for choice in choices)
    assert pass_at_k(samples, passed, k) == pytest.approx(lucky / len(choices))


@pytest.mark.parametrize("k", [0, 4])
def test_pass_at_k_needs_k_samples(k: int) -> None:
    with pytest.raises(ValueError, match="needs at least"):
        pass_at_k(3, 1, k)


def test_a_ratio_weighs_items_by_their_size() -> None:
    estimate = ratio([(90, 100), (1, 2)])
    assert estimate.value == pytest.approx(91 / 102)
    assert estimate.low == pytest.approx(0.5) and estimate.high == pytest.approx(0.9)


def test_the_interval_covers_the_truth() -> None:
    """Of 200 draws of 100 coins, about 95% of the intervals hold the coin's 0.3."""
    rng = np.random.default_rng(0)
    intervals = [ratio([(float(c), 1.0) for c in rng.random(100) < 0.3]) for _ in range(200)]
    assert 180 <= sum(low <= 0.3 <= high for _, low, high in intervals) <= 199


def test_a_difference_is_of_pairs() -> None:
    """What shifts every item by the same is sure, however much the items differ."""
    rng = np.random.default_rng(0)
    first = [(value, 1.0) for value in rng.random(50)]
    second = [(value + 0.01, 1.0) for value, _ in first]
    estimate = difference(first, second)
    assert estimate == pytest.approx((0.01, 0.01, 0.01))
    assert difference(first, first) == (0, 0, 0)
    assert difference(first, second[::-1]).low < 0
