"""``tinystarcoder serve``: completions for editors and programs, over HTTP."""

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
import uvicorn

from .. import hub
from ..completion.service import CompletionService
from ..corpus import attribution
from ..corpus.attribution import CompactIndex, FullIndex
from ..errors import RequestError
from ..fim import Order
from ..pretrained import BUNDLED, load, locate
from ..serving.exchange import Server
from ..serving.http import create_app
from ..serving.observe import log_to_stderr
from .options import Draft, ModelName, PromptLookup, Threads, WeightPrecision

app = typer.Typer(add_completion=False, rich_markup_mode=None)

GRACE = 5  # Seconds to end what is being written, once the server is told to end.


@app.command()
def serve(
    host: Annotated[
        str, typer.Option(help="The address to listen on. Who can reach it may ask.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="The port; 0 for any that is free.")
    ] = 8012,
    model: ModelName = BUNDLED,
    precision: WeightPrecision = None,
    threads: Threads = None,
    draft: Draft = None,
    prompt_lookup: PromptLookup = True,
    order: Annotated[
        Order, typer.Option(help="Which part a model reads first at a cursor.")
    ] = "spm",
    ngrams: Annotated[
        bool, typer.Option(help="Let what the open file repeats count for suggestions.")
    ] = True,
    slots: Annotated[
        int, typer.Option(min=1, help="Texts written, and cursors remembered, at once.")
    ] = 8,
    api_key: Annotated[
        str,
        typer.Option(
            envvar="TINYSTARCODER_API_KEY", help="What clients must send as a bearer token."
        ),
    ] = "",
    log: Annotated[bool, typer.Option(help="Log a line a request, without its text.")] = True,
    log_text: Annotated[bool, typer.Option("--log-text", help="Log its text, too.")] = False,
) -> None:
    """Serve completions over HTTP.

    Speaks the dialects of llama.cpp, OpenAI, Ollama, Tabby and Mistral's
    /fim/completions, until Ctrl-C. At / there is a page to try the model in; GET
    /metrics is for Prometheus.
    """
    listening = bind(host, port)
    if log or log_text:
        log_to_stderr()
    loaded = load(
        model, precision=precision, threads=threads, draft=draft, prompt_lookup=prompt_lookup
    )
    name = _name(model)
    with CompletionService(
        loaded, order=order, slots=slots, prefetch=True, ngrams=ngrams
    ) as service:
        server = Server(service, name, attribution=_attribution(model))
        application = create_app(server, host, api_key=api_key, log_text=log_text)
        where = listening.getsockname()
        typer.echo(f"serving {name} on http://{_shown(where[0])}:{where[1]}")
        uvicorn.Server(configured(application)).run([listening])


def _name(model: str) -> str:
    """A folder's own name; of the hub's, not that of a revision in its cache."""
    is_hubs = hub.is_id(model) and not Path(model).exists()
    return model if is_hubs else locate(model).resolve().name


def configured(application: Callable[..., object]) -> uvicorn.Config:
    """How uvicorn runs the application: told to end, it cuts what takes longer than a moment."""
    return uvicorn.Config(
        application, log_level="warning", access_log=False, timeout_graceful_shutdown=GRACE
    )


def bind(host: str, port: int) -> socket.socket:
    """A socket that holds the address. Raises RequestError where it is not to be had."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen()  # From here on a client waits instead of being refused.
    except (OSError, UnicodeError) as error:  # UnicodeError: no host can be called so.
        raise RequestError(
            f"{host}:{port} cannot be listened on: {error}; choose another --host or --port"
        ) from error
    return listening


def _attribution(model: str) -> FullIndex | CompactIndex | None:
    """The index of what the model was trained on, where one lies beside it."""
    folder = locate(model) / attribution.FOLDER
    return attribution.open_index(folder) if folder.is_dir() else None


def _shown(address: str) -> str:
    return f"[{address}]" if ":" in address else address
