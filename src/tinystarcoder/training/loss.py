"""Cross-entropy of the tied head without ever holding all logits.

``[B·T, V]`` logits and their gradient are the largest tensors of a step (1.6 GB
each for one 8k row of the 164M model in float32). Rows are taken a chunk at a
time and the gradient is computed in the same pass, so that a chunk stays in the
cache. What it gives up: gradients are computed even where none will be asked for,
so validation takes :func:`cross_entropy_sum`.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

IGNORED = -100

# Rows of logits at a time: 512 x 8,192 in bfloat16 are 8 MB, about an L3 slice.
CHUNK = 512


def _loss_and_grad(x: Tensor, weight: Tensor, targets: Tensor, scale: Tensor) -> list[Tensor]:
    """Summed loss of one chunk times ``scale``, and its gradient by the logits ``[N, V]``."""
    logits = F.linear(x, weight).float()
    valid = targets != IGNORED
    log_z = logits.logsumexp(-1, keepdim=True)
    picked = logits.gather(-1, targets.clamp(min=0).unsqueeze(-1))
    loss = torch.where(valid, (log_z - picked).squeeze(-1), 0.0).sum() * scale
    hot = torch.arange(weight.shape[0], device=x.device) == targets.unsqueeze(-1)
    grad = ((logits - log_z).exp() - hot.float()) * (valid.unsqueeze(-1) * scale)
    return [loss, grad.to(x.dtype)]


_compiled = torch.compile(_loss_and_grad, dynamic=False)


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, targets: Tensor, dtype: torch.dtype, compiled: bool
    ) -> Tensor:
        chunk_loss = _compiled if compiled else _loss_and_grad
        rows, low = x.to(dtype), weight.to(dtype)
        scale = 1.0 / (targets != IGNORED).sum().clamp(min=1)
        grad_x = torch.empty_like(rows)
        grad_weight = torch.zeros_like(weight)
        total = torch.zeros((), device=x.device)
        for start in range(0, rows.shape[0], CHUNK):
            part = rows[start : start + CHUNK]
            loss, grad = chunk_loss(part, low, targets[start : start + CHUNK], scale)
            total += loss
            torch.mm(grad, low, out=grad_x[start : start + CHUNK])
            grad_weight += grad.t() @ part
        ctx.save_for_backward(grad_x, grad_weight)
        ctx.input_dtype = x.dtype
        return total

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor | None, ...]:
        grad_x, grad_weight = ctx.saved_tensors
        return (grad_x * grad_loss).to(ctx.input_dtype), grad_weight * grad_loss, None, None, None


def linear_cross_entropy(
    x: Tensor, weight: Tensor, targets: Tensor, dtype: torch.dtype, *, compiled: bool
) -> Tensor:
    """Mean loss in nats of predicting ``targets [N]`` from ``x [N, D]`` through ``weight [V, D]``.

    Products run in ``dtype``, the softmax in float32. Targets of :data:`IGNORED`
    count for nothing.
    """
    loss: Tensor = _LinearCrossEntropy.apply(  # type: ignore[no-untyped-call]
        x, weight, targets, dtype, compiled
    )
    return loss


@torch.no_grad()
def cross_entropy_sum(x: Tensor, weight: Tensor, targets: Tensor) -> float:
    """Summed loss in nats, without gradients."""
    total = 0.0
    for start in range(0, x.shape[0], CHUNK):
        logits = F.linear(x[start : start + CHUNK], weight).float()
        part = targets[start : start + CHUNK]
        total += float(F.cross_entropy(logits, part, ignore_index=IGNORED, reduction="sum"))
    return total
