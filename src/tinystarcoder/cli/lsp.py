"""``tinystarcoder lsp``: a language server for editors, over standard input and output."""

from typing import Annotated

import typer

from ..completion.service import CompletionService
from ..fim import Order
from ..pretrained import BUNDLED, load
from ..serving.lsp import SuggestionServer
from .options import ModelName

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def lsp(
    model: ModelName = BUNDLED,
    order: Annotated[
        Order, typer.Option(help="Which part a model reads first at a cursor.")
    ] = "spm",
) -> None:
    """Suggest code to an editor as a language server.

    Speaks the Language Server Protocol over standard input and output, until
    the editor ends it.
    """
    SuggestionServer(lambda: CompletionService(load(model), order=order)).start_io()
