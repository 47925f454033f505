"""``tinystarcoder evaluate``: measure a model on files that it has not seen."""

import json
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress, track
from rich.table import Table

from ..evaluation.bits_per_byte import MIDDLES, STRETCH, STRIDE, WINDOW, Score, Scorer
from ..evaluation.held_out import Source, read_sources
from ..evaluation.parse_rate import MAX_CHARACTERS, Result, cut_prompts, greedy, parse_rate
from ..pretrained import load

app = typer.Typer(add_completion=False, rich_markup_mode=None, no_args_is_help=True)

ModelName = Annotated[
    str, typer.Argument(metavar="MODEL", help="nano, a folder, or a hub repository.")
]
Sources = Annotated[
    list[Path], typer.Argument(metavar="SOURCE", help="Wheels, sdists, folders or .py files.")
]
Seed = Annotated[int, typer.Option(help="Draws where files are cut.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, with every figure.")]

# The scores of one file or source, a column each.
Scores = Sequence[Score]


@app.callback()
def evaluate() -> None:
    """Measure a model on files it has not seen."""


@app.command()
def bits_per_byte(
    model: ModelName,
    sources: Sources,
    fim: Annotated[
        bool,
        typer.Option(
            "--fim", help="Score middles instead: given the prefix alone, and given both sides."
        ),
    ] = False,
    seed: Seed = 0,
    json_: Json = False,
) -> None:
    """Bits for each byte of Python: fewer are better.

    Every .py file from its start, in windows of 1,024 tokens, 512 apart, every token
    scored once; end-of-text is not scored.
    """
    loaded = load(model)
    scorer = Scorer(loaded.decoder, loaded.tokenizer)
    unreadable: list[str] = []

    def score(source: Source) -> Scores:
        unreadable.extend(f"{source.name}: {name}" for name in source.unreadable)
        if fim:
            rng = random.Random(f"{seed} {source.name}")
            return _score_files(source, lambda text: scorer.middles(text, rng))
        return _score_files(source, lambda text: (scorer.text(text),))

    rows = [(source.name, score(source)) for source in read_sources(sources)]
    rows.append(("total", _sum(scores for _, scores in rows)))
    columns = MIDDLES if fim else ("bits-per-byte",)
    if json_:
        protocol = (
            {"stretch": STRETCH, "seed": seed} if fim else {"window": WINDOW, "stride": STRIDE}
        )
        figures = {
            name: {
                column: asdict(score) | {"bits_per_byte": score.bits_per_byte}
                for column, score in zip(columns, scores, strict=True)
            }
            for name, scores in rows
        }
        report = {"model": model, "protocol": protocol, "scores": figures, "unreadable": unreadable}
        typer.echo(json.dumps(report, indent=2))
    else:
        _print_scores(columns, rows)
        for name in unreadable:
            typer.echo(f"not scored: {name}", err=True)


@app.command("parse-rate")
def parse_rate_(
    model: ModelName,
    sources: Sources,
    count: Annotated[int, typer.Option(min=1, help="Prompts, spread over the sources.")] = 50,
    max_tokens: Annotated[int, typer.Option(min=1, help="Tokens of a completion.")] = 64,
    seed: Seed = 0,
    json_: Json = False,
) -> None:
    """Share of completions that are whole Python.

    Prompts are cut from real files; completions are greedy. A last, unfinished
    line is dropped, and lines before it whose block or bracket is not finished;
    what is left must parse with the prompt and begin a statement other than pass.
    """
    prompts = cut_prompts(list(read_sources(sources)), count, seed)
    complete = greedy(load(model), max_tokens)
    results = list(
        track(
            parse_rate(prompts, complete),
            total=count,
            description="completing",
            console=Console(stderr=True),
            transient=True,
        )
    )
    if json_:
        protocol = {
            "max_tokens": max_tokens,
            "max_prompt_characters": MAX_CHARACTERS,
            "seed": seed,
        }
        passed = sum(result.verdict.passed for result in results)
        report = {"model": model, "protocol": protocol, "count": count, "passed": passed}
        typer.echo(json.dumps(report | {"results": list(map(asdict, results))}, indent=2))
    else:
        _print_results(results)


def _print_results(results: Sequence[Result]) -> None:
    passed = [result.verdict for result in results if result.verdict.passed]
    typer.echo(f"{len(passed)} of {len(results)} pass ({len(passed) / len(results):.0%})")
    dropped = [verdict.dropped_lines for verdict in passed]
    typer.echo(
        f"of these, {sum(map(bool, dropped))} with {sum(dropped)} unfinished lines dropped, "
        f"{sum(verdict.docstring_only for verdict in passed)} by a docstring alone"
    )
    for result in results:
        if not result.verdict.passed:
            prompt = result.prompt
            where = f"{prompt.source}: {prompt.path}:{prompt.line}"
            typer.echo(f"  {where}: {result.verdict.reason}")


def _score_files(source: Source, score: Callable[[str], Scores]) -> Scores:
    """The scores of a source's files, added up, under a progress bar."""
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(source.name, total=sum(len(text) for _, text in source.files))

        def watched(text: str) -> Scores:
            scores = score(text)
            progress.advance(task, len(text))
            return scores

        return _sum(watched(text) for _, text in source.files)


def _sum(rows: Iterable[Scores]) -> Scores:
    return [sum(column, Score()) for column in zip(*rows, strict=True)]


def _print_scores(columns: Sequence[str], rows: Sequence[tuple[str, Scores]]) -> None:
    table = Table("source", "bytes", "tokens", *columns)
    for column in table.columns[1:]:
        column.justify = "right"
    for name, scores in rows:
        figures = (f"{score.bits_per_byte:.4f}" for score in scores)
        table.add_row(name, f"{scores[0].bytes:,}", f"{scores[0].tokens:,}", *figures)
    Console().print(table)
    if skipped := rows[-1][1][0].skipped:
        typer.echo(f"{skipped} stretches did not fit the model's context", err=True)
