"""What a run will take, before anything starts: FLOPs, memory a rank, tokens a second, days.

No torch, no device and no data: arithmetic on the recipe alone. The time of a token is

    products / (peak · share) + attention / (peak · share) + activations' bytes / bandwidth

and a step adds the optimizer's products and bytes, and on a GPU what starting its kernels
costs. FLOPs are those that are executed: attention is causal, so a token sees half of its
row on average; what activation checkpointing computes again is not counted (so MFU, not HFU).

What it gives up: communication counts as hidden behind computation and the data loader as
free; memory is without the allocator's fragments and the compiler's savings; a device's
two shares are constants; a mask of documents saves what only the data can tell, so
attention counts as if there were none. docs/training.md says how far it was off.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from ..errors import RecipeError
from ..model.config import ModelConfig
from .recipe import Phase, Recipe

GIB = 1 << 30

# Rows of logits that stand in memory at a time: those of training/loss.py, which needs torch.
LOGITS_CHUNK = {"cpu": 512, "cuda": 2048}

# Of a logit, besides its value and gradient, its float32 share of the softmax.
_SOFTMAX_BYTES = 4

# Backward takes two products for each one of the forward pass.
_FORWARD_AND_BACKWARD = 3

_FLOAT32, _BFLOAT16 = 4, 2
_NEWTON_SCHULZ_STEPS = 5

# Activations are written once and read once; their gradients the same.
_ACTIVATION_PASSES = 4


@dataclass(frozen=True)
class Device:
    """A GPU, or one core of a CPU: FLOP/s, memory in bytes, bytes a second.

    ``peak`` is that of bfloat16, or of float32 where that is what it multiplies natively
    (``is_float32``). ``products`` and ``attention`` are the shares of it that a training
    step's matrix products and its attention reach. A CPU's cores work as one rank and share
    its memory, which is unknown (0).
    """

    peak: float
    products: float
    attention: float
    memory: float
    bandwidth: float
    launch: float = 0.0
    """Seconds that a block's kernels, forward and backward, take to be started."""
    is_core: bool = False
    is_float32: bool = False


# GPUs: the makers' dense bfloat16 peaks; shares from published runs of models of this width
# and of flash attention with heads of 64, dropout included. Cores: measured, docs/training.md.
DEVICES = {
    "a100": Device(312e12, 0.50, 0.25, 79 * GIB, 2.0e12, launch=3e-4),
    "h100": Device(989e12, 0.50, 0.25, 79 * GIB, 3.35e12, launch=3e-4),
    "h200": Device(989e12, 0.50, 0.25, 140 * GIB, 4.8e12, launch=3e-4),
    "cpu-amx": Device(1.38e12, 0.204, 0.137, 0, 40e9, is_core=True),
    "cpu-zen4": Device(0.24e12, 0.60, 0.40, 0, 20e9, is_core=True),
    "cpu-avx2": Device(0.08e12, 0.60, 0.75, 0, 20e9, is_core=True, is_float32=True),
}


@dataclass(frozen=True)
class Hardware:
    """So many of one device."""

    name: str
    device: Device
    count: int

    @property
    def ranks(self) -> int:
        return 1 if self.device.is_core else self.count

    @property
    def peak(self) -> float:
        """FLOP/s of all together."""
        return self.device.peak * self.count

    @property
    def kind(self) -> str:
        """torch's name for it."""
        return "cpu" if self.device.is_core else "cuda"

    @property
    def rank_peak(self) -> float:
        """FLOP/s of one rank."""
        return self.peak / self.ranks


@dataclass(frozen=True)
class Memory:
    """Bytes that stand on one rank at a step's peak."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    logits: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.activations + self.logits


@dataclass(frozen=True)
class PhasePlan:
    """One phase: its steps, the rows that a rank holds at once, its speed."""

    phase: Phase
    steps: int
    micro_rows: int
    seconds_a_step: float
    flops: float
    mfu: float
    """Share of the devices' peak that the executed FLOPs are."""

    @property
    def tokens_per_second(self) -> float:
        return self.phase.rows * self.phase.context / self.seconds_a_step


@dataclass(frozen=True)
class Plan:
    """All of a run. ``ddp`` and ``fsdp`` are the memory of the phase that needs the most."""

    parameters: int
    tokens: int
    flops: float
    seconds: float
    phases: tuple[PhasePlan, ...]
    ddp: Memory
    fsdp: Memory


def hardware(text: str) -> Hardware:
    """``h100``, ``8xh100``, ``2xcpu-amx`` (two cores). Raises RecipeError for anything else."""
    match = re.fullmatch(r"(?:([1-9]\d*)x)?([a-z][a-z0-9-]*)", text)
    if match is None or match[2] not in DEVICES:
        raise RecipeError(
            f"hardware {text!r} is unknown; known are {', '.join(DEVICES)}, "
            "several as 8xh100, a CPU by its cores as 2xcpu-amx"
        )
    return Hardware(match[2], DEVICES[match[2]], int(match[1] or 1))


def product_flops(config: ModelConfig) -> int:
    """FLOPs a token in matrix products, forward and backward, the head's included."""
    head = config.vocab_size * config.n_embd
    return 2 * _FORWARD_AND_BACKWARD * (_hidden_parameters(config) + head)


def attention_flops(config: ModelConfig, context: int) -> int:
    """FLOPs a token in scores and sums over values, a row of ``context`` tokens, causal."""
    return _FORWARD_AND_BACKWARD * 2 * config.n_layer * config.n_embd * context


def flops_per_token(config: ModelConfig, context: int) -> int:
    """FLOPs a token of training, forward and backward: what MFU counts."""
    return product_flops(config) + attention_flops(config, context)


def executed_flops(recipe: Recipe, steps: int) -> int:
    """FLOPs of the first ``steps`` of a run, the optimizer's left out, as in :class:`Plan`."""
    config, phases = recipe.model_config(), Counter(map(recipe.phase_at, range(steps)))
    return sum(
        count * phase.rows * phase.context * flops_per_token(config, phase.context)
        for phase, count in phases.items()
    )


def activation_bytes(config: ModelConfig, low: int = _BFLOAT16) -> int:
    """Bytes a token that the blocks keep for the backward pass, in autocast to ``low`` bytes.

    Of each block: two float32 inputs of norms; three states of the width in low precision,
    two of the inner width; Q, K, V; the softmax's logarithms and the norms' moments in
    float32; with dropout, its two masks.
    """
    width, inner = config.n_embd, config.n_inner
    qkv = width + 2 * config.kv_dim
    states = low * (3 * width + 2 * inner + qkv)
    full = _FLOAT32 * (2 * width + config.n_head + 4)
    masks = 2 * width if config.resid_pdrop else 0
    return config.n_layer * (states + full + masks)


def _low_bytes(recipe: Recipe, device: Device) -> int:
    """Of a number in a product: what ``hardware.precision`` is on this device."""
    asked = recipe.hardware.precision
    is_float32 = asked == "fp32" or (asked == "auto" and device.is_float32)
    return _FLOAT32 if is_float32 else _BFLOAT16


def plan(recipe: Recipe, on: Hardware) -> Plan:
    """Everything about ``recipe`` on that hardware. Raises RecipeError where it cannot start."""
    recipe.check_ranks(on.ranks)
    config = recipe.model_config()
    phases = tuple(_plan_phase(recipe, config, *part, on) for part in _phase_steps(recipe))
    tokens = recipe.total_tokens()
    largest = max(phases, key=lambda part: part.micro_rows * part.phase.context)
    return Plan(
        parameters=config.num_parameters(),
        tokens=tokens,
        flops=sum(part.flops for part in phases),
        seconds=sum(part.steps * part.seconds_a_step for part in phases),
        phases=phases,
        ddp=_memory(recipe, config, largest, on, shards=1),
        fsdp=_memory(recipe, config, largest, on, shards=on.ranks),
    )


def _phase_steps(recipe: Recipe) -> Iterator[tuple[Phase, int]]:
    """Each phase and how many steps it lasts; the same count as Recipe.phase_at gives."""
    steps = [recipe.phase_at(step) for step in range(recipe.schedule.steps)]
    for phase in recipe.phases:
        if count := steps.count(phase):
            yield phase, count


def _plan_phase(
    recipe: Recipe, config: ModelConfig, phase: Phase, steps: int, on: Hardware
) -> PhasePlan:
    rows = phase.rows // on.ranks
    micro_rows = min(phase.micro_rows or rows, rows)
    seconds = _rank_seconds(recipe, config, rows * phase.context, phase.context, on)
    seconds += -(-rows // micro_rows) * config.n_layer * on.device.launch
    flops = phase.rows * phase.context * flops_per_token(config, phase.context)
    return PhasePlan(
        phase=phase,
        steps=steps,
        micro_rows=micro_rows,
        seconds_a_step=seconds,
        flops=steps * flops,
        mfu=flops / seconds / on.peak,
    )


def _rank_seconds(
    recipe: Recipe, config: ModelConfig, tokens: int, context: int, on: Hardware
) -> float:
    """One step of ``tokens`` on one rank, with the optimizer's."""
    device = on.device
    products = tokens * product_flops(config)
    attention = tokens * attention_flops(config, context)
    if recipe.hardware.activation_checkpointing:  # Each block's forward pass once more.
        products += tokens * 2 * _hidden_parameters(config)
        attention += attention // _FORWARD_AND_BACKWARD
    if recipe.optimizer.kind == "muon":
        products += _muon_flops(config)
    moved = _update_bytes(recipe, config)
    # A CPU's activations stay in its caches: what they cost is in its measured shares.
    if not device.is_core:
        low = _low_bytes(recipe, device)
        logits = (2 * low + _SOFTMAX_BYTES) * config.vocab_size
        moved += tokens * (_ACTIVATION_PASSES * activation_bytes(config, low) + logits)
    return (
        products / (on.rank_peak * device.products)
        + attention / (on.rank_peak * device.attention)
        + moved / device.bandwidth
    )


def _memory(
    recipe: Recipe, config: ModelConfig, part: PhasePlan, on: Hardware, shards: int
) -> Memory:
    """On one rank, weights, gradients and optimizer state spread over ``shards`` ranks."""
    parameters, hidden = config.num_parameters(), _hidden_parameters(config)
    tokens = part.micro_rows * part.phase.context
    embedding = config.vocab_size * config.n_embd
    # Autocast keeps a low copy of every matrix; sharded, only what is gathered stands:
    # the embedding, one block and the one that is fetched ahead.
    copied = embedding + (2 * hidden // config.n_layer if shards > 1 else hidden)
    low = _low_bytes(recipe, on.device)
    kept = activation_bytes(config, low)
    if recipe.hardware.activation_checkpointing:  # Inputs of all blocks, the rest of one.
        kept = kept // config.n_layer + config.n_layer * _FLOAT32 * config.n_embd
    chunk = LOGITS_CHUNK[on.kind] * config.vocab_size * (2 * low + _SOFTMAX_BYTES)
    return Memory(
        weights=_FLOAT32 * parameters // shards + (low * copied if low < _FLOAT32 else 0),
        gradients=_FLOAT32 * parameters // shards,
        optimizer=_optimizer_bytes(recipe, config) // shards,
        activations=tokens * (kept + 2 * _FLOAT32 * config.n_embd),
        logits=chunk + _FLOAT32 * embedding,
    )


def _hidden_matrices(config: ModelConfig) -> list[tuple[int, int]]:
    """Rows and columns of the maps between hidden states; Q is one, K and V are others."""
    width, inner, kv = config.n_embd, config.n_inner, config.kv_dim
    one = [(width, width), (kv, width), (kv, width), (width, width), (inner, width), (width, inner)]
    return config.n_layer * one


def _hidden_parameters(config: ModelConfig) -> int:
    return sum(rows * columns for rows, columns in _hidden_matrices(config))


def _muon_flops(config: ModelConfig) -> int:
    """FLOPs of orthogonalizing every hidden matrix once."""
    total = 0
    for shape in _hidden_matrices(config):
        short, long = sorted(shape)
        total += _NEWTON_SCHULZ_STEPS * (4 * short * short * long + 2 * short**3)
    return total


def _optimizer_bytes(recipe: Recipe, config: ModelConfig) -> int:
    """AdamW keeps two moments, Muon one; averaged weights are as many again."""
    moments = 2 * config.num_parameters()
    if recipe.optimizer.kind == "muon":
        moments -= _hidden_parameters(config)
    average = config.num_parameters() if recipe.optimizer.ema else 0
    return _FLOAT32 * (moments + average)


def _update_bytes(recipe: Recipe, config: ModelConfig) -> int:
    """Bytes that one optimizer step reads and writes: weights, gradients, moments."""
    return 3 * _FLOAT32 * config.num_parameters() + 2 * _optimizer_bytes(recipe, config)
