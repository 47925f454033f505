"""Learning-rate schedules: a factor of the peak, as a pure function of the step."""

import math
from typing import Literal

Shape = Literal["cosine", "linear", "wsd"]


def lr_factor(
    step: int, steps: int, *, shape: Shape, warmup: int, floor: float = 0.0, decay: float = 0.2
) -> float:
    """The factor in [0, 1] for optimizer step ``step`` of ``steps``, counted from 0.

    A linear warm-up over ``warmup`` steps, then ``cosine`` down to ``floor``,
    ``linear`` down to it, or ``wsd``: stable, and a linear fall over the last
    ``decay`` share of all steps.
    """
    if step < warmup:
        return (step + 1) / warmup
    start = max(steps - round(steps * decay), warmup) if shape == "wsd" else warmup
    progress = min(max(step - start, 0) / max(steps - start, 1), 1.0)
    fall = (1 + math.cos(math.pi * progress)) / 2 if shape == "cosine" else 1 - progress
    return floor + (1 - floor) * fall
