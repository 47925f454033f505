"""Where a run's ranks are, and how a model stands on them: one process, DDP or FSDP2.

    tinystarcoder train RECIPE                                            one process
    torchrun --nproc-per-node 8 --no-python tinystarcoder train RECIPE    a rank a GPU

Every rank runs the same program over its own rows. With DDP each holds all weights
and gradients are averaged; with FSDP2 (``fully_shard``) each holds its rows of every
parameter, of the gradient and of the optimizer's state, and a block's weights stand
whole only while it computes. A tensor that is sharded is a DTensor; the functions at
the end are the only ones that look into it.

What it gives up: one dimension of ranks. No tensor or pipeline parallelism, no hybrid
sharding: 15B at 8k fits in 16 GPUs without. Under FSDP2 in bfloat16 the residual stream
is bfloat16 too.
"""

import atexit
import os
import signal
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from ..errors import TrainingError
from ..model.gpt_bigcode import GPTBigCode
from .loss import CausalLoss

# Tokenizing a source, or a checkpoint on a slow disk, may keep the others waiting.
_TIMEOUT = timedelta(minutes=30)

# From so many parameters on `auto` shards: 16 bytes each with gradient and moments.
_SHARDED_FROM = 2_000_000_000

Parallel = Literal["one", "ddp", "fsdp"]


@dataclass(frozen=True)
class World:
    """All ranks of a run, and this one's place and device."""

    rank: int = 0
    size: int = 1
    device: torch.device = torch.device("cpu")  # noqa: RUF009  # Immutable.

    @classmethod
    def join(cls) -> "World":
        """The world that torchrun describes in the environment, or this process alone."""
        local = int(os.environ.get("LOCAL_RANK", "0"))
        device = torch.device("cpu")
        if torch.cuda.is_available():
            device = torch.device("cuda", local)
            torch.cuda.set_device(device)
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return cls(device=device)
        if not dist.is_initialized():
            dist.init_process_group(_backend(device), timeout=_TIMEOUT)
            atexit.register(dist.destroy_process_group)
        return cls(dist.get_rank(), dist.get_world_size(), device)

    @property
    def leads(self) -> bool:
        """Whether this rank writes what is written once."""
        return self.rank == 0

    def sum(self, *values: float) -> list[float]:
        """Each value summed over all ranks, in float64."""
        if self.size == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return total.tolist()

    def any(self, value: bool) -> bool:
        """Whether it is true on any rank."""
        return self.sum(value)[0] > 0

    def wait(self) -> None:
        """Returns when all ranks have come here."""
        self.sum(0)

    @contextmanager
    def lost_ranks(self) -> Iterator[None]:
        """Turns what a collective says when another rank has died into one clear error.

        From then on SIGTERM is ignored: torchrun sends it to the ranks that are left, and
        the error must be told before they end.
        """
        try:
            yield
        except RuntimeError as error:
            # A rank's own failure, e.g. no memory, must stay what it is.
            text = str(error).lower()
            if self.size == 1 or not any(word in text for word in ("gloo", "nccl", "connection")):
                raise
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
            raise TrainingError(
                f"rank {self.rank} of {self.size} lost another rank, whose own message tells "
                "why; start again, and the run goes on from its last checkpoint"
            ) from error


def _backend(device: torch.device) -> str:
    return "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"


def choose_parallel(asked: str, model: GPTBigCode, world: World) -> Parallel:
    """How the model stands on the ranks, where the recipe leaves it open too."""
    if world.size == 1:
        return "one"
    if asked == "fsdp" or (asked == "auto" and model.config.num_parameters() >= _SHARDED_FROM):
        return "fsdp"
    return "ddp"


def place(
    compute: CausalLoss,
    weights: Iterable[tuple[str, Tensor]],
    world: World,
    parallel: Parallel,
) -> nn.Module:
    """Gives a model without memory (on the meta device) its own and its weights.

    ``weights`` are whole and come one at a time, on every rank the same. Returns what
    is to be called: ``compute``, or what wraps it.
    """
    if parallel == "fsdp":
        _shard(compute, world)
    compute.to_empty(device=world.device)
    fill(compute.model, weights)
    if parallel == "ddp":
        devices = [world.device] if world.device.type == "cuda" else None
        return DistributedDataParallel(compute, device_ids=devices, gradient_as_bucket_view=True)
    return compute


def _shard(compute: CausalLoss, world: World) -> None:
    """FSDP2: each block is one group, all else another that stays whole through a step."""
    mesh = init_device_mesh(world.device.type, (world.size,))
    low = compute.dtype if compute.dtype != torch.float32 else None
    # Weights are gathered in low precision, gradients are summed in float32.
    policy = MixedPrecisionPolicy(param_dtype=low, reduce_dtype=torch.float32)
    for block in compute.model.transformer.h:
        fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(compute, mesh=mesh, mp_policy=policy)


def unsynchronized(compute: nn.Module) -> AbstractContextManager[None]:
    """For all but the last micro-batch: DDP then averages gradients once a step.

    FSDP2 sums each micro-batch's, or it would hold whole gradients.
    """
    if isinstance(compute, DistributedDataParallel):
        context: AbstractContextManager[None] = compute.no_sync()
        return context
    return nullcontext()


def reshard(compute: nn.Module) -> None:
    """After a forward pass without a backward one, FSDP2's parameters stand whole still."""
    if isinstance(compute, FSDPModule):
        compute.reshard()


@torch.no_grad()
def fill(model: nn.Module, tensors: Iterable[tuple[str, Tensor]]) -> None:
    """Puts whole tensors into a model's parameters; of a sharded one, each rank its rows."""
    parameters = dict(model.named_parameters())
    for name, tensor in tensors:
        local(parameters[name]).copy_(own_rows(tensor, parameters[name]))


def local(tensor: Tensor) -> Tensor:
    """What this rank holds of it, sharing its memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """All of it. Every rank must ask at the same time."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def own_rows(tensor: Tensor, like: Tensor) -> Tensor:
    """Of a whole tensor, the rows that this rank holds of ``like``."""
    if not isinstance(like, DTensor):
        return tensor
    mesh = like.device_mesh
    chunks = tensor.chunk(mesh.size())
    rank = mesh.get_local_rank()
    return chunks[rank] if rank < len(chunks) else tensor[:0]


def gather(tensors: Sequence[Tensor], count: int, world: World) -> list[Tensor]:
    """All ranks' tensors of one shape: those of rank r are number r, r + n, … of ``count``."""
    if world.size == 1:
        return list(tensors)
    share = -(-count // world.size)
    mine = torch.stack([*tensors, *[tensors[0]] * (share - len(tensors))])
    parts = [torch.empty_like(mine) for _ in range(world.size)]
    dist.all_gather(parts, mine)
    return [parts[i % world.size][i // world.size] for i in range(count)]
