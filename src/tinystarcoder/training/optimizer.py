"""Two optimizers side by side: Muon for the hidden matrices, AdamW for the rest.

Muon replaces the momentum of a matrix by (nearly) its closest orthogonal matrix,
so that every direction learns at the same rate: about 1.3 times fewer tokens to
a loss than AdamW here (docs/log.md). It is meant for matrices between hidden
states; embeddings, biases and norms stay with AdamW. c_attn holds three maps in
one matrix, so its rows are split into Q and K, V before they are orthogonalized.
Source: Keller Jordan et al., "Muon: an optimizer for hidden layers", 2024.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ..model.gpt_bigcode import GPTBigCode
from .recipe import OptimizerRecipe

# Quintic Newton-Schulz coefficients (Jordan): steep at zero, rough at one, 5 steps suffice.
_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
_NEWTON_SCHULZ_STEPS = 5


def orthogonalize(matrices: Tensor) -> Tensor:
    """UVᵀ of each of ``[N, rows, columns]``, singular values only roughly one."""
    a, b, c = _NEWTON_SCHULZ
    x = matrices.bfloat16()
    tall = x.shape[1] > x.shape[2]
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(_NEWTON_SCHULZ_STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).to(matrices.dtype)


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalized; decoupled weight decay.

    ``row_splits`` maps a parameter to the row counts of the maps stacked in it.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        row_splits: dict[Tensor, list[int]],
        *,
        lr: float,
        momentum: float,
        weight_decay: float,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self._row_splits = row_splits

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # noqa: ARG002
        for group in self.param_groups:
            # Maps of one shape are orthogonalized in one batched product.
            by_shape: dict[torch.Size, list[tuple[Tensor, Tensor]]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                update = self._momentum(parameter, group["momentum"])
                splits = self._row_splits.get(parameter, [parameter.shape[0]])
                for rows, part in zip(
                    torch.split(parameter, splits), torch.split(update, splits), strict=True
                ):
                    by_shape[rows.shape].append((rows, part))
            for (out_features, in_features), pairs in by_shape.items():
                directions = orthogonalize(torch.stack([update for _, update in pairs]))
                lr = group["lr"] * max(1.0, out_features / in_features) ** 0.5
                for (weight, _), direction in zip(pairs, directions, strict=True):
                    weight.mul_(1 - group["lr"] * group["weight_decay"])
                    weight.add_(direction, alpha=-lr)

    def _momentum(self, parameter: Tensor, momentum: float) -> Tensor:
        assert parameter.grad is not None
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        buffer: Tensor = state["momentum"]
        buffer.lerp_(parameter.grad, 1 - momentum)
        return parameter.grad.lerp(buffer, momentum)


def build_optimizers(model: GPTBigCode, recipe: OptimizerRecipe) -> list[torch.optim.Optimizer]:
    """The optimizers of a recipe; each group keeps its peak rate as ``initial_lr``."""
    hidden, decayed, plain = [], [], []
    splits: dict[Tensor, list[int]] = {}
    width, kv_dim = model.config.n_embd, model.config.kv_dim
    for name, parameter in model.named_parameters():
        if parameter.ndim < 2:
            plain.append(parameter)
        elif ".h." not in name or recipe.kind == "adamw":
            decayed.append(parameter)
        else:
            hidden.append(parameter)
            if name.endswith("c_attn.weight") and model.config.multi_query:
                splits[parameter] = [width, kv_dim, kv_dim]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(
            [
                {"params": decayed, "weight_decay": recipe.weight_decay},
                {"params": plain, "weight_decay": 0.0},
            ],
            lr=recipe.lr,
            betas=(recipe.beta1, recipe.beta2),
            eps=recipe.epsilon,
            fused=True,
        )
    ]
    if hidden:
        optimizers.append(
            Muon(
                hidden,
                splits,
                lr=recipe.muon_lr,
                momentum=recipe.muon_momentum,
                weight_decay=recipe.muon_weight_decay,
            )
        )
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
    return optimizers


def set_lr(optimizers: Iterable[torch.optim.Optimizer], factor: float) -> None:
    """Sets every group's rate to ``factor`` of its peak."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor


def clip_gradients(model: nn.Module, limit: float) -> float:
    """Scales gradients to a norm of at most ``limit``; returns the norm before."""
    return float(torch.nn.utils.clip_grad_norm_(model.parameters(), limit))
