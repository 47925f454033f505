"""What keeps a run from harm: signals wait for a step's end, and a bad step is not taken.

One batch whose gradient is far above all others can undo thousands of steps, so it is
left out. If the next one's is as large, it is not the batch: the weights stand where every
batch has such a gradient, and a clipped step leads away. If that does not end it, or a loss
is not finite, it is the run that is wrong, and a person must decide. The last checkpoint is
intact in either case.
"""

import math
import signal
import statistics
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from ..errors import TrainingError
from .checkpoint import Progress

# Gradient norms that a step is compared with, and how many it takes to compare.
NORMS = 100
_ENOUGH = 20
_TOO_MANY = 5


def spikes_in_a_row(progress: Progress, loss: float, norm: float, limit: float) -> int:
    """How many steps up to this one, of that loss in nats and that gradient norm, are spikes.

    A spike's norm is above ``limit`` times the median of the last ones (0: nothing is a
    spike). Only the first of several is to be left out. Raises TrainingError where the run
    cannot go on.
    """
    advice = "lower the learning rate in another run from the last checkpoint (model.weights)"
    if not math.isfinite(loss) or not math.isfinite(norm):
        raise TrainingError(f"step {progress.step}: loss {loss}, gradient norm {norm}; {advice}")
    if not limit or len(progress.norms) < _ENOUGH:
        return 0
    usual = statistics.median(progress.norms)
    if norm <= limit * usual:
        return 0
    if (spikes := progress.spikes + 1) >= _TOO_MANY:
        raise TrainingError(
            f"step {progress.step}: gradient norm {norm:.3g}, and {_TOO_MANY} steps "
            f"in a row above {limit:g} times the usual {usual:.3g}; {advice}"
        )
    return spikes


@contextmanager
def held_signals() -> Iterator[list[int]]:
    """Collects SIGTERM and SIGINT instead of dying of them; a second one is not held back."""
    caught: list[int] = []
    before: dict[int, Any] = {}

    def note(number: int, _: FrameType | None) -> None:
        caught.append(number)
        signal.signal(number, before[number])

    # Python lets only the main thread handle signals.
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
