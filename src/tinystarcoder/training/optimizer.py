"""Two optimizers side by side: Muon for the hidden matrices, AdamW for the rest.

Muon replaces the momentum of a matrix by (nearly) its closest orthogonal matrix,
so that every direction learns at the same rate: here by far the largest of the
recipe's levers (docs/training.md). It is meant for matrices between hidden
states; embeddings, biases and norms stay with AdamW. c_attn holds three maps in
one matrix, so its rows are split into Q and K, V before they are orthogonalized.
Source: Keller Jordan et al., "Muon: an optimizer for hidden layers", 2024.

Of several ranks each orthogonalizes its share of the matrices, and all get the result;
what is sharded (FSDP2) is gathered for it, some matrices at a time, in bfloat16 where the
device multiplies that natively.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..model.gpt_bigcode import GPTBigCode
from .distributed import World, gather, local, own_rows, whole
from .hardware import dtype_for
from .recipe import OptimizerRecipe

# Quintic Newton-Schulz coefficients (Jordan): steep at zero, rough at one, 5 steps suffice.
_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
_NEWTON_SCHULZ_STEPS = 5

# Numbers of matrices that stand whole at a time: 128 MB in bfloat16, or one of each rank.
_WHOLE = 1 << 26


def orthogonalize(matrices: Tensor) -> Tensor:
    """UVᵀ of each of ``[N, rows, columns]``, in their dtype, singular values only roughly one."""
    a, b, c = _NEWTON_SCHULZ
    tall = matrices.shape[1] > matrices.shape[2]
    x: Tensor = matrices / (matrices.flatten(1).norm(dim=1)[:, None, None] + 1e-7)
    for _ in range(_NEWTON_SCHULZ_STEPS):
        # Of the smaller side, and no matrix is turned but in that product.
        gram = x.mT @ x if tall else x @ x.mT
        by = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, *((x, by) if tall else (by, x)), beta=a)
    return x


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalized; decoupled weight decay.

    ``row_splits`` maps a parameter to the row counts of the maps stacked in it.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        row_splits: dict[Tensor, list[int]],
        world: World,
        *,
        lr: float,
        momentum: float,
        weight_decay: float,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self._row_splits, self._world = row_splits, world
        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter]["momentum"] = torch.zeros_like(parameter)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # noqa: ARG002
        for group in self.param_groups:
            for parameters in self._batches(group["params"]):
                updates = [self._momentum(p, group["momentum"]) for p in parameters]
                splits = self._splits(parameters[0])
                for parameter, direction in zip(
                    parameters, self._directions(updates, splits), strict=True
                ):
                    weight = local(parameter)
                    weight.mul_(1 - group["lr"] * group["weight_decay"])
                    # In one dtype: torch adds a mixed pair number by number.
                    weight.add_(own_rows(direction, parameter).float(), alpha=-group["lr"])

    def _batches(self, parameters: list[Tensor]) -> Iterator[list[Tensor]]:
        """Matrices of one form, which are orthogonalized in batched products."""
        by_form: dict[tuple[int, ...], list[Tensor]] = defaultdict(list)
        for parameter in parameters:
            if parameter.grad is not None:
                by_form[*parameter.shape, *self._splits(parameter)].append(parameter)
        for found in by_form.values():
            count = max(_WHOLE // found[0].numel(), self._world.size)
            for at in range(0, len(found), count):
                yield found[at : at + count]

    def _directions(self, updates: list[Tensor], splits: list[int]) -> list[Tensor]:
        """The steps to take, whole, of all matrices; computed is only this rank's share."""
        world = self._world
        # bfloat16 is exact enough, but emulated it is many times slower than all else of a step.
        dtype = dtype_for("auto", updates[0].device)
        full = [whole(update.to(dtype)) for update in updates]
        # With fewer matrices than ranks, the last ranks do the first one again.
        mine = torch.stack(full[world.rank :: world.size] or full[:1])
        parts = [
            orthogonalize(part) * max(1.0, part.shape[1] / part.shape[2]) ** 0.5
            for part in torch.split(mine, splits, dim=1)
        ]
        return gather(list(torch.cat(parts, dim=1)), len(updates), world)

    def _splits(self, parameter: Tensor) -> list[int]:
        return self._row_splits.get(parameter, [parameter.shape[0]])

    def _momentum(self, parameter: Tensor, momentum: float) -> Tensor:
        assert parameter.grad is not None
        buffer: Tensor = self.state[parameter]["momentum"]
        buffer.lerp_(parameter.grad, 1 - momentum)
        return parameter.grad.lerp(buffer, momentum)


def build_optimizers(
    model: GPTBigCode, recipe: OptimizerRecipe, world: World
) -> list[torch.optim.Optimizer]:
    """The optimizers of a recipe; each group keeps its peak rate as ``initial_lr``.

    Their state stands from the start, so that a checkpoint's can be put into it.
    """
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
    adamw = torch.optim.AdamW(
        [
            {"params": decayed, "weight_decay": recipe.weight_decay},
            {"params": plain, "weight_decay": 0.0},
        ],
        lr=recipe.lr,
        betas=(recipe.beta1, recipe.beta2),
        eps=recipe.epsilon,
        fused=True,
    )
    for parameter in (*decayed, *plain):
        adamw.state[parameter] = {
            "step": torch.zeros((), device=parameter.device),
            "exp_avg": torch.zeros_like(parameter),
            "exp_avg_sq": torch.zeros_like(parameter),
        }
    optimizers: list[torch.optim.Optimizer] = [adamw]
    if hidden:
        optimizers.append(
            Muon(
                hidden,
                splits,
                world,
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
    """Scales gradients to a norm of at most ``limit`` (0: any); returns the norm before."""
    parameters = list(model.parameters())
    gradients = [p.grad for p in parameters if p.grad is not None]
    total = torch.nn.utils.get_total_norm(gradients)
    norm = float(whole(total))
    if limit and norm > limit:
        torch.nn.utils.clip_grads_with_norm_(parameters, limit, total)
    return norm


class WeightAverage:
    """An exponential moving average of a model's weights, in float32."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._decay = decay
        self._weights = dict(model.named_parameters())
        self.tensors = {name: p.detach().clone() for name, p in self._weights.items()}
        """What is not in the model: the averages, or between swaps the weights."""

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Takes in the weights after optimizer step ``step``, counted from 0."""
        # The first steps are far from where the average is wanted: they fade faster.
        decay = min(self._decay, (step + 1) / (step + 10))
        for name, weight in self._weights.items():
            local(self.tensors[name]).lerp_(local(weight), 1 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchanges weights and averages."""
        for name, weight in self._weights.items():
            kept, held = local(self.tensors[name]), local(weight)
            before = held.clone()
            held.copy_(kept)
            kept.copy_(before)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within it the model is the average."""
        self.swap()
        try:
            yield
        finally:
            self.swap()
