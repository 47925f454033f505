"""``tinystarcoder evaluate``: measure a model, by published benchmarks and on unseen files.

``evaluate MODEL`` runs a suite of tasks into a folder (the command ``all``, which
need not be said); the other commands print one measure.
"""

import json
import os
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.progress import Progress, track
from rich.table import Table
from typer.core import TyperGroup

from ..engine.packed_weights import Precision
from ..errors import EvaluationError, RequestError
from ..evaluation import report
from ..evaluation.bits_per_byte import MIDDLES, STRETCH, STRIDE, WINDOW, Score, Scorer
from ..evaluation.execution import Limits
from ..evaluation.generators import FamilyModel
from ..evaluation.held_out import Source, read_sources
from ..evaluation.parse_rate import (
    MAX_CHARACTERS,
    MAX_TOKENS,
    Result,
    cut_prompts,
    parse_rate,
)
from ..evaluation.problems import BENCHMARKS
from ..evaluation.sandbox import Sandbox
from ..evaluation.scoring import Run, runner
from ..evaluation.suite import (
    ON_FILES,
    TASKS,
    Settings,
    Subject,
    Suite,
)
from ..fim import Order
from ..pretrained import load
from .options import counted
from .progress import for_terminal

T = TypeVar("T")


class SuiteGroup(TyperGroup):
    """Takes a first word that is no command for a model's name, and ``all`` for said."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        known = args[0] in self.commands or args[0].startswith("-")
        return super().resolve_command(ctx, args if known else ["all", *args])


app = typer.Typer(cls=SuiteGroup, add_completion=False, rich_markup_mode=None, no_args_is_help=True)

ModelName = Annotated[
    str, typer.Argument(metavar="MODEL", help="nano, a folder, or a hub repository.")
]
Sources = Annotated[
    list[Path], typer.Argument(metavar="SOURCE", help="Wheels, sdists, folders or .py files.")
]
Weights = Annotated[
    Precision,
    typer.Option("--precision", help="Of the weights in memory; int8 is what users run."),
]
Seed = Annotated[int, typer.Option(help="Draws where files are cut.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, with every figure.")]

# Of `all` alone.
Subjects = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="nano, a folder or a hub id; transformers:NAME; llama.cpp:URL or "
        "openai:URL#NAME; jedi, for keystrokes.",
    ),
]
HeldOut = Annotated[
    list[Path] | None,
    typer.Argument(metavar="SOURCE", help="Held-out wheels, sdists, folders or .py files."),
]
Tasks = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME[:FILE]",
        help=f"Of {', '.join(TASKS)}, with the benchmark's file. Repeatable; "
        "without it, those on files.",
    ),
]
Draft = Annotated[
    str | None,
    typer.Option(metavar="MODEL", help="For speculation; without it, prompt lookup."),
]
Limit = Annotated[
    int | None, typer.Option(min=1, help="So many problems a benchmark, evenly spread.")
]
Lines = Annotated[
    int,
    typer.Option(
        min=1, help="Lines that line-match masks and keystrokes types; holes of boundaries."
    ),
]
Prompts = Annotated[int, typer.Option(min=1, help="Prompts of parse-rate and speculation.")]
Scored = Annotated[
    bool, typer.Option("--score/--no-score", help="Score the samples, or write them alone.")
]
NoSandbox = Annotated[
    bool, typer.Option("--unsafe-no-sandbox", help="Run model-written code without one.")
]

# The scores of one file or source, a column each.
Scores = Sequence[Score]


@app.callback()
def evaluate() -> None:
    """Measure a model. evaluate MODEL is short for evaluate all MODEL."""


@app.command("all")
def all_(
    model: Subjects,
    output: Annotated[Path, typer.Option(help="Where samples, scores and reports go.")],
    sources: HeldOut = None,
    task: Tasks = None,
    draft: Draft = None,
    samples: Annotated[int, typer.Option(min=1, help="Samples a problem.")] = 1,
    temperature: Annotated[float, typer.Option(help="0: greedy.")] = 0.0,
    top_p: Annotated[float, typer.Option(help="Draw among those of this probability.")] = 1.0,
    limit: Limit = None,
    lines: Lines = 500,
    prompts: Prompts = 50,
    seed: Annotated[int, typer.Option(help="Draws samples, and where files are cut.")] = 0,
    precision: Weights = "fp32",
    order: Annotated[Order, typer.Option(help="In which infilling is asked.")] = "spm",
    score: Scored = True,
    cpu_seconds: Annotated[int, typer.Option(min=1, help="CPU time of a program.")] = 3,
    workers: Annotated[int, typer.Option(min=1, help="Programs at a time.")] = os.cpu_count() or 1,
    unsafe_no_sandbox: NoSandbox = False,
) -> None:
    """Run tasks; write report.json, report.md, report.html and plots.

    What is in the output already is not done again, so a run that was killed goes
    on, and samples written with --no-score are scored by a second call. Programs run
    in bubblewrap.
    """
    names = [_named_task(text) for text in task or (ON_FILES if sources else ("human-eval",))]
    settings = Settings(samples, temperature, top_p, seed, limit, lines, prompts)
    settings.options()  # Complains before anything is read.
    found = list(read_sources(sources or []))
    suite = Suite(Subject(model, precision, order), output, settings, found, _watch)
    run: Run | None = None
    if score and any(name in BENCHMARKS for name, _ in names):
        run = runner(Sandbox(unsafe=unsafe_no_sandbox), Limits(cpu_seconds, 5.0 * cpu_seconds))
    for name, path in names:
        suite.run(name, path, draft=draft, score=score, run=run, workers=workers)
    if score:
        typer.echo(report.markdown(report.write(output)))


def _named_task(text: str) -> tuple[str, Path | None]:
    name, _, path = text.partition(":")
    if name not in TASKS:
        raise RequestError(f"--task {name}: must be one of {', '.join(TASKS)}")
    if path and name not in BENCHMARKS:
        raise RequestError(f"--task {text}: {name} has no file; it is about SOURCE, named before")
    return name, Path(path) if path else None


def _watch(description: str, total: int, things: Iterable[T]) -> Iterable[T]:
    """Passes on what comes, under a progress bar where there is a terminal."""
    return track(things, total=total, description=description, transient=True, **for_terminal())


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
    precision: Weights = "fp32",
    json_: Json = False,
) -> None:
    """Bits for each byte of Python: fewer are better.

    Every .py file from its start, in windows of 1,024 tokens, 512 apart, every token
    scored once; end-of-text is not scored.
    """
    loaded = load(model, precision=precision)
    scorer = Scorer(loaded.decoder, loaded.tokenizer)
    unreadable: list[str] = []

    def score(source: Source) -> Scores:
        unreadable.extend(f"{source.name}: {name}" for name in source.unreadable)
        if fim:
            return _score_files(
                source,
                lambda path, text: scorer.middles(
                    text, random.Random(f"{seed} {source.name}: {path}")
                ),
            )
        return _score_files(source, lambda path, text: (scorer.text(text),))

    rows = [(source.name, score(source)) for source in read_sources(sources)]
    rows.append(("total", _sum(scores for _, scores in rows)))
    columns = MIDDLES if fim else ("bits-per-byte",)
    if not rows[-1][1][0].bytes:
        names = ", ".join(map(str, sources))
        raise EvaluationError(
            f"{names}: no text of which something can be scored; give longer files"
        )
    if json_:
        protocol = (
            {"stretch": STRETCH, "seed": seed} if fim else {"window": WINDOW, "stride": STRIDE}
        )
        figures = {
            name: {
                column: asdict(score)
                | {"bits_per_byte": score.bits_per_byte if score.bytes else None}
                for column, score in zip(columns, scores, strict=True)
            }
            for name, scores in rows
        }
        shown = {"model": model, "protocol": protocol, "scores": figures, "unreadable": unreadable}
        typer.echo(json.dumps(shown, indent=2))
    else:
        _print_scores(columns, rows)
        for name in unreadable:
            typer.echo(f"not scored: {name}", err=True)


@app.command("parse-rate")
def parse_rate_(
    model: ModelName,
    sources: Sources,
    count: Annotated[int, typer.Option(min=1, help="Prompts, spread over the sources.")] = 50,
    max_tokens: Annotated[int, typer.Option(min=1, help="Tokens of a completion.")] = MAX_TOKENS,
    seed: Seed = 0,
    precision: Weights = "fp32",
    json_: Json = False,
) -> None:
    """Share of completions that are whole Python.

    Prompts are cut from real files; completions are greedy. A last, unfinished
    line is dropped, and lines before it whose block or bracket is not finished;
    what is left must parse with the prompt and begin a statement other than pass.
    """
    prompts = cut_prompts(list(read_sources(sources)), count, seed)
    generator = FamilyModel(load(model, precision=precision))
    results = list(_watch("completing", count, parse_rate(prompts, generator, max_tokens)))
    if json_:
        protocol = {
            "max_tokens": max_tokens,
            "max_prompt_characters": MAX_CHARACTERS,
            "seed": seed,
        }
        passed = sum(result.verdict.passed for result in results)
        shown = {"model": model, "protocol": protocol, "count": count, "passed": passed}
        typer.echo(json.dumps(shown | {"results": list(map(asdict, results))}, indent=2))
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
            typer.echo(f"  {result.prompt.id}: {result.verdict.reason}")


def _score_files(source: Source, score: Callable[[str, str], Scores]) -> Scores:
    """The scores of a source's files, added up, under a progress bar."""
    with Progress(transient=True, **for_terminal()) as progress:
        task = progress.add_task(source.name, total=sum(len(text) for _, text in source.files))

        def watched(path: str, text: str) -> Scores:
            scores = score(path, text)
            progress.advance(task, len(text))
            return scores

        return _sum(watched(path, text) for path, text in source.files)


def _sum(rows: Iterable[Scores]) -> Scores:
    return [sum(column, Score()) for column in zip(*rows, strict=True)]


def _print_scores(columns: Sequence[str], rows: Sequence[tuple[str, Scores]]) -> None:
    table = Table("source", "bytes", "tokens", *columns)
    for column in table.columns[1:]:
        column.justify = "right"
    for name, scores in rows:
        figures = (f"{score.bits_per_byte:.4f}" if score.bytes else "-" for score in scores)
        table.add_row(name, f"{scores[0].bytes:,}", f"{scores[0].tokens:,}", *figures)
    Console().print(table)
    if skipped := rows[-1][1][0].skipped:
        told = counted(skipped, "stretch", "stretches")
        typer.echo(f"{told} did not fit the model's context", err=True)
