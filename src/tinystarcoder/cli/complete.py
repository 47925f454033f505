"""``tinystarcoder complete``: continues a prompt."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from ..errors import RequestError
from ..generation.sampling import SamplingOptions
from ..pretrained import BUNDLED, Model, Options, load
from .options import (
    STANDARD_INPUT,
    MaxTokens,
    MinP,
    ModelName,
    RepetitionPenalty,
    Seed,
    Stop,
    Temperature,
    TopK,
    TopP,
    read_text,
)

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def complete(
    prompt: Annotated[
        str | None,
        typer.Argument(metavar="PROMPT", help="The text to continue; without it, standard input."),
    ] = None,
    file: Annotated[Path | None, typer.Option(help="Continue this file's text.")] = None,
    model: ModelName = BUNDLED,
    max_tokens: MaxTokens = 64,
    stream: Annotated[bool, typer.Option("--stream", help="Print as the text comes.")] = False,
    echo: Annotated[bool, typer.Option("--echo", help="Print the prompt first.")] = False,
    samples: Annotated[int, typer.Option(help="Write so many continuations.")] = 1,
    temperature: Temperature = 0.0,
    top_k: TopK = 0,
    top_p: TopP = 1.0,
    min_p: MinP = 0.0,
    repetition_penalty: RepetitionPenalty = 1.0,
    seed: Seed = None,
    stop: Stop = None,
) -> None:
    """Continue a prompt.

    Prints the continuation alone. Special tokens in the prompt, such as
    <fim_prefix>, are parsed.
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
    if samples > 1 and temperature == 0:
        raise RequestError("--samples with --temperature 0: all would be the same; raise it")
    if samples > 1 and stream:
        raise RequestError("--stream shows one text: it does not go with --samples")
    text = _prompt(prompt, file)
    loaded = load(model)
    shown = text if echo else ""
    if stream:
        _stream(loaded, text, shown, options)
        return
    completions = loaded.samples(text, samples, **options)
    for number, completion in enumerate(completions, start=1):
        if samples > 1:
            typer.echo(f"--- {number} of {samples} ---")
        typer.echo(shown + completion.text)


def _prompt(prompt: str | None, file: Path | None) -> str:
    if prompt is not None and file is not None:
        raise RequestError("a prompt and --file: give one of them")
    if prompt is not None:
        return prompt
    if file is None and sys.stdin.isatty():
        raise RequestError("no prompt: give one, or --file, or text on standard input")
    return read_text(file or STANDARD_INPUT)


def _stream(model: Model, text: str, shown: str, options: Options) -> None:
    typer.echo(shown, nl=False)
    for piece in model.stream(text, **options):
        typer.echo(piece, nl=False)
    typer.echo()
