"""``tinystarcoder export``: writes a model in another program's format."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from ..model.gguf_export import WeightType, export
from ..pretrained import BUNDLED, locate
from .options import ModelName

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(name="export")
def command(
    output: Annotated[Path, typer.Option(help="The file to write.")],
    model: ModelName = BUNDLED,
    format_: Annotated[
        Literal["gguf"],
        typer.Option("--format", help="gguf: for llama.cpp and what is built on it."),
    ] = "gguf",
    weights: Annotated[WeightType, typer.Option(help="How matrices are stored.")] = "f16",
) -> None:
    """Write a model in another program's format.

    The Hugging Face folder stays the master: there is no way back.
    """
    assert format_ == "gguf"
    export(locate(model), output, weights)
    typer.echo(f"{output}: {output.stat().st_size / 1e6:.1f} MB")
