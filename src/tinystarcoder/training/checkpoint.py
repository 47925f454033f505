"""What a run leaves behind: ``step-…`` folders, each a model and where to go on from.

    model.safetensors, config.json, tokenizer.json    a Hugging Face folder in float32
    resume/*.safetensors                              the optimizers' tensors, a file a rank
    resume.json                                       step, cursor, recipe, versions, commit,
                                                      and the sizes of all the other files

A folder takes its name only when all of it is on the disk, so whatever is called
``step-…`` is whole, and a run killed at any moment goes on from the newest. The model is
gathered a tensor at a time; the optimizers' tensors go through torch.distributed.checkpoint
in its safetensors form, each rank writing what it holds. Both are read in slices, so any
number of ranks, DDP or FSDP2, goes on from what any other wrote. What it gives up: ranks
on several machines need a file system in common.
"""

import json
import platform
import re
import shutil
import subprocess
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import (
    HuggingFaceStorageReader,
    HuggingFaceStorageWriter,
)
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from .. import __version__, files
from ..errors import TinyStarcoderError, TrainingError
from ..model import checkpoint
from ..model.gpt_bigcode import GPTBigCode
from ..tokenizer import Tokenizer
from .dataloader import Cursor
from .distributed import World, fill, whole
from .optimizer import WeightAverage
from .recipe import CheckpointRecipe

_NAME = re.compile(r"step-(\d{6,})")
TENSORS, STATE = "resume", "resume.json"


@dataclass(frozen=True)
class Progress:
    """How far a run has come, and what its next steps depend on."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    cursor: Cursor = field(default_factory=Cursor)
    norms: tuple[float, ...] = ()
    """Gradient norms of the last steps that were no spikes."""
    spikes: int = 0
    """Spikes in a row up to now."""
    validation: float | None = None
    """The loss on held-out documents, if measured at this step, in bits per byte."""
    best: float | None = None
    """The lowest of these so far, over windows of the last ones' length."""
    validation_context: int = 0
    """The length of those windows."""


def save_step(
    output: Path,
    progress: Progress,
    model: GPTBigCode,
    tensors: Mapping[str, Tensor],
    tokenizer: Tokenizer,
    facts: Mapping[str, Any],
    world: World,
) -> Path:
    """Writes ``output/step-NNNNNN`` with all ranks, and returns it.

    ``facts`` are what resume.json says besides. Raises TrainingError on every rank if one
    cannot write; earlier checkpoints are intact.
    """
    target = output / f"step-{progress.step:06d}"
    staging = output / f".{target.name}.tmp"

    def prepare() -> None:
        if world.leads:
            shutil.rmtree(staging, ignore_errors=True)
            staging.mkdir(parents=True)

    def finish() -> None:
        if world.leads:
            tokenizer.save(staging)
            state = {**asdict(progress), **facts, "files": _sizes(staging)}
            files.write_atomically(staging / STATE, (json.dumps(state, indent=2) + "\n").encode())
            _remove(target)
            staging.rename(target)
            files.sync_folder(output)

    try:
        _together(world, prepare)
        _together(world, lambda: _write_weights(staging, model, world))
        _together(world, lambda: _write_tensors(staging / TENSORS, tensors, world))
        _together(world, finish)
    except OSError as error:
        if world.leads:
            shutil.rmtree(staging, ignore_errors=True)
        raise TrainingError(f"{target}: not written: {error}; earlier steps are intact") from error
    return target


def _together(world: World, work: Callable[[], None]) -> None:
    """Does it on every rank. Raises OSError on all where it fails on one."""
    failure: BaseException | None = None
    try:
        work()
    except (OSError, TinyStarcoderError, CheckpointException) as error:
        failure = error
    if world.any(failure is not None):
        raise OSError(_cause(failure) if failure else "another rank failed") from failure


def _cause(error: BaseException) -> str:
    """What a checkpoint's failure says below the traces that it collects of all ranks."""
    if isinstance(error, CheckpointException) and error.failures:
        return str(next(iter(error.failures.values()))[0])
    return str(error)


def _write_weights(folder: Path, model: GPTBigCode, world: World) -> None:
    weights = dict(model.named_parameters())
    arrays = ((name, _array(whole(weights[name]))) for name in model.config.shapes())
    try:
        if world.leads:
            checkpoint.write(folder, model.config, _InOrder(arrays, weights))
    finally:  # Each takes part in gathering all, even if the leader's disk is full.
        for _ in arrays:
            pass


def _array(tensor: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = tensor.detach().float().cpu().numpy()
    return array


class _InOrder(Mapping[str, NDArray[np.float32]]):
    """Arrays made when they are asked for, which must be in the order that they come in."""

    def __init__(
        self, arrays: Iterator[tuple[str, NDArray[np.float32]]], names: Mapping[str, Any]
    ) -> None:
        self._arrays, self._names = arrays, names

    def __getitem__(self, name: str) -> NDArray[np.float32]:
        coming, array = next(self._arrays)
        if coming != name:
            raise KeyError(name)
        return array

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _write_tensors(folder: Path, tensors: Mapping[str, Tensor], world: World) -> None:
    writer = HuggingFaceStorageWriter(str(folder), save_distributed=True)
    with _no_word_of_a_single_process():
        save(dict(tensors), storage_writer=writer, no_dist=world.size == 1)
    if world.leads:
        files.sync_folder(folder)


def _no_word_of_a_single_process() -> Any:
    return warnings.catch_warnings(action="ignore", category=UserWarning)


def _sizes(folder: Path) -> dict[str, int]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in paths}


def load_step(
    folder: Path,
    model: GPTBigCode,
    tensors: Mapping[str, Tensor],
    average: WeightAverage | None,
    world: World,
) -> None:
    """Puts a checkpoint's weights, and the optimizers' ``tensors``, in place."""
    fill(model, read_weights(checkpoint.Checkpoint.open(folder)))
    path = folder / TENSORS
    try:
        with _no_word_of_a_single_process():
            reader = HuggingFaceStorageReader(str(path))
            load(dict(tensors), storage_reader=reader, no_dist=world.size == 1)
    except (OSError, ValueError, RuntimeError, SafetensorError, CheckpointException) as error:
        raise TrainingError(f"{path}: cannot resume from it: {_cause(error)}") from error
    if average:
        average.swap()


def read_weights(stored: checkpoint.Checkpoint) -> Iterator[tuple[str, Tensor]]:
    """A checkpoint's tensors, whole, one after the other."""
    for name in stored.names:
        yield name, torch.from_numpy(stored.tensor(name).copy())


def resume_tensors(
    model: GPTBigCode, optimizers: list[torch.optim.Optimizer], average: WeightAverage | None
) -> dict[str, Tensor]:
    """What a checkpoint holds besides the model, by name: the tensors themselves.

    Where weights are averaged the model is the average, and the weights are here.
    """
    names: dict[Tensor, str] = {p: name for name, p in model.named_parameters()}
    tensors = {
        # A view: safetensors' slices have at least one dimension.
        f"{number}/{names[parameter]}/{key}": value.view(1) if value.ndim == 0 else value
        for number, optimizer in enumerate(optimizers)
        for parameter, state in optimizer.state.items()
        for key, value in state.items()
    }
    if average:
        tensors |= {f"weights/{name}": value for name, value in average.tensors.items()}
    return tensors


def steps_in(output: Path) -> list[Path]:
    """The complete checkpoints of a run, oldest first."""
    if not output.is_dir():
        return []
    found = [path for path in output.iterdir() if _NAME.fullmatch(path.name)]
    return sorted(found, key=_step)


def prune(output: Path, recipe: CheckpointRecipe) -> None:
    """Removes all but the newest checkpoints, the milestones and, if kept, the best."""
    found = steps_in(output)
    kept = {*found[-recipe.keep :], *(path for path in found if _step(path) in recipe.milestones)}
    if recipe.keep_best and (best := _best(found)):
        kept.add(best)
    for path in found:
        if path not in kept:
            _remove(path)


def _best(found: list[Path]) -> Path | None:
    """The one of the lowest loss, of those measured over windows as long as the newest's."""
    measured: list[tuple[int, float, Path]] = []
    for path in found:
        with suppress(TrainingError):  # An old one that is damaged ends no run.
            progress, _ = read_state(path)
            if progress.validation is not None:
                measured.append((progress.validation_context, progress.validation, path))
    alike = [(loss, path) for context, loss, path in measured if context == measured[-1][0]]
    return min(alike)[1] if alike else None


def remove_remains(output: Path) -> None:
    """Removes what a killed run was writing or removing."""
    for path in output.glob(".step-*.tmp"):
        shutil.rmtree(path)


def _remove(folder: Path) -> None:
    """Takes the name away first: what is called ``step-…`` is whole at any moment."""
    if folder.exists():
        doomed = folder.with_name(f".{folder.name}.old.tmp")
        folder.rename(doomed)
        shutil.rmtree(doomed)


def _step(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))


def read_state(folder: Path) -> tuple[Progress, dict[str, Any]]:
    """Where the checkpoint stands, and all that its resume.json says.

    Raises TrainingError where that cannot be read, or another file is missing or cut.
    """
    path = folder / STATE
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
        found = {f.name: state[f.name] for f in fields(Progress) if f.name in state}
        found |= {"cursor": Cursor(**state["cursor"]), "norms": tuple(state["norms"])}
        sizes, progress = dict(state["files"]), Progress(**found)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(f"{path}: cannot resume from it: {error!r}") from error
    present = _sizes(folder)
    for name, size in sizes.items():
        if present.get(name) != size:
            raise TrainingError(
                f"{folder / name}: {present.get(name, 'missing,')} bytes instead of {size}: "
                "cannot resume from it; remove this checkpoint to go on from the one before"
            )
    return progress, state


def versions() -> dict[str, str | None]:
    """What a run's numbers depend on."""
    return {
        "tinystarcoder": __version__,
        "commit": commit(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
    }


@lru_cache
def commit() -> str | None:
    """The git commit of this code, ``-dirty`` where it was changed; None outside of git."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        command = ["git", "--no-optional-locks", *arguments]
        done = subprocess.run(command, cwd=here, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)
        return git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    except (OSError, subprocess.CalledProcessError):
        return None
