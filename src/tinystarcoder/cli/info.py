"""``tinystarcoder info``: describes a model without loading its weights."""

import json
import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from ..errors import TokenizerError
from ..model.checkpoint import Checkpoint
from ..model.config import ARCHITECTURE, ModelConfig
from ..pretrained import BUNDLED, locate
from ..tokenizer import Tokenizer

app = typer.Typer(add_completion=False, rich_markup_mode=None)

_FLOAT32 = 4


@app.command()
def info(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="nano, a folder, or a hub id (owner/name).")
    ] = (BUNDLED),
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
    """What a folder's files say. Sizes are in bytes; memory is the numpy decoder's, float32."""
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
        "memory_bytes": _FLOAT32 * config.num_parameters(),
        "cache_bytes": _FLOAT32 * 2 * config.n_layer * config.kv_dim * config.n_positions,
        **_tokenizer(folder, config),
        "license": license_of(folder),
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
