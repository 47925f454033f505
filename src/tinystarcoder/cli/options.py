"""What commands share: options, and reading the text that they work on."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from ..engine.packed_weights import Precision
from ..errors import RequestError

STANDARD_INPUT = Path("-")

ModelName = Annotated[
    str, typer.Option("--model", metavar="MODEL", help="nano, a folder, or a hub id (owner/name).")
]
Draft = Annotated[
    str | None,
    typer.Option(metavar="MODEL", help="A smaller model, to guess: the same text, sooner."),
]
PromptLookup = Annotated[
    bool, typer.Option(help="Guess by what followed the same words before: the same text, sooner.")
]
WeightPrecision = Annotated[
    Precision | None,
    typer.Option("--precision", help="Of the weights in memory; by default int8."),
]
Threads = Annotated[int | None, typer.Option(help="By default, one for each physical core.")]
MaxTokens = Annotated[int, typer.Option(help="Stop after so many tokens.")]
Temperature = Annotated[float, typer.Option(help="0 takes the likeliest token each time.")]
TopK = Annotated[int, typer.Option(help="Draw among so many likeliest tokens; 0: all.")]
TopP = Annotated[float, typer.Option(help="Draw among those that make up this probability.")]
MinP = Annotated[float, typer.Option(help="Draw among those of this share of the likeliest.")]
RepetitionPenalty = Annotated[float, typer.Option(help="Above 1: repeat less.")]
Seed = Annotated[int | None, typer.Option(help="The same seed, the same draws.")]
Stop = Annotated[
    list[str] | None, typer.Option(metavar="TEXT", help="End before this text. Repeatable.")
]


def counted(number: int, noun: str, plural: str = "") -> str:
    """``1 file``, ``2 files``."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def has_input() -> bool:
    """Whether text comes on standard input: it is neither a terminal nor closed."""
    return sys.stdin is not None and not sys.stdin.isatty()


def read_text(path: Path) -> str:
    """A file's text, or standard input's for ``-``, line ends as they are.

    Raises RequestError where it is not UTF-8, OSError where it cannot be read.
    """
    if path == STANDARD_INPUT and sys.stdin is None:
        raise RequestError("standard input is closed: name a file")
    name = "standard input" if path == STANDARD_INPUT else str(path)
    data = sys.stdin.buffer.read() if path == STANDARD_INPUT else path.read_bytes()
    try:
        # An editor neither shows nor counts a byte order mark.
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RequestError(f"{name}: not UTF-8 text: {error}") from error
