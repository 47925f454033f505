import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from tinystarcoder.training import loss as module
from tinystarcoder.training.loss import IGNORED, cross_entropy_sum, linear_cross_entropy


@pytest.fixture
def problem(monkeypatch):
    monkeypatch.setitem(module.CHUNK, "cpu", 7)  # Several chunks, the last one short.
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(30, 16, generator=generator, requires_grad=True)
    weight = torch.randn(50, 16, generator=generator, requires_grad=True)
    targets = torch.randint(0, 50, (30,), generator=generator)
    targets[[3, 29]] = IGNORED
    return x, weight, targets


class Largest(TorchDispatchMode):
    """Notes how many numbers the largest tensor has that anything computes."""

    numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple | list) else (made,):
            if isinstance(tensor, torch.Tensor):
                self.numbers = max(self.numbers, tensor.numel())
        return made


def test_logits_never_stand_whole(problem):
    x, weight, targets = problem
    with Largest() as largest:
        linear_cross_entropy(x, weight, targets, torch.float32, compiled=False).backward()
        cross_entropy_sum(x, weight, targets)
    assert largest.numbers == weight.numel() < len(x) * len(weight)
    with Largest() as plain:
        F.cross_entropy(x @ weight.t(), targets, ignore_index=IGNORED)
    assert plain.numbers == len(x) * len(weight)


def test_loss_and_gradients_equal_the_plain_ones(problem):
    x, weight, targets = problem
    loss = linear_cross_entropy(x, weight, targets, torch.float32, compiled=False)
    got = torch.autograd.grad(2 * loss, (x, weight))
    plain = F.cross_entropy(x @ weight.t(), targets, ignore_index=IGNORED)
    wanted = torch.autograd.grad(2 * plain, (x, weight))
    torch.testing.assert_close(loss, plain)
    torch.testing.assert_close(got, wanted)


def test_bfloat16_stays_near_float32(problem):
    x, weight, targets = problem
    low = linear_cross_entropy(x, weight, targets, torch.bfloat16, compiled=False)
    full = linear_cross_entropy(x, weight, targets, torch.float32, compiled=False)
    torch.testing.assert_close(low, full, rtol=0.02, atol=0)


def test_nothing_to_predict_is_a_loss_of_zero():
    x = torch.randn(4, 8, requires_grad=True)
    weight = torch.randn(5, 8, requires_grad=True)
    targets = torch.full((4,), IGNORED)
    loss = linear_cross_entropy(x, weight, targets, torch.float32, compiled=False)
    loss.backward()
    assert loss.item() == 0
    assert not x.grad.any()


def test_the_sum_counts_no_ignored_target(problem):
    x, weight, targets = problem
    plain = F.cross_entropy(x @ weight.t(), targets, ignore_index=IGNORED, reduction="sum")
    assert cross_entropy_sum(x, weight, targets) == pytest.approx(plain.item(), rel=1e-5)
