"""``tinystarcoder complete``: continues a prompt."""

from pathlib import Path
from typing import Annotated

import typer

from ..corpus.attribution import CompactIndex, FullIndex
from ..errors import RequestError
from ..generation.sampling import SamplingOptions
from ..pretrained import BUNDLED, Model, Options, load
from .attribute import IndexFolder, described, open_attribution
from .options import (
    STANDARD_INPUT,
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
    has_input,
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
    precision: WeightPrecision = None,
    threads: Threads = None,
    draft: Draft = None,
    prompt_lookup: PromptLookup = True,
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
    attribute: Annotated[
        bool,
        typer.Option("--attribute", help="Say on standard error whose code it is, if anyone's."),
    ] = False,
    index: IndexFolder = None,
) -> None:
    """Continue a prompt.

    Prints the continuation alone. Special tokens in the prompt, such as
    <fim_prefix>, are parsed. With --attribute, spans of 50 words or symbols
    that stand in the training corpus are named, if the continuation has a part
    in them.
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
    if index and not attribute:
        raise RequestError("--index goes with --attribute")
    text = _prompt(prompt, file)
    corpus = open_attribution(model, index) if attribute else None
    loaded = load(
        model, precision=precision, threads=threads, draft=draft, prompt_lookup=prompt_lookup
    )
    shown = text if echo else ""
    if stream:
        _say_whose(corpus, text, _stream(loaded, text, shown, options))
        return
    completions = loaded.samples(text, samples, **options)
    for number, completion in enumerate(completions, start=1):
        if samples > 1:
            typer.echo(f"--- {number} of {samples} ---")
        typer.echo(shown + completion.text)
        _say_whose(corpus, text, completion.text)


def _prompt(prompt: str | None, file: Path | None) -> str:
    if prompt is not None and file is not None:
        raise RequestError("a prompt and --file: give one of them")
    if prompt is not None:
        return prompt
    if file is None and not has_input():
        raise RequestError("no prompt: give one, or --file, or text on standard input")
    return read_text(file or STANDARD_INPUT)


def _stream(model: Model, text: str, shown: str, options: Options) -> str:
    """Prints the continuation as it comes, and returns it."""
    written = []
    typer.echo(shown, nl=False)
    for piece in model.stream(text, **options):
        typer.echo(piece, nl=False)
        written.append(piece)
    typer.echo()
    return "".join(written)


def _say_whose(corpus: FullIndex | CompactIndex | None, prompt: str, continuation: str) -> None:
    """Names the spans that reach into the continuation, lines counted from the prompt's first."""
    if corpus is None:
        return
    whole = prompt + continuation
    spans = [span for span in corpus.find(whole) if span.end > len(prompt)]
    for line in described(whole, spans) or ["no span found in the training corpus"]:
        typer.echo(f"attribution: {line}", err=True)
