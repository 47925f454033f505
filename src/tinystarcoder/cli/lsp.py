"""``tinystarcoder lsp``: a language server for editors, over standard input and output."""

from typing import Annotated

import typer

from ..completion.service import CompletionService
from ..fim import Order
from ..pretrained import BUNDLED, load
from ..serving.lsp import SuggestionServer
from .options import Draft, ModelName, PromptLookup, Threads, WeightPrecision

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def lsp(
    model: ModelName = BUNDLED,
    precision: WeightPrecision = None,
    threads: Threads = None,
    draft: Draft = None,
    prompt_lookup: PromptLookup = True,
    order: Annotated[
        Order, typer.Option(help="Which part a model reads first at a cursor.")
    ] = "spm",
) -> None:
    """Suggest code to an editor as a language server.

    Speaks the Language Server Protocol over standard input and output, until
    the editor ends it.
    """

    def make() -> CompletionService:
        loaded = load(
            model, precision=precision, threads=threads, draft=draft, prompt_lookup=prompt_lookup
        )
        return CompletionService(loaded, order=order, prefetch=True)

    SuggestionServer(make).start_io()
