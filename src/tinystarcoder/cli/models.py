"""``tinystarcoder models``: what is at hand, fetch one, remove one."""

from typing import Annotated

import typer

from .. import hub
from ..errors import RequestError
from ..model.checkpoint import Checkpoint
from ..pretrained import BUNDLED, locate

app = typer.Typer(add_completion=False, rich_markup_mode=None, no_args_is_help=True)

HubId = Annotated[str, typer.Argument(metavar="MODEL", help="A hub id (owner/name).")]


@app.callback()
def models() -> None:
    """Show and keep the models on this machine."""


@app.command("list")
def list_() -> None:
    """List the bundled model and those in the hub's cache."""
    folder = locate(BUNDLED)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    _show(BUNDLED, size, folder)
    for model in hub.cached():
        _show(model.name, model.bytes, model.folder)


@app.command()
def pull(model: HubId) -> None:
    """Fetch a model from the hub into its cache; what is there already is kept."""
    folder = hub.fetch(_checked(model))
    Checkpoint.open(folder)  # Complains of what this program could not load.
    typer.echo(folder)


@app.command()
def rm(model: HubId) -> None:
    """Remove a model from the hub's cache."""
    freed = hub.remove(_checked(model))
    typer.echo(f"{model}: {freed / 1e6:.1f} MB set free")


def _checked(name: str) -> str:
    if not hub.is_id(name):
        raise RequestError(f"{name}: not a hub id, which has the form owner/name")
    return name


def _show(name: str, size: int, folder: object) -> None:
    typer.echo(f"{name:40} {size / 1e6:9.1f} MB  {folder}")
