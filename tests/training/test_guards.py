import math
import os
import signal

import pytest

from tinystarcoder.errors import TrainingError
from tinystarcoder.training.checkpoint import Progress
from tinystarcoder.training.guards import held_signals, is_sound

USUAL = (1.0, 1.2, 0.8) * 10


@pytest.mark.parametrize(
    ("norm", "norms", "limit", "taken"),
    [
        (9.9, USUAL, 10.0, True),
        (10.1, USUAL, 10.0, False),
        (1e9, USUAL, 0.0, True),
        (1e9, USUAL[:19], 10.0, True),
    ],
)
def test_a_norm_far_above_the_usual_is_not_taken(norm, norms, limit, taken):
    assert is_sound(Progress(norms=norms), 2.0, norm, limit) == taken


def test_the_fifth_spike_in_a_row_is_one_clear_error():
    assert not is_sound(Progress(norms=USUAL, skipped=3), 2.0, 11.0, 10.0)
    with pytest.raises(TrainingError, match="5 steps in a row above 10 times the usual 1"):
        is_sound(Progress(norms=USUAL, skipped=4), 2.0, 11.0, 10.0)


@pytest.mark.parametrize(("loss", "norm"), [(math.nan, 1.0), (2.0, math.inf)])
def test_what_is_not_finite_stops_the_run(loss, norm):
    with pytest.raises(TrainingError, match="lower the learning rate"):
        is_sound(Progress(), loss, norm, 0.0)


def test_the_first_signal_is_held_and_the_second_is_not():
    # A shell's background processes ignore SIGINT, and so would this one.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), held_signals() as caught:
            os.kill(os.getpid(), signal.SIGINT)
            assert caught == [signal.SIGINT]
            os.kill(os.getpid(), signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
