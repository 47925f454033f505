"""A checkpoint adapted to one code base: all weights, or low-rank adapters merged at the end.

    source ── files, split by name's hash ──> training and held-out token shards
    base's weights ── a recipe of a few epochs, low rates, linear to zero ──> Trainer
    held-out bits-per-byte before and after ──> a Hugging Face folder with its card

A fine-tune is an ordinary run in ``OUTPUT.partial``, so a killed one of all weights goes on
where it was, and OUTPUT appears when it is whole. What it gives up: adapters are not in a
checkpoint before they are merged, so such a run begins again; one process (for a cluster,
train a recipe with model.weights); files that resemble each other may fall on both sides of
the split, which flatters the figure.
"""

import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from ..corpus.document import Document
from ..corpus.sources import open_package
from ..corpus.token_shards import TokenShards, build_token_shards
from ..errors import MissingExtraError, TrainingError
from ..files import sync_folder, write_atomically
from ..model import checkpoint as folders
from ..model.checkpoint import Checkpoint
from ..tokenizer import Tokenizer
from .recipe import (
    CheckpointRecipe,
    DataRecipe,
    ModelRecipe,
    OptimizerRecipe,
    Phase,
    Recipe,
    ScheduleRecipe,
    ValidationRecipe,
)
from .run_log import LOG
from .trainer import Trainer

HELD_OUT = 0.1
MAX_CONTEXT = 1024

# Positions beyond the rows' length would be left behind by what else changes: docs/training.md.
SHIFT_RATE = 0.5

# A third of the rates that nano was trained with from nothing: docs/log.md.
OPTIMIZER = OptimizerRecipe(kind="muon", lr=2e-3, muon_lr=0.006)
# Adapters begin at zero and have few weights: they take, and need, higher rates.
LORA_OPTIMIZER = OptimizerRecipe(kind="adamw", lr=2e-3)
_LORA_TARGETS = ["c_attn", "c_proj", "c_fc"]

_STEPS_AN_EPOCH = 64  # At least, if there is a row for each.
_MAX_ROWS = 4

T = TypeVar("T")


@dataclass(frozen=True)
class Options:
    """``epochs`` over the source; ``lora``: the adapters' rank, 0 trains all weights."""

    epochs: float = 3.0
    lora: int = 0
    seed: int = 0


@dataclass(frozen=True)
class Result:
    """What was done. Bits-per-byte are those of the held-out files, before and after."""

    folder: Path
    training_files: int
    training_tokens: int
    held_out_files: tuple[str, ...]
    held_out_bytes: int
    before: float
    after: float


class StoppedError(TrainingError):
    """A signal ended the run before there was a model; for the shell, 128 and its number."""

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.signal = signal


def finetune(
    source: Path,
    base: Path,
    output: Path,
    options: Options,
    *,
    base_name: str | None = None,
    base_license: str | None = None,
) -> Result:
    """Adapts the checkpoint in ``base`` to a folder, wheel or sdist; writes ``output``.

    The base's name and license are for the card. Raises StoppedError after SIGTERM or
    Ctrl-C, and TrainingError where ``output`` exists, the source has no two files to tell
    apart, or a run to go on with was begun from something else.
    """
    _check_alone()
    if output.exists():
        raise TrainingError(f"{output}: exists; remove it or choose another --output")
    run = output.parent / f"{output.name}.partial"
    training, held_out = split(_documents(source), options.seed)
    _check_begun(run, base, options.seed, [*training, *held_out])
    tuner = _Tuner(prepare(base, training, held_out, run, options), run, options.lora)
    before = _once(run / "before.json", tuner.held_out)
    tuner.run()
    if tuner.stopped_by is not None:
        again = "begins again: adapters are not kept" if options.lora else "goes on"
        message = f"{output}: stopped before the end; the same command {again}"
        raise StoppedError(message, tuner.stopped_by)
    result = Result(
        folder=output,
        training_files=len(training),
        training_tokens=tuner.progress.tokens,
        held_out_files=tuple(document.path for document in held_out),
        held_out_bytes=sum(len(document.text.encode()) for document in held_out),
        before=before,
        after=tuner.held_out(),
    )
    named = {"folder": output.name, "source": source.name, "base": base_name or base.name}
    facts = {**asdict(result), **asdict(options), **named, **tuner.facts()}
    card = _card(named["base"], source, result, options, base_license)
    _write(tuner, output, facts, card)
    return result


def split(documents: Sequence[Document], seed: int) -> tuple[list[Document], list[Document]]:
    """Training and held-out documents: whole files, by a hash of seed and path.

    About HELD_OUT of the bytes are held out, at least one file. Copies count once.
    Raises TrainingError with fewer than two different files.
    """
    unique = list({document.text: document for document in documents}.values())
    if len(unique) < 2:
        raise TrainingError(
            f"{len(unique)} different Python files with text in the source: "
            "at least two are needed, one to train on and one to hold out"
        )

    def draw(document: Document) -> str:
        return hashlib.sha256(f"{seed}/{document.path}".encode()).hexdigest()

    room = HELD_OUT * sum(len(document.text) for document in unique)
    chosen: list[Document] = []
    for document in sorted(unique, key=draw):
        if len(document.text) <= room:
            chosen.append(document)
            room -= len(document.text)
    chosen = chosen or [min(unique, key=lambda document: len(document.text))]
    return [document for document in unique if document not in chosen], chosen


def prepare(
    base: Path,
    training: Sequence[Document],
    held_out: Sequence[Document],
    run: Path,
    options: Options,
) -> Recipe:
    """The run's recipe; tokens are written to ``run/tokens``, or taken if they are there."""
    tokenizer, config = Tokenizer.from_folder(base), Checkpoint.open(base).config
    shards = {}
    for name, documents in (("train", training), ("held-out", held_out)):
        path = run / "tokens" / name
        if not path.exists():
            build_token_shards(documents, tokenizer, path)
        shards[name] = TokenShards.open(path)
    tokens = shards["train"].num_tokens
    context = min(config.n_positions, MAX_CONTEXT)
    rows = min(max(tokens // (_STEPS_AN_EPOCH * context), 1), _MAX_ROWS)
    steps = max(math.ceil(options.epochs * tokens / (rows * context)), 1)
    return Recipe(
        name=f"finetune-{base.name}",
        seed=options.seed,
        model=ModelRecipe(weights=str(base), overrides=asdict(config)),
        data=DataRecipe(
            tokenizer=str(base),
            train=str(shards["train"].folder),
            validation=str(shards["held-out"].folder),
            fim_rate=0.5 if tokenizer.fim else 0.0,
            shift_rate=SHIFT_RATE,
        ),
        optimizer=LORA_OPTIMIZER if options.lora else OPTIMIZER,
        schedule=ScheduleRecipe(steps=steps, shape="linear", warmup=min(10, steps // 10)),
        phases=[Phase(until=1.0, context=context, rows=rows)],
        validation=ValidationRecipe(every=0, tokens=1 << 40),
        checkpoint=CheckpointRecipe(every=max(steps // 4, 1), keep=1),
    )


class _Tuner(Trainer):
    """A run of a fine-tune's recipe, with adapters of rank ``lora`` or without (0)."""

    def __init__(self, recipe: Recipe, output: Path, lora: int) -> None:
        self._lora = lora
        super().__init__(recipe, output)

    def held_out(self) -> float:
        """Bits per byte of the held-out files, left to right."""
        return self._validate(self.recipe.phases[0])["validation_bits_per_byte"]

    def export(self, folder: Path) -> None:
        """Writes the model as a Hugging Face folder in float32."""
        if self._lora:
            _merge(self.model)
        folders.write(folder, self.model.config, self.model.to_arrays())
        self.tokenizer.save(folder)

    def _build_optimizers(self) -> list[torch.optim.Optimizer]:
        if not self._lora:
            return super()._build_optimizers()
        torch.manual_seed(self.recipe.seed)
        _inject(self.model, self._lora)
        trained = [weight for weight in self.model.parameters() if weight.requires_grad]
        recipe = self.recipe.optimizer
        betas = (recipe.beta1, recipe.beta2)
        optimizer = torch.optim.AdamW(trained, recipe.lr, betas, weight_decay=0.0)
        optimizer.param_groups[0]["initial_lr"] = recipe.lr
        return [optimizer]

    def _save(self) -> Path:
        # The names of a model with adapters are no checkpoint's.
        return self.output if self._lora else super()._save()


def _inject(model: torch.nn.Module, rank: int) -> None:
    """Puts an adapter beside every matrix of the blocks; only they get gradients."""
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ModuleNotFoundError as error:
        raise MissingExtraError("finetune --lora", "lora") from error
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=_LORA_TARGETS)
    inject_adapter_in_model(config, model)


def _merge(model: torch.nn.Module) -> None:
    """Adds each adapter's product to its matrix, which takes its own place again."""
    from peft.tuners.lora import LoraLayer

    for name, module in list(model.named_modules()):
        if isinstance(module, LoraLayer):
            module.merge()
            model.set_submodule(name, module.get_base_layer())


def _documents(source: Path) -> list[Document]:
    package = open_package(source)
    return [
        Document(text, path, package.name, package.version, license="")
        for path, text in package.files()
        if isinstance(text, str) and text.strip()
    ]


def _check_alone() -> None:
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise TrainingError(
            "a fine-tune is one process: start it without torchrun, or train "
            "recipes/finetune.toml, which takes several"
        )


def _check_begun(run: Path, base: Path, seed: int, documents: Sequence[Document]) -> None:
    """What tokens, figures and checkpoints in ``run`` come from must not change under them."""
    digest = hashlib.sha256(json.dumps([[d.path, d.text] for d in documents]).encode())
    now = {
        "--model": str(base),
        "--seed": seed,
        "state of the source's files": digest.hexdigest(),
    }
    begun = _once(run / "begun.json", lambda: now)
    if changed := [name for name in now if begun[name] != now[name]]:
        raise TrainingError(
            f"{run}: begun with another {changed[0]}: go on with that, "
            "remove this folder, or choose another --output"
        )


def _once(path: Path, find: Callable[[], T]) -> T:
    """What the run's first call found; a later one would find another: weights have changed."""
    if not path.exists():
        write_atomically(path, json.dumps(find()).encode())
    kept: T = json.loads(path.read_text(encoding="utf-8"))
    return kept


def _write(tuner: _Tuner, output: Path, facts: dict[str, Any], card: str) -> None:
    """The folder ``output``, complete or not at all; then the run is not needed any more."""
    whole = tuner.output / "result"
    shutil.rmtree(whole, ignore_errors=True)  # Of a call that was killed here.
    tuner.export(whole)
    write_atomically(whole / "finetune.json", (json.dumps(facts, indent=2) + "\n").encode())
    write_atomically(whole / "MODEL_CARD.md", card.encode())
    write_atomically(whole / LOG, (tuner.output / LOG).read_bytes())
    whole.rename(output)
    # Its name goes first: no later call goes on from a half of it.
    done = output.parent / f".{tuner.output.name}.tmp"
    shutil.rmtree(done, ignore_errors=True)
    tuner.output.rename(done)
    sync_folder(output.parent)
    shutil.rmtree(done)


def _card(
    base: str, source: Path, result: Result, options: Options, base_license: str | None
) -> str:
    how = f"low-rank adapters (rank {options.lora}), merged" if options.lora else "all weights"
    license_line = f"license: {base_license}\n" if base_license else ""
    return f"""---
language:
- code
{license_line}library_name: transformers
pipeline_tag: text-generation
tags:
- code
- gpt_bigcode
---

# {result.folder.name}

{base}, fine-tuned on {source.name}: {how}, {result.training_files} files,
{result.training_tokens:,} tokens ({options.epochs:g} epochs).

| held-out files ({len(result.held_out_files)}, {result.held_out_bytes:,} bytes) | bits-per-byte |
|---|---|
| before | {result.before:.4f} |
| after | {result.after:.4f} |

`finetune.json` names the held-out files and has the recipe. The license of {base} goes on
to apply; the code that it was tuned on has its own, and asks for attribution in what repeats it.
"""
