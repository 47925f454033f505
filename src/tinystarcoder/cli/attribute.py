"""``tinystarcoder attribute``: what of a text stands in the corpus that a model learned from."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from ..corpus import attribution
from ..corpus.attribution import CompactIndex, FullIndex, Span, open_index
from ..errors import RequestError
from ..pretrained import BUNDLED, locate
from .options import STANDARD_INPUT, counted, has_input, read_text

app = typer.Typer(add_completion=False, rich_markup_mode=None)

SHOWN = 5
"""Sources that are printed of a span."""

_EXCERPT = 60

IndexFolder = Annotated[
    Path | None,
    typer.Option(
        "--index",
        metavar="DIR",
        help="An index made by `corpus index`; by default the model's own compact one.",
    ),
]


@app.command()
def attribute(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="The file to look up; - or none: standard input."),
    ] = STANDARD_INPUT,
    index: IndexFolder = None,
    at_least: Annotated[
        int | None,
        typer.Option(metavar="K", help="Only spans of so many: 50, by default, or more."),
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Find what of a text stands verbatim in the training corpus.

    Prints the spans of at least K words or symbols, white space not counted,
    and whose they are. A full index finds every one, with package, version,
    path and license. nano's own is compact: it knows package and license,
    may miss a span of less than 76, counts what it saw of one, and names a package
    wrongly in one or two of a hundred texts of 128.
    """
    if file == STANDARD_INPUT and not has_input():
        raise RequestError("nothing to look up: name a file, or give text on standard input")
    opened = open_attribution(BUNDLED, index)
    text = read_text(file)
    spans = opened.find(text, at_least)
    if json_:
        typer.echo(json.dumps([_as_json(text, span) for span in spans], indent=2))
        return
    for line in described(text, spans):
        typer.echo(line)
    if not spans:
        typer.echo(f"no span of {at_least or opened.at_least} words or symbols was found")


def open_attribution(model: str, folder: Path | None) -> FullIndex | CompactIndex:
    """The index that is named, or that lies beside a model."""
    if folder is not None:
        return open_index(folder)
    beside = locate(model) / attribution.FOLDER
    if not beside.is_dir():
        raise RequestError(
            f"{model}: no attribution index of its corpus lies beside this model; "
            "make one with `corpus index` and name it with --index"
        )
    return open_index(beside)


def described(text: str, spans: Sequence[Span]) -> list[str]:
    """Lines to print: whose each span is, the common ones together at the end."""
    shown = []
    for span in spans:
        if span.common:
            continue
        first = text[span.start : span.end].split("\n")[0]
        excerpt = first if len(first) <= _EXCERPT else first[:_EXCERPT] + "…"
        more = "" if span.files else " or more"
        shown.append(f"{_lines(text, span)}, {span.words} words{more}: {excerpt}")
        shown += [f"  {_whose(source)}" for source in span.sources[:SHOWN]]
        if span.files > SHOWN:
            shown.append(f"  and {counted(span.files - SHOWN, 'more file')}")
    common = list(dict.fromkeys(_lines(text, span) for span in spans if span.common))
    if common:
        shown.append(f"common, in {attribution.COMMON} packages or more: {'; '.join(common)}")
    return shown


def _whose(source: attribution.Source) -> str:
    parts = (source.package, source.version, f"({source.license})", source.path)
    return " ".join(filter(None, parts))


def _lines(text: str, span: Span) -> str:
    first, last = _line_numbers(text, span)
    return f"line {first}" if first == last else f"lines {first}-{last}"


def _line_numbers(text: str, span: Span) -> tuple[int, int]:
    first = text.count("\n", 0, span.start) + 1
    return first, first + text.count("\n", span.start, span.end)


def _as_json(text: str, span: Span) -> dict[str, Any]:
    first, last = _line_numbers(text, span)
    return {"first_line": first, "last_line": last, **asdict(span)}
