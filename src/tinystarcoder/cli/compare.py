"""``tinystarcoder compare``: two evaluated models, metric by metric, with intervals."""

import json
from pathlib import Path
from typing import Annotated

import typer

from ..evaluation.report import compare as compare_reports
from ..evaluation.report import comparison_table

app = typer.Typer(add_completion=False, rich_markup_mode=None)

Folder = Annotated[Path, typer.Argument(help="An --output of tinystarcoder evaluate.")]


@app.command()
def compare(
    first: Folder,
    second: Folder,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON, with every figure.")] = False,
) -> None:
    """Compare two evaluated models.

    A table of each metric's difference, second less first, over the items that both
    were asked, with an interval of 95% by resampling them as pairs (bootstrap). A
    difference is sure where its interval does not hold 0.
    """
    comparison = compare_reports(first, second)
    typer.echo(json.dumps(comparison, indent=2) if json_ else comparison_table(comparison))
