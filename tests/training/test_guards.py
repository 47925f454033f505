import math
import os
import signal

import pytest

from tinystarcoder.errors import TrainingError
from tinystarcoder.training.checkpoint import Progress
from tinystarcoder.training.guards import held_signals, spikes_in_a_row

USUAL = (1.0, 1.2, 0.8) * 10


@pytest.mark.parametrize(
    ("norm", "norms", "limit", "spikes"),
    [
        (9.9, USUAL, 10.0, 0),
        (10.1, USUAL, 10.0, 1),
        (1e9, USUAL, 0.0, 0),
        (1e9, USUAL[:19], 10.0, 0),
    ],
)
def test_a_norm_far_above_the_usual_is_a_spike(norm, norms, limit, spikes):
    assert spikes_in_a_row(Progress(norms=norms), 2.0, norm, limit) == spikes


def test_the_fifth_spike_in_a_row_is_one_clear_error():
    assert spikes_in_a_row(Progress(norms=USUAL, spikes=3), 2.0, 11.0, 10.0) == 4
    with pytest.raises(TrainingError, match="5 steps in a row above 10 times the usual 1"):
        spikes_in_a_row(Progress(norms=USUAL, spikes=4), 2.0, 11.0, 10.0)


@pytest.mark.parametrize(("loss", "norm"), [(math.nan, 1.0), (2.0, math.inf)])
def test_what_is_not_finite_stops_the_run(loss, norm):
    with pytest.raises(TrainingError, match="lower the learning rate"):
        spikes_in_a_row(Progress(), loss, norm, 0.0)


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
