"""``tinystarcoder infill``: writes what belongs at a cursor."""

import re
from pathlib import Path
from typing import Annotated

import typer

from ..errors import RequestError
from ..fim import Order
from ..generation.sampling import SamplingOptions
from ..pretrained import BUNDLED, Options, load
from .options import (
    Draft,
    MaxTokens,
    MinP,
    ModelName,
    PromptLookup,
    RepetitionPenalty,
    Seed,
    Stop,
    Temperature,
    Threads,
    TopK,
    TopP,
    WeightPrecision,
    read_text,
)

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def infill(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="The file as it is on disk; - for standard input."),
    ],
    at: Annotated[
        str,
        typer.Option(
            metavar="LINE:COLUMN",
            help="The cursor as editors show it: both from 1, columns in characters.",
        ),
    ],
    model: ModelName = BUNDLED,
    precision: WeightPrecision = None,
    threads: Threads = None,
    draft: Draft = None,
    prompt_lookup: PromptLookup = True,
    max_tokens: MaxTokens = 64,
    order: Annotated[Order, typer.Option(help="Which part the model reads first.")] = "spm",
    temperature: Temperature = 0.0,
    top_k: TopK = 0,
    top_p: TopP = 1.0,
    min_p: MinP = 0.0,
    repetition_penalty: RepetitionPenalty = 1.0,
    seed: Seed = None,
    stop: Stop = None,
) -> None:
    """Write what belongs at a cursor.

    Prints the new text alone. Line 1, column 1 is before the first character;
    a line's last column is the one behind its last character.
    """
    options = Options(
        max_tokens=max_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        seed=seed,
        stop=stop or (),
    )
    SamplingOptions(**options)  # Complains before a model is loaded.
    text = read_text(file)
    cursor = offset(text, at)
    loaded = load(
        model, precision=precision, threads=threads, draft=draft, prompt_lookup=prompt_lookup
    )
    completion = loaded.infill(text[:cursor], text[cursor:], order=order, **options)
    typer.echo(completion.text)


def offset(text: str, at: str) -> int:
    """The characters before a ``LINE:COLUMN``. Raises RequestError where there is no such place."""
    match = re.fullmatch(r"([1-9]\d{0,8}):([1-9]\d{0,8})", at, re.ASCII)
    if not match:
        raise RequestError(f"--at {at}: expected LINE:COLUMN, both whole numbers from 1")
    line, column = map(int, match.groups())
    lines = text.split("\n")
    if line > len(lines):
        raise RequestError(f"--at {at}: the file ends in line {len(lines)}")
    width = len(lines[line - 1].removesuffix("\r"))
    if column > width + 1:
        raise RequestError(f"--at {at}: line {line} ends in column {width + 1}")
    return sum(len(before) + 1 for before in lines[: line - 1]) + column - 1
