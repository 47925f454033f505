"""``tinystarcoder report``: the curves of training runs, as a page."""

from pathlib import Path
from typing import Annotated

import typer

from ..files import write_atomically
from ..training.report import page, read_run

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def report(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN", help="Folders of runs, or their log.jsonl.")
    ],
    output: Annotated[
        Path | None, typer.Option(help="HTML file. [default: report.html in the first run]")
    ] = None,
) -> None:
    """Draw the curves of training runs.

    One page that stands by itself: loss, bits-per-byte, rates, speed and gradients of
    all runs over the tokens they have seen.
    """
    first = runs[0] if runs[0].is_dir() else runs[0].parent
    target = output or first / "report.html"
    write_atomically(target, page([read_run(run) for run in runs]).encode())
    typer.echo(target)
