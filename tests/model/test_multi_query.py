"""The hand-written backward pass of attention, beside torch's own in float64 and bfloat16."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tinystarcoder.model import multi_query
from tinystarcoder.model.config import ModelConfig
from tinystarcoder.model.gpt_bigcode import GPTBigCode


def plain(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)


def results(attend, inputs: list[Tensor], grad: Tensor, dtype: torch.dtype) -> list[Tensor]:
    """The output and the gradients of query, key and value."""
    leaves = [x.to(dtype).requires_grad_() for x in inputs]
    out = attend(*leaves)
    return [out.detach(), *torch.autograd.grad(out, leaves, grad.to(dtype))]


# Rows of one stretch, of several with the last one short, and of the most there are.
@pytest.mark.parametrize(("time", "heads", "width"), [(8, 1, 16), (300, 3, 64), (1100, 2, 32)])
def test_it_is_as_exact_as_torchs_own(time, heads, width):
    generator = torch.Generator().manual_seed(time)
    draw = lambda *shape: torch.randn(shape, generator=generator).bfloat16()  # noqa: E731
    query = draw(2, time, heads, width).transpose(1, 2)
    key, value, grad = (
        2 * draw(2, 1, time, width),
        draw(2, 1, time, width),
        draw(2, *query.shape[1:]),
    )
    exact = results(plain, [query, key, value], grad, torch.float64)
    theirs = results(plain, [query, key, value], grad, torch.bfloat16)
    ours = results(multi_query.attend, [query, key, value], grad, torch.bfloat16)
    assert torch.equal(ours[0], theirs[0])
    for right, other, got in zip(exact, theirs, ours, strict=True):
        assert got.shape == right.shape
        assert got.dtype == torch.bfloat16
        assert off(got, right) < max(2.5 * off(other, right), 0.01)


def off(got: Tensor, right: Tensor) -> float:
    return float((got.double() - right).norm() / right.norm())


def test_no_place_learns_from_a_later_one():
    inputs = [torch.randn(1, heads, 300, 16).bfloat16() for heads in (2, 1, 1)]
    grad = torch.zeros(1, 2, 300, 16)
    grad[:, :, 140] = 1.0
    _, query, key, value = results(multi_query.attend, inputs, grad, torch.bfloat16)
    assert not query[:, :, :140].any()
    assert not query[:, :, 141:].any()
    for by in (key, value):
        assert by[:, :, :141].any(-1).all()
        assert not by[:, :, 141:].any()


def test_it_is_for_training_in_bfloat16_with_one_head_of_keys():
    query, key = torch.zeros(1, 2, 512, 16).bfloat16(), torch.zeros(1, 1, 512, 16).bfloat16()
    learning = query.requires_grad_()
    assert multi_query.is_faster(learning, key)
    assert not multi_query.is_faster(learning.float(), key)
    assert not multi_query.is_faster(learning, key.expand(1, 2, 512, 16))
    assert not multi_query.is_faster(learning, key[:, :, :400])
    assert not multi_query.is_faster(learning[:, :, :64], key[:, :, :64])
    assert not multi_query.is_faster(learning.detach(), key)
    with torch.no_grad():
        assert not multi_query.is_faster(learning, key)


def test_a_model_takes_it_and_has_the_gradients_of_torchs_own(monkeypatch):
    config = ModelConfig(vocab_size=50, n_positions=400, n_embd=32, n_layer=2, n_head=2, n_inner=64)
    model = GPTBigCode(replace(config, attn_pdrop=0.0, embd_pdrop=0.0, resid_pdrop=0.0))
    model.initialize(0, std=0.2)
    ids = torch.randint(0, 50, (2, 400), generator=torch.Generator().manual_seed(0))
    taken = []
    attend = multi_query.attend
    monkeypatch.setattr(multi_query, "attend", lambda *x: taken.append(1) or attend(*x))
    gradients = []
    for lengths in (range(400, 401), range(0)):
        monkeypatch.setattr(multi_query, "_LENGTHS", lengths)
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(ids).logsumexp(-1).mean()
        gradients.append(torch.autograd.grad(loss, list(model.parameters())))
    assert len(taken) == config.n_layer
    for ours, theirs in zip(*gradients, strict=True):
        assert off(ours, theirs) < 0.02
