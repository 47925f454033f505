"""The loop: batches in, steps out, checkpoints that a killed run goes on from.

On a CPU the same recipe, data and thread count give the same weights bit for
bit, whether the run went through or was killed and resumed: rows are pure
functions of the seed, and a checkpoint holds all state that a step changes.
One process here; ``torchrun`` is not supported yet.
"""

import json
import math
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as ProgressBar
from torch import Tensor

from .. import files
from ..corpus import token_shards
from ..corpus.document import Document
from ..corpus.sources import open_package
from ..corpus.token_shards import TokenShards
from ..errors import TrainingError
from ..model.checkpoint import Checkpoint
from ..model.gpt_bigcode import GPTBigCode
from ..tokenizer import Tokenizer
from . import checkpoint, validation
from .checkpoint import Progress
from .dataloader import Batch, Dataloader
from .loss import IGNORED, linear_cross_entropy
from .optimizer import build_optimizers, clip_gradients, set_lr
from .recipe import Phase, Recipe
from .schedule import lr_factor

LOG = "log.jsonl"


class Trainer:
    """One run of a recipe into ``output``, begun or gone on with."""

    def __init__(self, recipe: Recipe, output: Path) -> None:
        self.recipe, self.output = recipe, output
        if recipe.hardware.threads:
            torch.set_num_threads(recipe.hardware.threads)
        self.dtype = _dtype(recipe.hardware.precision)
        self.tokenizer = Tokenizer.from_folder(Path(recipe.data.tokenizer))
        shards = self._shards("train", recipe.data.train)
        self.loader = Dataloader(shards, self.tokenizer, recipe.data, recipe.seed)
        held_out = recipe.data.validation
        self.validation = self._shards("validation", held_out) if held_out else None
        self.model = GPTBigCode(recipe.model_config())
        _check_vocabulary(self.model, self.tokenizer, shards)
        self._begin_weights()
        self.optimizers = build_optimizers(self.model, recipe.optimizer)
        self.progress = Progress()
        self._resume()
        if recipe.hardware.compile:
            # Blocks alone: one graph serves every layer, and the embedding's backward pass
            # stays eager, whose sums do not depend on which thread comes first.
            for block in self.model.transformer.h:
                block.compile(dynamic=False)

    def run(self) -> Path:
        """Trains to the recipe's last step; returns the last checkpoint's folder."""
        recipe, steps = self.recipe, self.recipe.schedule.steps
        saved: Path | None = None
        with _progress_bar() as bar:
            task = bar.add_task(recipe.name, total=steps, completed=self.progress.step, status="")
            for phase, batch in self._batches():
                record = self._step(batch, phase)
                done = self.progress.step
                if self._due(recipe.validation.every) and self.validation is not None:
                    record["validation_bits_per_byte"] = self._validate(phase)
                self._log(record)
                bar.update(task, completed=done, status=_status(record))
                if self._due(recipe.checkpoint.every) or done == steps:
                    saved = self._save()
        return saved or checkpoint.steps_in(self.output)[-1]

    def _batches(self) -> Iterator[tuple[Phase, Batch]]:
        """One batch a step, from where the run stands to the recipe's end."""
        recipe, current = self.recipe, None
        batches: Iterator[Batch] = iter(())
        for step in range(self.progress.step, recipe.schedule.steps):
            phase = recipe.phase_at(step)
            if phase != current:
                # The present block's rows were planned for the phase before.
                if step and recipe.phase_at(step - 1) != phase:
                    self.loader.skip_block()
                batches, current = self.loader.batches(phase.context, phase.rows), phase
            yield phase, next(batches)

    def _due(self, every: int) -> bool:
        step = self.progress.step
        return bool(every) and (step % every == 0 or step == self.recipe.schedule.steps)

    def _step(self, batch: Batch, phase: Phase) -> dict[str, Any]:
        """One optimizer step; returns what the log says of it."""
        began = time.perf_counter()
        schedule, step = self.recipe.schedule, self.progress.step
        factor = lr_factor(
            step,
            schedule.steps,
            shape=schedule.shape,
            warmup=schedule.warmup,
            floor=schedule.floor,
            decay=schedule.decay,
        )
        set_lr(self.optimizers, factor)
        loss = self._accumulate(batch, phase)
        norm = clip_gradients(self.model, self.recipe.optimizer.clip)
        if not math.isfinite(loss) or not math.isfinite(norm):
            raise TrainingError(
                f"step {step}: loss {loss}, gradient norm {norm}; lower the learning rate and "
                f"start again from the last checkpoint in {self.output}"
            )
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        seconds = time.perf_counter() - began
        tokens = phase.rows * phase.context
        self.progress = Progress(
            step + 1,
            self.progress.tokens + tokens,
            self.progress.seconds + seconds,
            self.loader.cursor,
        )
        return {
            "step": step + 1,
            "tokens": self.progress.tokens,
            "seconds": round(self.progress.seconds, 2),
            "loss": loss,
            "grad_norm": norm,
            "lr_factor": factor,
            "tokens_per_second": round(tokens / seconds, 1),
        }

    def _accumulate(self, batch: Batch, phase: Phase) -> float:
        """Gradients of the batch's mean loss, a few rows at a time; returns the loss in nats."""
        inputs, targets = (torch.from_numpy(part) for part in batch)
        counted = int((targets != IGNORED).sum())
        total = 0.0
        size = phase.micro_rows or phase.rows
        for rows, wanted in zip(torch.split(inputs, size), torch.split(targets, size), strict=True):
            share = int((wanted != IGNORED).sum()) / counted
            loss = self._loss(rows, wanted) * share
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        return total

    def _loss(self, inputs: Tensor, targets: Tensor) -> Tensor:
        with self._autocast():
            hidden = self.model.transformer(inputs)
        return linear_cross_entropy(
            hidden.flatten(0, 1),
            self.model.transformer.wte.weight,
            targets.flatten(),
            self.dtype,
            compiled=self.recipe.hardware.compile,
        )

    def _autocast(self) -> Any:
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast("cpu", self.dtype)

    def _validate(self, phase: Phase) -> float:
        assert self.validation is not None
        return validation.bits_per_byte(
            self.model,
            self.validation,
            self.tokenizer,
            min(phase.context, 1024),
            self.recipe.validation.tokens,
            self.dtype,
        )

    def _save(self) -> Path:
        folder = checkpoint.save_step(
            self.output,
            self.progress,
            self.model,
            self.optimizers,
            self.tokenizer,
            self.recipe.to_dict(),
        )
        checkpoint.keep_newest(self.output, self.recipe.checkpoint.keep)
        return folder

    def _shards(self, name: str, source: str) -> TokenShards:
        """Token shards as they are; a source of Python files is tokenized once, into the run."""
        path, built = Path(source), self.output / "data" / name
        if (path / token_shards.INDEX).exists():
            return TokenShards.open(path)
        if built.exists():
            return TokenShards.open(built)
        return token_shards.build_token_shards(_documents(path), self.tokenizer, built)

    def _begin_weights(self) -> None:
        """Draws the weights, or takes those of the recipe's checkpoint."""
        begin = self.recipe.model
        if not begin.weights:
            self.model.initialize(
                self.recipe.seed, std=begin.init_std, zero_output=begin.zero_output
            )
            return
        stored = Checkpoint.open(begin.weights)
        if stored.config.shapes() != self.model.config.shapes():
            raise TrainingError(
                f"{begin.weights}: another architecture than the recipe's [model]; "
                "set model.preset and model.overrides to those of its config.json"
            )
        self.model.load_arrays({name: stored.tensor(name).copy() for name in stored.names})

    def _resume(self) -> None:
        """Goes on from the newest checkpoint, if there is one of this recipe."""
        self.output.mkdir(parents=True, exist_ok=True)
        found = checkpoint.steps_in(self.output)
        if found:
            progress, trained_by = checkpoint.read_state(found[-1])
            _check_same_recipe(found[-1], trained_by, self.recipe.to_dict())
            checkpoint.load_step(found[-1], self.model, self.optimizers)
            self.progress, self.loader.cursor = progress, progress.cursor
        _truncate_log(self.output / LOG, self.progress.step)

    def _log(self, record: dict[str, Any]) -> None:
        with (self.output / LOG).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(record) + "\n")


def _documents(source: Path) -> Iterator[Document]:
    """The Python files of one folder, wheel or sdist, as they are."""
    package = open_package(source)
    for path, text in package.files():
        if isinstance(text, str):
            yield Document(text, path, package.name, package.version, license="")


def _dtype(precision: str) -> torch.dtype:
    """bfloat16 where the processor multiplies it natively: emulated, it is many times slower."""
    native = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    if precision == "bf16" or (precision == "auto" and native):
        return torch.bfloat16
    return torch.float32


def _check_vocabulary(model: GPTBigCode, tokenizer: Tokenizer, shards: TokenShards) -> None:
    if tokenizer.vocab_size > model.config.vocab_size:
        raise TrainingError(
            f"the tokenizer has {tokenizer.vocab_size} ids, the model only "
            f"{model.config.vocab_size}: set model.overrides.vocab_size"
        )
    if shards.vocab_size != tokenizer.vocab_size:
        raise TrainingError(
            f"the token shards were written with {shards.vocab_size} ids, the tokenizer has "
            f"{tokenizer.vocab_size}: run 'tinystarcoder corpus tokenize' with this tokenizer"
        )


def _check_same_recipe(folder: Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    """A run goes on by its own recipe; its length and what it is watched by may change."""
    free = ("schedule", "checkpoint", "validation", "hardware", "phases")
    for key in new:
        if key not in free and json.loads(json.dumps(new[key])) != old.get(key):
            raise TrainingError(
                f"{folder} was trained by another recipe ([{key}] differs): "
                "choose another --output, or go on with the old recipe"
            )


def _truncate_log(path: Path, step: int) -> None:
    """Forgets what the log says of steps that the checkpoint has not seen."""
    if not path.exists():
        return
    lines = path.read_text(encoding="utf-8").splitlines()
    kept = []
    for line in lines:
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except (ValueError, KeyError):  # The line that was being written when the run was killed.
            continue
    files.write_atomically(path, "".join(kept).encode())


def _progress_bar() -> ProgressBar:
    return ProgressBar(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TextColumn("{task.fields[status]}"),
        TimeRemainingColumn(),
    )


def _status(record: dict[str, Any]) -> str:
    text = f"loss {record['loss']:.3f}  {record['tokens_per_second']:,.0f} tokens/s"
    if "validation_bits_per_byte" in record:
        text += f"  validation {record['validation_bits_per_byte']:.3f} bits/byte"
    return text
