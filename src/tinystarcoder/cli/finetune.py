"""``tinystarcoder finetune``: adapt a checkpoint to a code base."""

from pathlib import Path
from typing import Annotated

import typer

from ..pretrained import BUNDLED, locate
from ..training.finetune import Options, StoppedError, finetune
from .info import license_of

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command("finetune")
def finetune_(
    source: Annotated[Path, typer.Argument(help="A folder or repository, a wheel or an sdist.")],
    model: Annotated[
        str, typer.Option("--model", metavar="MODEL", help="nano, a folder, or a hub id.")
    ] = BUNDLED,
    output: Annotated[
        Path | None, typer.Option(help="Folder of the new model. [default: finetuned/SOURCE]")
    ] = None,
    lora: Annotated[
        int,
        typer.Option(
            metavar="RANK", min=0, help="Train low-rank adapters, merged at the end; 0: all."
        ),
    ] = 0,
    epochs: Annotated[float, typer.Option(min=0.01, help="Times that the source is read.")] = 3.0,
    seed: Annotated[int, typer.Option(help="Draws the held-out files and the order.")] = 0,
) -> None:
    """Adapt a model to a code base.

    A tenth of the files is held out; bits-per-byte on them is printed before and after.
    SIGTERM or Ctrl-C ends a run after its step; the exit code is then 128 + the signal's
    number (143, 130). The same command goes on with a run of all weights, and begins one
    of adapters again.
    """
    base = locate(model)
    target = output or Path("finetuned") / source.resolve().name.split("-")[0]
    options = Options(epochs=epochs, lora=lora, seed=seed)
    license_ = license_of(base)
    try:
        result = finetune(source, base, target, options, base_name=model, base_license=license_)
    except StoppedError as stopped:
        typer.echo(stopped, err=True)
        raise typer.Exit(128 + stopped.signal) from None
    held_out = len(result.held_out_files)
    typer.echo(f"held out: {held_out} files, {result.held_out_bytes:,} bytes")
    typer.echo(f"bits-per-byte: {result.before:.4f} before, {result.after:.4f} after")
    if result.after >= result.before:
        typer.echo("warning: it did not fall; try fewer --epochs, or --lora 8", err=True)
    typer.echo(result.folder)
