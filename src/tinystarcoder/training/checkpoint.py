"""What a run leaves behind: ``step-…`` folders, each a model and where to go on from.

Every one is a Hugging Face folder in float32 with, beside it, ``resume.safetensors``
(the optimizers' tensors) and ``resume.json`` (step, cursor, recipe, versions). A
folder takes its name only when all of it is on the disk, so whatever is called
``step-…`` is whole, and a run killed at any moment goes on from the newest.
"""

import json
import platform
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from .. import __version__, files
from ..errors import TrainingError
from ..model import checkpoint
from ..model.gpt_bigcode import GPTBigCode
from ..tokenizer import Tokenizer
from .dataloader import Cursor

_NAME = re.compile(r"step-(\d{6,})")
TENSORS, STATE = "resume.safetensors", "resume.json"


@dataclass(frozen=True)
class Progress:
    """How far a run has come."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    cursor: Cursor = field(default_factory=Cursor)


def save_step(
    output: Path,
    progress: Progress,
    model: GPTBigCode,
    optimizers: list[torch.optim.Optimizer],
    tokenizer: Tokenizer,
    recipe: Mapping[str, Any],
) -> Path:
    """Writes ``output/step-NNNNNN`` and returns it. Raises TrainingError, earlier ones intact."""
    target = output / f"step-{progress.step:06d}"
    staging = output / f".{target.name}.tmp"
    state = {**asdict(progress), "recipe": recipe, "versions": versions()}
    try:
        shutil.rmtree(staging, ignore_errors=True)
        checkpoint.write(staging, model.config, model.to_arrays())
        tokenizer.save(staging)
        files.write_atomically(staging / TENSORS, save(_optimizer_tensors(model, optimizers)))
        files.write_atomically(staging / STATE, (json.dumps(state, indent=2) + "\n").encode())
        if target.exists():
            shutil.rmtree(target)
        staging.rename(target)
        files.sync_folder(output)
    except OSError as error:
        shutil.rmtree(staging, ignore_errors=True)
        raise TrainingError(f"{target}: not written: {error}; earlier steps are intact") from error
    return target


def steps_in(output: Path) -> list[Path]:
    """The complete checkpoints of a run, oldest first."""
    if not output.is_dir():
        return []
    found = [path for path in output.iterdir() if _NAME.fullmatch(path.name)]
    return sorted(found, key=lambda path: int(path.name.removeprefix("step-")))


def keep_newest(output: Path, count: int) -> None:
    """Removes all but the newest ``count`` checkpoints."""
    for path in steps_in(output)[:-count]:
        shutil.rmtree(path)


def read_state(folder: Path) -> tuple[Progress, dict[str, Any]]:
    """Where the checkpoint stands, and the recipe it was trained by."""
    path = folder / STATE
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
        cursor = Cursor(**state["cursor"])
        progress = Progress(state["step"], state["tokens"], state["seconds"], cursor)
        return progress, state["recipe"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(f"{path}: cannot resume from it: {error}") from error


def load_step(folder: Path, model: GPTBigCode, optimizers: list[torch.optim.Optimizer]) -> None:
    """Puts a checkpoint's weights and optimizer state in place."""
    stored = checkpoint.Checkpoint.open(folder)
    model.load_arrays({name: stored.tensor(name).copy() for name in model.config.shapes()})
    path = folder / TENSORS
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise TrainingError(f"{path}: cannot resume from it: {error}") from error
    names: dict[Tensor, str] = {p: name for name, p in model.named_parameters()}
    for number, optimizer in enumerate(optimizers):
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                prefix = f"{number}/{names[parameter]}/"
                found = {
                    k.removeprefix(prefix): v
                    for k, v in tensors.items()
                    if k[: len(prefix)] == prefix
                }
                if not found:
                    raise TrainingError(f"{path}: holds no optimizer state of {names[parameter]}")
                optimizer.state[parameter] = found


def versions() -> dict[str, str]:
    """What a run's numbers depend on."""
    return {
        "tinystarcoder": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
    }


def _optimizer_tensors(
    model: GPTBigCode, optimizers: list[torch.optim.Optimizer]
) -> dict[str, Tensor]:
    names: dict[Tensor, str] = {p: name for name, p in model.named_parameters()}
    return {
        f"{number}/{names[parameter]}/{key}": value
        for number, optimizer in enumerate(optimizers)
        for parameter, state in optimizer.state.items()
        for key, value in state.items()
    }
