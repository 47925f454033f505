import math

import pytest
import torch

from tinystarcoder.training import hardware
from tinystarcoder.training.hardware import dtype_for, peak_flops


@pytest.fixture(autouse=True)
def small_and_quick(monkeypatch):
    monkeypatch.setattr(hardware, "_SIZES", {"cpu": 64})
    monkeypatch.setattr(hardware, "_SECONDS", 0.0)
    peak_flops.cache_clear()
    yield
    peak_flops.cache_clear()


def test_the_peak_is_measured_once_a_process(monkeypatch):
    measured = peak_flops("cpu", torch.float32)
    assert 0 < measured < math.inf

    def never(*_, **__):
        raise AssertionError("measured again")

    monkeypatch.setattr(torch, "mm", never)
    assert peak_flops("cpu", torch.float32) == measured
    with pytest.raises(AssertionError, match="measured again"):
        peak_flops("cpu", torch.bfloat16)


def test_it_is_the_fastest_product_that_counts(monkeypatch):
    """Products of 64³ that take 4, 1 and 2 seconds by the clock."""
    monkeypatch.setattr(hardware, "_SECONDS", 7.0)
    ticks = iter([0, 0, 4, 4, 4, 5, 5, 5, 7, 7])
    monkeypatch.setattr(hardware.time, "perf_counter", lambda: float(next(ticks)))
    assert peak_flops("cpu", torch.float32) == 2 * 64**3 / 1.0


def test_precision_follows_the_hardware(monkeypatch):
    device = torch.device("cpu")
    for native, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda n=native: n)
        assert dtype_for("auto", device) == dtype
    assert dtype_for("bf16", device) == torch.bfloat16
    assert dtype_for("fp32", device) == torch.float32
