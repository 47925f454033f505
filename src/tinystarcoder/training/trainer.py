"""The loop: batches in, steps out, checkpoints that a killed run goes on from.

On a CPU the same recipe, data and thread count give the same weights bit for
bit, whether the run went through or was killed and resumed: rows are pure
functions of the seed, and a checkpoint holds all state that a step changes.
Another number of ranks sees the same batches, and the same losses but for
rounding.

What stops a run, and what is left of it: SIGTERM or Ctrl-C, after the step, with a
checkpoint; a full disk, a loss that is not finite, gradients that explode again and
again, or a lost rank, with the last checkpoint and a message. A single step whose
gradient is far above the last ones' is left out, since one bad batch can undo
thousands of steps.
"""

import math
import signal
import time
from collections.abc import Iterator
from contextlib import closing, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import TrainingError
from ..model.gpt_bigcode import Block, GPTBigCode
from ..tokenizer import Tokenizer
from . import checkpoint, validation
from .checkpoint import Progress
from .dataloader import Batch, Dataloader, Mixture, prefetch
from .distributed import World, choose_parallel, place, unsynchronized
from .guards import NORMS, held_signals, spikes_in_a_row
from .hardware import dtype_for, keep_freed_memory, peak_flops
from .loss import IGNORED, CausalLoss
from .optimizer import WeightAverage, build_optimizers, clip_gradients, set_lr
from .plan import attention_flops, product_flops
from .recipe import Phase, Recipe
from .reward import Reward
from .run_log import RunLog
from .run_setup import check_resumed, check_run, open_sources, weights_to_begin


class Trainer:
    """One run of a recipe into ``output``, begun or gone on with.

    ``stopped_by`` is the signal that came during :meth:`run`, if one did. It ended the run
    after the step at hand, or came when the last one was done.
    """

    def __init__(self, recipe: Recipe, output: Path) -> None:
        self.recipe, self.output = recipe, output
        self.stopped_by: int | None = None
        # Of the code that runs, whatever becomes of its files meanwhile.
        self._versions = checkpoint.versions()
        self._total_tokens = recipe.total_tokens()
        if recipe.hardware.threads:
            torch.set_num_threads(recipe.hardware.threads)
        self.world = World.join()
        self.dtype = dtype_for(recipe.hardware.precision, self.world.device)
        self.tokenizer = Tokenizer.from_folder(Path(recipe.data.tokenizer))
        with self.world.lost_ranks():
            self._begin()

    def _begin(self) -> None:
        """Opens the data, builds the model, and goes on from a checkpoint if there is one."""
        recipe, output = self.recipe, self.output
        self.train, self.validation = open_sources(recipe, output, self.tokenizer, self.world)
        check_run(recipe, self.tokenizer, [*self.train, *self.validation], self.world)
        weights = [source.weight for source in recipe.data.sources]
        self.loader = Dataloader(
            Mixture(self.train, weights),
            self.tokenizer,
            recipe.data,
            recipe.seed,
            rank=self.world.rank,
            ranks=self.world.size,
        )
        self._build()
        self.progress = Progress()
        self.log = RunLog(output, recipe.name, recipe.schedule.steps, silent=not self.world.leads)
        self._resume()

    def run(self) -> Path:
        """Trains to the recipe's last step, or a signal; returns the last checkpoint's folder."""
        if self.world.device.type == "cpu":
            keep_freed_memory()
        peak_flops(str(self.world.device), self.dtype)  # Measured before anything else computes.
        saved: Path | None = None
        with (
            self.log,
            self.world.lost_ranks(),
            held_signals() as caught,
            closing(prefetch(self._batches())) as batches,
        ):
            self._began = time.perf_counter()
            for phase, batch in batches:
                record = self._step(batch, phase)
                stop = self.world.any(bool(caught))
                if self.validation and self._due(self.recipe.validation.every):
                    record |= self._validate(phase)
                self.log.write(record)
                saved = self._save() if stop or self._save_due() else saved
                if stop:
                    self.stopped_by = caught[0] if caught else signal.SIGTERM
                    break
                self._began = time.perf_counter()
        # After the last look, while the last checkpoint was written: whoever goes on must know.
        if caught:
            self.stopped_by = caught[0]
        return saved or checkpoint.steps_in(self.output)[-1]

    def _build(self) -> None:
        """Model, optimizers and average; their memory is taken where each rank holds it."""
        recipe, world = self.recipe, self.world
        with torch.device("meta"):
            self.model = GPTBigCode(recipe.model_config())
        loss = CausalLoss(self.model, self.dtype, compiled=recipe.hardware.compile)
        for block in self.model.transformer.h:
            assert isinstance(block, Block)
            block.recompute = recipe.hardware.activation_checkpointing
            if recipe.hardware.compile:
                # Blocks alone: one graph serves every layer, and the embedding's backward pass
                # stays eager, whose sums do not depend on which thread comes first.
                block.compile(dynamic=False)
        parallel = choose_parallel(recipe.hardware.parallel, self.model, world)
        if parallel == "fsdp" and recipe.reward.weight:
            raise TrainingError(
                "reward.weight: only a model that stands whole on each rank writes text "
                "while it trains; set hardware.parallel to 'ddp', or the weight to 0"
            )
        self.compute = place(loss, weights_to_begin(recipe, self.model), world, parallel)
        self.optimizers = self._build_optimizers()
        self.reward = Reward(self.model, self.tokenizer, recipe.reward, recipe.seed)
        ema = recipe.optimizer.ema
        self.average = WeightAverage(self.model, ema) if ema else None
        self._tensors = checkpoint.resume_tensors(self.model, self.optimizers, self.average)

    def _build_optimizers(self) -> list[torch.optim.Optimizer]:
        return build_optimizers(self.model, self.recipe.optimizer, self.world)

    def _batches(self) -> Iterator[tuple[Phase, Batch]]:
        """One batch a step, from where the run stands to the recipe's end."""
        recipe, current, cursor = self.recipe, None, self.progress.cursor
        batches: Iterator[Batch] = iter(())
        for step in range(self.progress.step, recipe.schedule.steps):
            phase = recipe.phase_at(step)
            if phase != current:
                batches, current = self.loader.batches(cursor, phase.context, phase.rows), phase
            batch = next(batches)
            cursor = batch.cursor
            yield phase, batch

    def _step(self, batch: Batch, phase: Phase) -> dict[str, Any]:
        """One optimizer step; returns what the log says of it, the wait for its batch counted."""
        before, device = self.progress, self.world.device
        factor = self.recipe.schedule.factor(before.step)
        set_lr(self.optimizers, factor)
        counted, size = self.world.sum(int((batch.targets != IGNORED).sum()), batch.bytes)
        rewarded = self._reward(batch) if self.reward.due(before.step) else {}
        loss = self._accumulate(batch, phase, int(counted))
        norm = clip_gradients(self.model, self.recipe.optimizer.clip)
        spikes = spikes_in_a_row(before, loss, norm, self.recipe.optimizer.spike)
        taken = spikes != 1
        for optimizer in self.optimizers:
            if taken:
                optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if self.average and taken:
            self.average.update(before.step)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds = time.perf_counter() - self._began
        self.progress = replace(
            before,
            step=before.step + 1,
            tokens=before.tokens + phase.rows * phase.context,
            seconds=before.seconds + seconds,
            cursor=batch.cursor,
            norms=before.norms if spikes else (*before.norms, norm)[-NORMS:],
            spikes=spikes,
            validation=None,
        )
        return {
            "step": self.progress.step,
            "tokens": self.progress.tokens,
            "seconds": round(self.progress.seconds, 2),
            "loss": loss,
            **({"bits_per_byte": loss * counted / math.log(2) / size} if size else {}),
            "grad_norm": norm,
            **rewarded,
            **({} if taken else {"skipped": True}),
            "lr_factor": factor,
            **self._speed(batch, phase, seconds),
        }

    def _accumulate(self, batch: Batch, phase: Phase, counted: int) -> float:
        """Gradients of the step's mean loss, a few rows at a time; returns the loss in nats.

        ``counted`` are the targets of all ranks.
        """
        world, size = self.world, phase.micro_rows or phase.rows
        if self.recipe.model.dropout:  # What is dropped is a function of the step, as rows are.
            torch.manual_seed(hash((self.recipe.seed, self.progress.step, world.rank)))
        total = torch.zeros((), dtype=torch.float64, device=world.device)
        first = self._first_position(phase)
        starts = range(0, len(batch.inputs), size)
        for start in starts:
            part = slice(start, start + size)
            share = int((batch.targets[part] != IGNORED).sum()) / counted
            documents = self._tensor(batch.documents[part])
            masked = documents if self.recipe.data.document_mask else None
            last = start == starts[-1]
            with nullcontext() if last else unsynchronized(self.compute):
                inputs, targets = (
                    self._tensor(batch.inputs[part]),
                    self._tensor(batch.targets[part]),
                )
                loss = self.compute(inputs, targets, masked, first) * share
                # DDP and FSDP2 average over ranks what is to be summed.
                (loss * world.size).backward()
            total += loss.detach()
        return world.sum(float(total))[0]

    def _first_position(self, phase: Phase) -> int:
        """Where the step's rows stand: a function of the seed and the step, on every rank."""
        draws = np.random.default_rng((self.recipe.seed, self.progress.step))
        if draws.random() >= self.recipe.data.shift_rate:
            return 0
        return int(draws.integers(self.model.config.n_positions - phase.context, endpoint=True))

    def _reward(self, batch: Batch) -> dict[str, float]:
        """Gradients towards texts that are Python; returns what the log says of them.

        Before those of the batch, whose last part is what sums up gradients over ranks.
        """
        world = self.world
        numbers = range(world.rank, world.size * len(batch.inputs), world.size)
        prompts = self.reward.prompts(batch.inputs, self.progress.step, numbers)
        (total,) = world.sum(len(prompts))
        if not total:
            return {}
        share = len(prompts) / total
        mixed = torch.autocast(world.device.type, self.dtype, enabled=self.dtype != torch.float32)
        with unsynchronized(self.compute), mixed:
            means = self.reward.backward(prompts, share * world.size)
        summed = world.sum(*(mean * share for mean in means.values()))
        return {name: round(value, 4) for name, value in zip(means, summed, strict=True)}

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(array).to(self.world.device, non_blocking=True)

    def _speed(self, batch: Batch, phase: Phase, seconds: float) -> dict[str, float]:
        """What the log says of a step's speed. MFU counts what is computed, on all ranks."""
        config, context, done = self.model.config, float(phase.context), self.progress
        tokens = phase.rows * phase.context
        if self.recipe.data.document_mask:  # Masked, a token sees less of its row.
            lengths = np.concatenate([np.bincount(row) for row in batch.documents])
            context = float((lengths**2).sum() / lengths.sum())
        flops = tokens * (product_flops(config) + attention_flops(config, 1) * context)
        peak = self.world.size * peak_flops(str(self.world.device), self.dtype)
        left = (self._total_tokens - done.tokens) * done.seconds / done.tokens
        return {
            "tokens_per_second": round(tokens / seconds, 1),
            "mfu": round(flops / seconds / peak, 4),
            "seconds_left": round(left),
        }

    def _due(self, every: int) -> bool:
        step = self.progress.step
        return bool(every) and (step % every == 0 or step == self.recipe.schedule.steps)

    def _save_due(self) -> bool:
        recipe, progress = self.recipe.checkpoint, self.progress
        is_best = progress.validation is not None and progress.validation == progress.best
        asked = progress.step in (*recipe.milestones, self.recipe.schedule.steps)
        # Unasked, no weights that a spike may have harmed take the place of good ones.
        return asked or (
            not progress.spikes and (self._due(recipe.every) or (recipe.keep_best and is_best))
        )

    def bits_per_byte(self, context: int, *, middles: bool = False) -> dict[str, float]:
        """Of the weights that would be saved, on the first validation tokens.

        As :func:`tinystarcoder.training.validation.bits_per_byte` has it, in windows of
        ``context`` tokens; every rank has to call it. Raises TrainingError for a recipe
        without validation data.
        """
        if not self.validation:
            raise TrainingError("nothing to validate on: set data.validation to token shards")
        with self.average.in_place() if self.average else nullcontext():
            return validation.bits_per_byte(
                self.compute,
                self.validation[0],
                self.tokenizer,
                context,
                self.recipe.validation.tokens,
                self.world,
                middles=middles,
            )

    def _validate(self, phase: Phase) -> dict[str, float]:
        context = min(phase.context, 1024)
        found = self.bits_per_byte(context, middles=bool(self.recipe.data.fim_rate))
        loss = found["validation_bits_per_byte"]
        # Losses over windows of another length are no ones to compare with.
        before = self.progress.best if self.progress.validation_context == context else None
        best = loss if before is None else min(loss, before)
        self.progress = replace(
            self.progress, validation=loss, best=best, validation_context=context
        )
        return found

    def facts(self) -> dict[str, Any]:
        """What is told with the weights of where they come from, ready for JSON."""
        return {
            "recipe": self.recipe.to_dict(),
            "data": [shards.fingerprint for shards in self.train],
            "versions": self._versions,
        }

    def _save(self) -> Path:
        with self.average.in_place() if self.average else nullcontext():
            folder = checkpoint.save_step(
                self.output,
                self.progress,
                self.model,
                self._tensors,
                self.tokenizer,
                {**self.facts(), "ranks": self.world.size},
                self.world,
            )
        if self.world.leads:
            checkpoint.prune(self.output, self.recipe.checkpoint)
        return folder

    def _resume(self) -> None:
        """Goes on from the newest checkpoint, if there is one of this recipe."""
        if self.world.leads:
            self.output.mkdir(parents=True, exist_ok=True)
            checkpoint.remove_remains(self.output)
        self.world.wait()
        found = checkpoint.steps_in(self.output)
        if found:
            self.progress, state = checkpoint.read_state(found[-1])
            check_resumed(found[-1], state, self.recipe, self.tokenizer, self.train)
            checkpoint.load_step(found[-1], self.model, self._tensors, self.average, self.world)
        self.log.cut(self.progress.step)
