"""Figures and how sure they are: pass@k, ratios of sums, bootstrap intervals.

Every metric here is a sum over items divided by another: passes by problems,
bits by bytes. An interval resamples the items; a difference of two models
resamples the items that both have, as pairs. It gives up the noise of sampling
within an item, and says nothing of other benchmarks.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

RESAMPLES = 2000
# Items whose resampled weights are held at a time.
_CHUNK = 200

Pairs = Sequence[tuple[float, float]]


class Estimate(NamedTuple):
    """A value and its interval of 95%."""

    value: float
    low: float
    high: float


def pass_at_k(samples: int, passed: int, k: int) -> float:
    """The unbiased estimate that one of ``k`` samples passes, from ``samples`` of them.

    1 - C(n - c, k) / C(n, k) (Chen et al. 2021), computed exactly. Raises ValueError for k > n.
    """
    if not 0 < k <= samples:
        raise ValueError(f"pass@{k} needs at least {k} samples a problem, there are {samples}")
    return 1 - math.comb(samples - passed, k) / math.comb(samples, k)


def ratio(pairs: Pairs, seed: int = 0) -> Estimate:
    """Sum of numerators by sum of denominators, with its interval."""
    sums = np.asarray(pairs, np.float64).sum(axis=0)
    resampled = _resampled(np.asarray(pairs, np.float64), seed)
    return _estimate(_divide(sums[0], sums[1]), _divide(resampled[:, 0], resampled[:, 1]))


def difference(first: Pairs, second: Pairs, seed: int = 0) -> Estimate:
    """Second's ratio less first's; item ``i`` of one is item ``i`` of the other."""
    joined = np.hstack([np.asarray(first, np.float64), np.asarray(second, np.float64)])

    def less(sums: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return _divide(sums[..., 2], sums[..., 3]) - _divide(sums[..., 0], sums[..., 1])

    return _estimate(less(joined.sum(axis=0)), less(_resampled(joined, seed)))


def _resampled(items: npt.NDArray[np.float64], seed: int) -> npt.NDArray[np.float64]:
    """``[RESAMPLES, C]``: column sums of as many items, drawn with replacement."""
    rng, count = np.random.default_rng(seed), len(items)
    parts = [
        rng.multinomial(count, np.full(count, 1 / count), size=_CHUNK) @ items
        for _ in range(RESAMPLES // _CHUNK)
    ]
    return np.concatenate(parts)


def _divide(
    above: npt.NDArray[np.float64], below: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.divide(above, below)


def _estimate(value: npt.NDArray[np.float64], resampled: npt.NDArray[np.float64]) -> Estimate:
    low, high = np.nanpercentile(resampled, [2.5, 97.5])
    return Estimate(float(value), float(low), float(high))
