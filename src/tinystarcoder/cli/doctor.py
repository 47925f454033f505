"""``tinystarcoder doctor``: what of an installation works, and how to mend what does not."""

import os
import platform
import shutil
from collections.abc import Callable, Generator, Iterator
from importlib import import_module
from importlib.util import find_spec
from time import perf_counter
from typing import Annotated

import typer

from .. import __version__
from ..completion.request import CompletionRequest
from ..completion.service import CompletionService
from ..engine.native_decoder import HOW_TO_BUILD, instruction_sets, is_built
from ..errors import TinyStarcoderError
from ..pretrained import BUNDLED, Model, load
from .main import EXTRAS
from .options import ModelName
from .serve import bind

app = typer.Typer(add_completion=False, rich_markup_mode=None)

_ENGINE = "tinystarcoder.engine._native"

Finding = tuple[bool, str]
PROMPT = "def print_hello_world():"


@app.command()
def doctor(
    model: ModelName = BUNDLED,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="A port that 'serve' should be able to take.")
    ] = 8012,
) -> None:
    """Check this installation.

    Python, the engine, the model, a suggestion, the port, the extras: a line
    each, and what to do where one is wrong. The exit code is 1 if any is.
    """
    is_well = True
    for fine, text in _findings(model, port):
        is_well = is_well and fine
        typer.echo(f"{'ok  ' if fine else 'FAIL'} {text}")
    if not is_well:
        raise typer.Exit(1)


def _findings(model: str, port: int) -> Iterator[Finding]:
    yield True, f"tinystarcoder {__version__}, Python {platform.python_version()}"
    yield True, f"{os.cpu_count()} processors, {platform.system()} {platform.machine()}"
    yield _engine()
    loaded = yield from _model(model)
    if loaded is not None:
        yield _tried("suggestion", lambda: _suggestion(loaded))
    yield _tried("port", lambda: _port(port))
    yield from _extras()


def _engine() -> Finding:
    if is_built():
        return True, f"engine: native, {', '.join(instruction_sets())}"
    compiler = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    try:
        import_module(_ENGINE)
    except ModuleNotFoundError:
        return False, f"engine: {HOW_TO_BUILD} (C++ compiler: {compiler or 'none found'})"
    except ImportError as error:
        return False, f"engine: built, but it cannot be loaded: {_said(error)}; install again"
    return True, "engine: native"


def _model(name: str) -> Generator[Finding, None, Model | None]:
    begun = perf_counter()
    try:
        loaded = load(name)
    except Exception as error:
        yield False, f"model: {_said(error)}"
        return None
    parameters = loaded.config.num_parameters() / 1e6
    seconds = perf_counter() - begun
    yield True, f"model: {name}, {parameters:.1f}M parameters, loaded in {seconds:.2f} s"
    return loaded


def _suggestion(model: Model) -> str:
    begun = perf_counter()
    with CompletionService(model) as service:  # Whatever would be shown of it.
        text = service.write(CompletionRequest(PROMPT)).text
    return f"suggestion: {len(text)} characters in {perf_counter() - begun:.2f} s"


def _port(port: int) -> str:
    bind("127.0.0.1", port).close()
    return f"port: {port} is free"


def _extras() -> Iterator[Finding]:
    missing: dict[str, list[str]] = {}
    for library, extra in EXTRAS.items():
        if find_spec(library) is None:
            missing.setdefault(extra, []).append(library)
    for extra in dict.fromkeys(EXTRAS.values()):
        if extra in missing:
            told = f"not installed (pip install 'tinystarcoder[{extra}]')"
        else:
            told = "installed"
        yield True, f"extra [{extra}]: {told}"


def _tried(name: str, check: Callable[[], str]) -> Finding:
    try:
        return True, check()
    except Exception as error:
        return False, f"{name}: {_said(error)}"


def _said(error: Exception) -> str:
    """One line, whatever went wrong: that is what this command is asked for."""
    kind = "" if isinstance(error, TinyStarcoderError | OSError) else f"{type(error).__name__}: "
    return kind + " ".join(str(error).split())
