"""Causal multi-query attention for training in bfloat16 on a CPU: five large products backward.

torch's own backward pass there works through blocks of one head at a time, thousands of
products too small for the processor's matrix unit. With one head of keys and values, the
query heads are more rows of one matrix, so a stretch of the row is a single product:

    E = scale·Q·Kᵀ - logsumexp     P = exp(E)    dV = Pᵀ·dO
    G = dO·Vᵀ - rowsum(dO ∘ O)     S = P ∘ G     dQ = scale·S·K, dK = scale·Sᵀ·Q

Both differences are taken inside of the product, whose sums are float32: a row of Q brings
what is subtracted in three bfloat16 numbers, and a row of K a one for each. So what is
rounded to bfloat16 is the logarithm of a probability, hardly off where that is large.
What it gives up: scores of a stretch stand in memory, above the diagonal too; a mask of
documents, dropout, a cache, short rows and long ones are for torch's own. The forward pass
is torch's.

Shapes: B batch, T tokens, H query heads, C head width, R = H·(places of a stretch of a row).
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

# Scores that are held at a time, [T, R]: with their gradients 1 MB, half of a core's cache.
_SCORES = 1 << 18

# Rows that were measured to take less time so; of others torch's own is as fast, or faster.
_LENGTHS = range(384, 769)

# A row's three numbers, and zeros up to a whole tile of the matrix unit.
_PARTS, _EXTRA = 3, 32


def is_faster(query: Tensor, key: Tensor) -> bool:
    """Whether :func:`attend` is what to take for these, of a causal row without dropout."""
    trains = torch.is_grad_enabled() and query.requires_grad
    fits = query.device.type == "cpu" and query.dtype == torch.bfloat16
    fits = fits and query.shape[2] in _LENGTHS
    return trains and fits and key.shape[1] == 1 and query.shape[2] == key.shape[2]


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """``[B, H, T, C]`` of a causal row: ``query [B, H, T, C]``, ``key`` and ``value [B, 1, T, C]``.

    All in bfloat16, on a CPU. A gradient of the gradient is not there.
    """
    out: Tensor = _MultiQuery.apply(query, key, value)  # type: ignore[no-untyped-call]
    return out


class _MultiQuery(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        shared = (x.expand(-1, query.shape[1], -1, -1) for x in (key, value))
        out: Tensor
        out, logsumexp = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            query, *shared, 0.0, True
        )
        ctx.save_for_backward(query, key, value, out, logsumexp)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        found: tuple[Tensor, Tensor, Tensor] = _gradients(grad, *ctx.saved_tensors)
        return found


# An operator of its own, so that a compiler leaves it as it is: its loops over scores would
# be slower than torch's, and each length of a row another graph of dozens of kernels.
@torch.library.custom_op("tinystarcoder::multi_query_gradients", mutates_args=())
def _gradients(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, logsumexp: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    batch, heads, time, width = query.shape
    scale = 1 / math.sqrt(width)
    delta = (grad.float() * out.float()).sum(-1)
    # Places first, so that a stretch's rows lie together: [B, T·H, C + EXTRA].
    queries = _with_parts(query.transpose(1, 2), -logsumexp.transpose(1, 2)).flatten(1, 2)
    grads = _with_parts(grad.transpose(1, 2), -delta.transpose(1, 2)).flatten(1, 2)
    keys, values = _with_ones(key.squeeze(1) * scale), _with_ones(value.squeeze(1))
    by_query = torch.empty_like(queries[..., :width])
    by_key, by_value = (x.new_zeros(batch, time, width, dtype=torch.float32) for x in (key, value))
    for row in zip(
        *(x.unbind() for x in (queries, grads, keys, values, by_query, by_key, by_value)),
        strict=True,
    ):
        _row_gradients(*row, heads=heads)
    return (
        by_query.view(batch, time, heads, width).transpose(1, 2),
        (by_key * scale).to(key.dtype).unsqueeze(1),
        by_value.to(value.dtype).unsqueeze(1),
    )


def _row_gradients(
    queries: Tensor,
    grads: Tensor,
    keys: Tensor,
    values: Tensor,
    by_query: Tensor,
    by_key: Tensor,
    by_value: Tensor,
    *,
    heads: int,
) -> None:
    """Writes the last three of one row: of queries ``[T·H, C]``, of the others ``[T, C]``."""
    time, width = by_key.shape
    size = min(max(_SCORES // (time * heads), 1), time)
    unseen = _unseen(size, heads, keys.dtype)
    room = keys.new_empty(2, time * size * heads)  # Used again, so that it stays in the cache.
    for start in range(0, time, size):
        stop = min(start + size, time)
        mine = slice(start * heads, stop * heads)
        query, grad, key, value = queries[mine], grads[mine], keys[:stop], values[:stop]
        # [stop, R]: keys first, so that only one of three products turns what it reads.
        weights, by_score = (x.view(stop, -1) for x in room[:, : stop * len(query)])
        torch.mm(key, query.t(), out=weights)
        weights[start:] += unseen[: stop - start, : len(query)]
        weights.exp_()
        torch.mm(value, grad.t(), out=by_score)
        by_score *= weights
        by_value[:stop] += (weights @ grad[:, :width]).float()
        by_key[:stop] += (by_score @ query[:, :width]).float()
        torch.mm(by_score.t(), key[:, :width], out=by_query[mine])


@_gradients.register_fake
def _(
    grad: Tensor,  # noqa: ARG001
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,  # noqa: ARG001
    logsumexp: Tensor,  # noqa: ARG001
) -> tuple[Tensor, Tensor, Tensor]:
    by_query = torch.empty_like(query.transpose(1, 2), memory_format=torch.contiguous_format)
    by_key, by_value = (
        torch.empty_like(x, memory_format=torch.contiguous_format) for x in (key, value)
    )
    return by_query.transpose(1, 2), by_key, by_value


def _unseen(size: int, heads: int, dtype: torch.dtype) -> Tensor:
    """Minus infinity above the diagonal of a stretch, zero elsewhere: ``[size, size * H]``."""
    place = torch.arange(size)
    unseen = (place[:, None] > place).repeat_interleave(heads, 1)
    return torch.zeros(unseen.shape, dtype=dtype).masked_fill_(unseen, -math.inf)


def _with_parts(rows: Tensor, number: Tensor) -> Tensor:
    """``[B, T, H, C]`` with a float32 ``[B, T, H]`` in three bfloat16 parts behind each row."""
    parts = rows.new_zeros(*rows.shape[:-1], _EXTRA)
    for index in range(_PARTS):
        parts[..., index] = number
        number = number - parts[..., index]
    return torch.cat([rows, parts], -1)


def _with_ones(rows: Tensor) -> Tensor:
    """``[B, T, C]`` with a one for each of a number's parts behind each row."""
    return F.pad(F.pad(rows, (0, _PARTS), value=1.0), (0, _EXTRA - _PARTS))
