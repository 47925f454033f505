"""``tinystarcoder train``: runs a recipe, or goes on with a run that was stopped."""

from pathlib import Path
from typing import Annotated

import typer

from ..errors import MissingExtraError, RecipeError
from ..training.recipe import Recipe

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def train(
    recipe: Annotated[Path, typer.Argument(help="TOML file, e.g. recipes/nano.toml.")],
    output: Annotated[
        Path | None, typer.Option(help="Run folder. [default: runs/NAME-OF-RECIPE]")
    ] = None,
    override: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="Change a field: schedule.steps=100."),
    ] = None,
) -> None:
    """Train a model by a recipe, or go on with the run in --output."""
    overrides = dict(_pair(text) for text in override or [])
    chosen = Recipe.read(recipe, overrides)
    try:
        from ..training.trainer import Trainer
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise MissingExtraError("train", "train") from error
    folder = Trainer(chosen, output or Path("runs") / chosen.name).run()
    typer.echo(folder)


def _pair(text: str) -> tuple[str, str]:
    field, separator, value = text.partition("=")
    if not separator:
        raise RecipeError(f"--set {text}: expected FIELD=VALUE")
    return field, value
