"""``tinystarcoder info``: describes a model without loading its weights."""

import json
import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from ..engine import native_decoder, packed_weights
from ..engine.packed_weights import DEFAULT_PRECISION
from ..errors import TokenizerError
from ..model.checkpoint import Checkpoint
from ..model.config import ARCHITECTURE, ModelConfig
from ..pretrained import BUNDLED, locate
from ..tokenizer import Tokenizer

app = typer.Typer(add_completion=False, rich_markup_mode=None)

_FLOAT32, _BFLOAT16 = 4, 2


@app.command()
def info(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="nano, a folder, or a hub id (owner/name).")
    ] = BUNDLED,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON, sizes in bytes.")] = False,
) -> None:
    """Describe a model.

    Architecture, parameters, memory, tokenizer and license, from its folder's
    files; weights are not read.
    """
    facts = describe(locate(model))
    if json_:
        typer.echo(json.dumps(facts, indent=2))
        return
    rows = {_label(name): _shown(name, value) for name, value in facts.items()}
    if sys.stdout.isatty():
        table = Table(title=model, show_header=False)
        for row in rows.items():
            table.add_row(*row)
        Console().print(table)
    else:
        for name, value in rows.items():
            typer.echo(f"{name}: {value}")


def describe(folder: Path) -> dict[str, Any]:
    """What a folder's files say, and how it would run here. Sizes are in bytes."""
    checkpoint = Checkpoint.open(folder)
    config = checkpoint.config
    return {
        "folder": str(folder),
        "architecture": ARCHITECTURE,
        "layers": config.n_layer,
        "width": config.n_embd,
        "heads": config.n_head,
        "attention": "multi-query" if config.multi_query else "multi-head",
        "activation": config.activation_function,
        "context_tokens": config.n_positions,
        "vocabulary": config.vocab_size,
        "parameters": config.num_parameters(),
        "stored_as": ", ".join(sorted({checkpoint.dtype(name) for name in checkpoint.names})),
        "disk_bytes": sum(path.stat().st_size for path in folder.glob("*.safetensors")),
        **_engine(config),
        **_tokenizer(folder, config),
        "license": license_of(folder),
    }


def _engine(config: ModelConfig) -> dict[str, Any]:
    """What computes, by default, and the memory of its weights and of a full context."""
    cached = 2 * config.n_layer * config.kv_dim * config.n_positions
    if not native_decoder.is_built():
        return {
            "engine": f"numpy, float32: {native_decoder.HOW_TO_BUILD}",
            "memory_bytes": _FLOAT32 * config.num_parameters(),
            "cache_bytes": _FLOAT32 * cached,
        }
    isa, threads = native_decoder.instruction_set(), native_decoder.default_threads()
    return {
        "engine": f"native, {DEFAULT_PRECISION}, {isa}, threads: {threads}",
        "memory_bytes": packed_weights.plan(config, DEFAULT_PRECISION).bytes,
        "cache_bytes": _BFLOAT16 * cached,
    }


def _tokenizer(folder: Path, config: ModelConfig) -> dict[str, Any]:
    try:
        tokenizer = Tokenizer.from_folder(folder)
    except TokenizerError as error:
        return {"tokenizer": f"none: {error}"}
    fits = tokenizer.vocab_size <= config.vocab_size
    return {
        "tokenizer": f"{tokenizer.vocab_size} ids" + ("" if fits else ": too many for this model"),
        "infill": tokenizer.fim is not None,
    }


def license_of(folder: Path) -> str | None:
    """The license that the model's card names in its front matter."""
    for card in ("README.md", "MODEL_CARD.md"):
        if (folder / card).is_file():
            text = (folder / card).read_text(encoding="utf-8", errors="replace")
            front = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)
            found = front and re.search(r"^license: *(\S+)", front[1], re.MULTILINE)
            if found:
                return found[1]
    return None


def _label(name: str) -> str:
    return name.removesuffix("_bytes").replace("_", " ")


def _shown(name: str, value: Any) -> str:
    if value is None:
        return "unknown"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if name.endswith("_bytes"):
        return f"{value / 1e6:,.1f} MB"
    return f"{value:,}" if isinstance(value, int) else str(value)
