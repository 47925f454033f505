"""Cross-entropy of the tied head without ever holding all logits.

``[B·T, V]`` logits and their gradient are the largest tensors of a step (1.6 GB
each for one 8k row of the 164M model in float32). Rows are taken a chunk at a
time and the gradient is computed in the same pass, so that a chunk stays in the
cache. What it gives up: gradients are computed even where none will be asked for,
so validation takes :func:`cross_entropy_sum`.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..model.gpt_bigcode import GPTBigCode

IGNORED = -100

# Rows of logits at a time. On a CPU 512 x 8,192 in bfloat16 are 8 MB, about an L3 slice;
# on a GPU each chunk also reads and writes the weight's gradient, which wants fewer.
CHUNK = {"cpu": 512, "cuda": 2048}


class CausalLoss(nn.Module):
    """A model and the loss of what it predicts: one forward call from ids to nats.

    What DDP and FSDP2 wrap: the embedding is the head's matrix as well, so it must
    stand whole, and its gradient be waited for, from the first layer to the loss.
    """

    def __init__(self, model: GPTBigCode, dtype: torch.dtype, *, compiled: bool) -> None:
        super().__init__()
        self.model, self.dtype, self.compiled = model, dtype, compiled

    def forward(
        self, inputs: Tensor, targets: Tensor, documents: Tensor | None = None, first: int = 0
    ) -> Tensor:
        """Mean loss in nats of ``targets [B, T]``, or without gradients their summed loss.

        With ``documents [B, T]`` attention stays within one. Positions begin at ``first``.
        """
        with torch.autocast(inputs.device.type, self.dtype, enabled=self.dtype != torch.float32):
            hidden = self.model.transformer(inputs, documents=documents, first=first)
        hidden, weight = hidden.flatten(0, 1), self.model.transformer.wte.weight
        if not torch.is_grad_enabled():
            return cross_entropy_sum(
                hidden.to(self.dtype), weight.to(self.dtype), targets.flatten()
            )
        return linear_cross_entropy(
            hidden, weight, targets.flatten(), self.dtype, compiled=self.compiled
        )


def _loss_and_grad(x: Tensor, weight: Tensor, targets: Tensor, scale: Tensor) -> list[Tensor]:
    """Summed loss of one chunk times ``scale``, and its gradient by the logits in two factors.

    One ``[N, V]``, the other ``[N, 1]`` for each of its rows: what the softmax divides by is
    left to the products that follow, so that each logit's exponential is taken once.
    """
    logits = F.linear(x, weight)
    valid, wanted = (targets != IGNORED).unsqueeze(-1), targets.clamp(min=0).unsqueeze(-1)
    picked, top = logits.gather(-1, wanted).float(), logits.amax(-1, keepdim=True).float()
    odds = (logits.float() - top).exp()
    total = odds.sum(-1, keepdim=True)
    loss = torch.where(valid, top + total.log() - picked, 0.0).sum() * scale
    # At the target a probability less one, rounded but once.
    less_one = ((picked - top).exp() - total).to(x.dtype)
    grad = odds.to(x.dtype).scatter(-1, wanted, less_one)
    return [loss, grad, valid * scale / total]


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
        # Summed over chunks in float32, whatever the weight is held in.
        grad_weight = torch.zeros(weight.shape, device=x.device)
        total = torch.zeros((), device=x.device)
        chunks = (torch.split(tensor, CHUNK[x.device.type]) for tensor in (rows, targets, grad_x))
        for part, wanted, grad_part in zip(*chunks, strict=True):
            loss, grad, factor = chunk_loss(part, low, wanted, scale)
            total += loss
            torch.mul(grad @ low, factor, out=grad_part)
            grad_weight += (grad.t() @ (part * factor).to(dtype)).float()
        ctx.save_for_backward(grad_x, grad_weight)
        ctx.dtypes = x.dtype, weight.dtype
        return total

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor | None, ...]:
        grad_x, grad_weight = ctx.saved_tensors
        dtype, weight_dtype = ctx.dtypes
        by_weight = (grad_weight * grad_loss).to(weight_dtype)
        return (grad_x * grad_loss).to(dtype), by_weight, None, None, None


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
def cross_entropy_sum(x: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Summed loss in nats, as a float64 scalar, without gradients."""
    total = torch.zeros((), dtype=torch.float64, device=x.device)
    chunks = (torch.split(tensor, CHUNK[x.device.type]) for tensor in (x, targets))
    for part, wanted in zip(*chunks, strict=True):
        logits = F.linear(part, weight).float()
        total += F.cross_entropy(logits, wanted, ignore_index=IGNORED, reduction="sum")
    return total
