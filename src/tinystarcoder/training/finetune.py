"""A checkpoint adapted to one code base: all weights, or low-rank adapters merged at the end.

    source ── files, split by name's hash ──> training and held-out token shards
    base's weights ── a recipe of a few epochs, low rates, linear to zero ──> Trainer
    held-out bits-per-byte before and after ──> a Hugging Face folder with its card

A fine-tune is an ordinary run, so a killed one of all weights goes on where it was. What
it gives up: adapters are not in a checkpoint before they are merged, so such a run begins
again; one process (for a cluster, train a recipe with model.weights); files that resemble
each other may fall on both sides of the split, which flatters the figure.
"""

import hashlib
import json
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from ..corpus.document import Document
from ..corpus.sources import open_package
from ..corpus.token_shards import TokenShards, build_token_shards
from ..errors import MissingExtraError, TrainingError
from ..files import write_atomically
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

# A third of the rates that nano was trained with from nothing: docs/log.md.
OPTIMIZER = OptimizerRecipe(kind="muon", lr=2e-3, muon_lr=0.006)
# Adapters begin at zero and have few weights: they take, and need, higher rates.
LORA_OPTIMIZER = OptimizerRecipe(kind="adamw", lr=2e-3)
_LORA_TARGETS = ["c_attn", "c_proj", "c_fc"]

_STEPS_AN_EPOCH = 64  # At least, if there is a row for each.
_MAX_ROWS = 4


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

    The base's name and license are for the card. Raises TrainingError where ``output`` is
    a model already, or the source has no two files to tell apart.
    """
    if (output / folders.CONFIG).exists():
        raise TrainingError(f"{output}: holds a model already; choose another --output")
    training, held_out = split(_documents(source), options.seed)
    recipe = prepare(base, training, held_out, output / "run", options)
    trainer = _Tuner(recipe, output / "run", options.lora)
    before = _once(output / "run" / "before.json", trainer.held_out)
    trainer.run()
    if trainer.stopped_by is not None:
        raise TrainingError(f"{output}: stopped before the end; the same command goes on")
    result = Result(
        folder=output,
        training_files=len(training),
        training_tokens=trainer.progress.tokens,
        held_out_files=tuple(document.path for document in held_out),
        held_out_bytes=sum(len(document.text.encode()) for document in held_out),
        before=before,
        after=trainer.held_out(),
    )
    trainer.export(output)
    facts = {**asdict(result), "folder": output.name, "lora": options.lora}
    facts |= {"source": source.name, "recipe": recipe.to_dict()}
    write_atomically(output / "finetune.json", (json.dumps(facts, indent=2) + "\n").encode())
    card = _card(base_name or base.name, source, result, options, base_license)
    write_atomically(output / "MODEL_CARD.md", card.encode())
    (output / "run" / LOG).replace(output / LOG)
    shutil.rmtree(output / "run")
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
        if lora and self.world.size > 1:
            raise TrainingError("adapters (--lora) are trained by one process, not by torchrun")

    def held_out(self) -> float:
        """Bits per byte of the held-out files, left to right."""
        return self._validate(self.recipe.phases[0])["validation_bits_per_byte"]

    def export(self, folder: Path) -> None:
        """Writes the model as a Hugging Face folder in float32."""
        if self._lora:
            _merge(self.model)
        folders.write(folder, self.model.config, self.model.to_arrays())
        self.tokenizer.save(folder)

    def _build(self) -> None:
        super()._build()
        if self._lora:
            torch.manual_seed(self.recipe.seed)
            _inject(self.model, self._lora)
            trained = [weight for weight in self.model.parameters() if weight.requires_grad]
            optimizer = self.recipe.optimizer
            betas = (optimizer.beta1, optimizer.beta2)
            self.optimizers = [torch.optim.AdamW(trained, optimizer.lr, betas, weight_decay=0.0)]
            self.optimizers[0].param_groups[0]["initial_lr"] = optimizer.lr

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


def _once(path: Path, measure: Callable[[], float]) -> float:
    """A figure that a resumed run must not measure again, since its weights have changed."""
    if not path.exists():
        write_atomically(path, json.dumps(measure()).encode())
    return float(json.loads(path.read_text(encoding="utf-8")))


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
