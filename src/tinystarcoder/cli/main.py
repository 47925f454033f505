"""The ``tinystarcoder`` command: a table of commands, each imported when it is called.

``--help`` reads the table alone and so answers at once. It gives up typer's
colored help, which would import every command to list it.

What goes wrong on the user's side is one line on stderr, ``error: …`` with
exit code 2; a warning is a line ``warning: …``. Ctrl-C exits with 130, and a
reader that closes the pipe ends the command without a word.
"""

import errno
import io
import os
import sys
import warnings
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer
from typer.core import TyperGroup

from .. import __version__
from ..errors import MissingExtraError, TinyStarcoderError

# Command -> the first line of its own help; its module has the same name.
COMMANDS = {
    "complete": "Continue a prompt.",
    "infill": "Write what belongs at a cursor.",
    "info": "Describe a model.",
    "serve": "Serve completions over HTTP.",
    "doctor": "Check this installation.",
    "models": "Show and keep the models on this machine.",
    "lsp": "Suggest code to an editor as a language server.",
    "attribute": "Find what of a text stands verbatim in the training corpus.",
    "corpus": "Build training data from Python packages.",
    "tokenizer": "Train a tokenizer.",
    "train": "Train a model by a recipe, or go on with the run in --output.",
    "finetune": "Adapt a model to a code base.",
    "report": "Draw the curves of training runs.",
    "evaluate": "Measure a model. evaluate MODEL is short for evaluate all MODEL.",
    "compare": "Compare two evaluated models.",
    "card": "Write a model card.",
    "export": "Write a model in another program's format.",
}

# What the base install lacks, and the extra that brings it.
EXTRAS = {
    "ahocorasick_rs": "corpus",
    "datatrove": "cluster",
    "detect_secrets": "corpus",
    "gguf": "export",
    "jedi": "evaluate",
    "packaging": "corpus",
    "peft": "lora",
    "pyarrow": "corpus",
    "ray": "cluster",
    "safetensors": "train",
    "torch": "train",
    "transformers": "evaluate",
    "tree_sitter": "corpus",
    "tree_sitter_python": "corpus",
}


class LazyGroup(TyperGroup):
    """Lists the table; imports a command's module when the command is asked for."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        return typer.main.get_command(import_module(f".{cmd_name}", __package__).app)

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


app = typer.Typer(cls=LazyGroup, add_completion=False, no_args_is_help=True, rich_markup_mode=None)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tinystarcoder {__version__}")
        raise typer.Exit


@app.callback()
def tinystarcoder(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    """A small code model: complete Python offline, or train your own."""


# What is wrong with a command line. typer, with a click of its own inside, has no name for it.
_UsageError: Any = typer.BadParameter.__mro__[1]

# What a system says of output that it does not take, and not of which file.
_NOT_TAKEN = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def main() -> None:
    """The entry point: runs the command that the arguments name, and exits."""
    warnings.showwarning = _show_warning
    _prepare_output()
    code = 2
    try:
        code = typer.main.get_command(app)(prog_name="tinystarcoder", standalone_mode=False)
    except _UsageError as error:
        _say_usage(error)
    except TinyStarcoderError as error:
        _say("error", error)
    except ModuleNotFoundError as error:
        library = (error.name or "").split(".")[0]
        if library not in EXTRAS:
            raise
        _say("error", MissingExtraError(f"tinystarcoder {sys.argv[1]}", EXTRAS[library]))
    except OSError as error:
        if error.filename is not None:
            _say("error", error)
        elif error.errno in _NOT_TAKEN:
            _forget_output()
            _say("error", f"output cannot be written: {error.strerror}; write it elsewhere")
        else:
            raise
    sys.exit(code)


def _prepare_output() -> None:
    """A terminal without some character shows a replacement; who closed a stream reads nothing."""
    sys.stdout, sys.stderr = map(_or_nowhere, (sys.stdout, sys.stderr))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _or_nowhere(stream: TextIO | None) -> TextIO:
    return Path(os.devnull).open("w", encoding="utf-8") if stream is None else stream


def _forget_output() -> None:
    """What is still in the buffer: it would fail again when the interpreter ends."""
    with suppress(OSError):  # In a test, it may be no file.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _say_usage(error: Any) -> None:
    said = error.format_message()
    if said.startswith("Usage:"):  # Of a group without a command: its whole help.
        error.show()
        return
    way_out = f"; see '{error.ctx.command_path} --help'" if error.ctx else ""
    _say("error", said.removesuffix(".") + way_out)


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    _say("warning", message)


def _say(kind: str, message: object) -> None:
    typer.echo(f"{kind}: {' '.join(str(message).split())}", err=True)
