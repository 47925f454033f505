"""What a run opens, begins from and is checked for, before its first step."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from ..corpus import token_shards
from ..corpus.document import Document
from ..corpus.token_shards import TokenShards
from ..errors import TrainingError
from ..model.checkpoint import Checkpoint
from ..model.gpt_bigcode import GPTBigCode
from ..tokenizer import Tokenizer
from .checkpoint import read_weights
from .distributed import World
from .recipe import Recipe

# What may change when a run goes on: its length, and what it is watched by and runs on.
_FREE = ("schedule", "checkpoint", "validation", "hardware", "phases")

# Of a config.json, what says nothing of how weights compute.
_NO_ARCHITECTURE = ("attn_pdrop", "embd_pdrop", "resid_pdrop", "initializer_range")


def open_sources(
    recipe: Recipe, output: Path, tokenizer: Tokenizer, world: World
) -> tuple[list[TokenShards], list[TokenShards]]:
    """The recipe's training and validation shards (none or one), their checksums verified.

    A source of Python files is tokenized once, into the run. Raises CorpusError for a
    file that is missing, cut or changed.
    """
    train = [source.path for source in recipe.data.sources]
    held_out = [recipe.data.validation] if recipe.data.validation else []
    names = ["train", *(f"train-{number}" for number in range(1, len(train)))]
    opened: list[TokenShards] = []
    for name, path in zip([*names, "validation"], [*train, *held_out], strict=False):
        if world.leads:
            _tokenized(Path(path), output / "data" / name, tokenizer).verify()
        world.wait()
        opened.append(_tokenized(Path(path), output / "data" / name, tokenizer))
    return opened[: len(train)], opened[len(train) :]


def _tokenized(source: Path, built: Path, tokenizer: Tokenizer) -> TokenShards:
    if (source / token_shards.INDEX).exists():
        return TokenShards.open(source)
    if built.exists():
        return TokenShards.open(built)
    return token_shards.build_token_shards(_documents(source), tokenizer, built)


def _documents(source: Path) -> Iterator[Document]:
    """The Python files of one folder, wheel or sdist, as they are."""
    # Opening a package takes the corpus extra; training from token shards does not.
    from ..corpus.sources import open_package

    package = open_package(source)
    for path, text in package.files():
        if isinstance(text, str):
            yield Document(text, path, package.name, package.version, license="")


def weights_to_begin(recipe: Recipe, model: GPTBigCode) -> Iterator[tuple[str, Tensor]]:
    """Weights as drawn, or those of the recipe's checkpoint: whole tensors, one at a time."""
    begin = recipe.model
    if not begin.weights:
        yield from model.initial_tensors(recipe.seed, std=begin.init_std)
        return
    stored = Checkpoint.open(begin.weights)
    theirs, ours = asdict(stored.config), asdict(model.config)
    differ = [name for name in ours if name not in _NO_ARCHITECTURE and theirs[name] != ours[name]]
    if differ:
        raise TrainingError(
            f"{begin.weights}: another architecture than the recipe's [model] "
            f"({', '.join(differ)}); set model.preset and model.overrides to those of its "
            "config.json"
        )
    yield from read_weights(stored)


def check_run(
    recipe: Recipe, tokenizer: Tokenizer, opened: Sequence[TokenShards], world: World
) -> None:
    """Raises TrainingError where tokenizer, data, model and ranks do not fit together."""
    size = recipe.model_config().vocab_size
    if tokenizer.vocab_size > size:
        raise TrainingError(
            f"the tokenizer has {tokenizer.vocab_size} ids, the model only "
            f"{size}: set model.overrides.vocab_size"
        )
    for shards in opened:
        if shards.vocab_size != tokenizer.vocab_size:
            raise TrainingError(
                f"{shards.folder}: written with {shards.vocab_size} ids, the tokenizer has "
                f"{tokenizer.vocab_size}: run 'tinystarcoder corpus tokenize' with this tokenizer"
            )
    recipe.check_ranks(world.size)
    if recipe.data.document_mask and recipe.model.dropout and world.device.type == "cuda":
        raise TrainingError(
            "data.document_mask: attention by document on a GPU has no dropout; "
            "set model.dropout to 0"
        )


def check_resumed(
    folder: Path,
    state: dict[str, Any],
    recipe: Recipe,
    tokenizer: Tokenizer,
    train: Sequence[TokenShards],
) -> None:
    """A run goes on by its own recipe, but for what is in _FREE, and on its own data."""
    # A field that came after the checkpoint has its default there.
    old, new = (vars(_elsewhere(r)) for r in (Recipe.from_dict(state["recipe"]), recipe))
    for key in new:
        if key not in _FREE and new[key] != old[key]:
            raise TrainingError(
                f"{folder} was trained by another recipe ([{key}] differs): "
                "choose another --output, or go on with the old recipe"
            )
    if Tokenizer.from_folder(folder).vocabulary != tokenizer.vocabulary:
        raise TrainingError(
            f"{folder} was trained with another tokenizer than data.tokenizer names now: "
            "bring it back, or choose another --output"
        )
    if state["data"] != [shards.fingerprint for shards in train]:
        raise TrainingError(
            f"{folder} was trained on other token shards than those that data.train names "
            "now: bring them back, or choose another --output"
        )


def _elsewhere(recipe: Recipe) -> Recipe:
    """The same without its places: data may move, and what it holds is checked by itself."""
    mixture = [replace(part, path="") for part in recipe.data.mixture]
    data = replace(recipe.data, mixture=mixture, train="", tokenizer="", validation="")
    return replace(recipe, data=data)
