"""What a corpus may be asked: ``corpus report``, ``lookup``, ``index`` and ``notice``."""

import tempfile
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import typer

from ..corpus import lookup as asked
from ..corpus import report as pages
from ..corpus.attribution_index import AT_LEAST, build_compact, build_full
from ..corpus.notice import notice as notice_of
from ..corpus.parquet import read_documents, read_manifest
from ..errors import RequestError
from ..files import write_atomically
from .options import counted, read_text
from .progress import progress_bar

Corpus = Annotated[Path, typer.Argument(help="A folder made by `corpus build`.")]


def report(
    corpus: Corpus,
    output: Annotated[Path, typer.Option(help="The folder for report.html and report.md.")],
) -> None:
    """Write a page on a corpus: sources, licenses, drops with examples, sizes."""
    manifest = read_manifest(corpus)
    title = f"Corpus {corpus.resolve().name}"
    for name, write in (("report.html", pages.html), ("report.md", pages.markdown)):
        write_atomically(output / name, write(title, manifest).encode())
        typer.echo(str(output / name))


def lookup(
    corpus: Corpus,
    package: Annotated[str | None, typer.Option(metavar="NAME", help="Is this package?")] = None,
    path: Annotated[
        str | None,
        typer.Option(metavar="PATTERN", help="Is this path, or one that ends so? * matches."),
    ] = None,
    snippet: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Is this file's text, whole? -: standard input."),
    ] = None,
) -> None:
    """Am I in it? Look up a package, a path or a piece of code.

    Exits with 1 where nothing is found. A piece of code is found where it
    stands whole, white space not counted; `attribute` finds parts of it.
    """
    if sum(question is not None for question in (package, path, snippet)) != 1:
        raise RequestError("give one of --package, --path and --snippet")
    lines = _answers(corpus, package, path, snippet)
    first = next(lines, None)
    if first is None:
        typer.echo("not in the corpus")
        raise typer.Exit(1)
    for line in chain([first], lines):
        typer.echo(line)


def _answers(
    corpus: Path, package: str | None, path: str | None, snippet: Path | None
) -> Iterator[str]:
    if package is not None:
        yield from map(_described, asked.packages(corpus, package))
        for who in asked.excluded(corpus, package):
            yield f"{who}: excluded, with near duplicates of its files"
    if path is not None:
        yield from map(_shown, asked.paths(corpus, path))
    if snippet is not None:
        for file in asked.snippets(corpus, read_text(snippet)):
            yield f"{_shown(file)}:{file.line}"


def _shown(file: asked.Found) -> str:
    return " ".join(filter(None, (file.package, file.version, f"({file.license})", file.path)))


def _described(entry: dict[str, Any]) -> str:
    name = f"{entry['package']} {entry['version']}".strip()
    if entry["set_aside"]:
        return f"{name}: set aside: {entry['set_aside']}"
    dropped = "".join(
        f", {drop['files']} dropped: {reason}" for reason, drop in entry["dropped"].items()
    )
    size = f"{counted(entry['files'], 'file')}, {entry['bytes'] / 1e6:.1f} MB"
    return f"{name} ({entry['license']}): {size}{dropped}"


def index(
    corpus: Corpus,
    output: Annotated[Path, typer.Option(help="The folder to make; it must not exist.")],
    at_least: Annotated[
        int, typer.Option(metavar="K", help="Find spans of so many words or symbols.")
    ] = AT_LEAST,
    compact: Annotated[
        bool, typer.Option("--compact", help="At most 10 MB: package and license alone, not exact.")
    ] = False,
) -> None:
    """Make the index that `attribute` looks into, and `complete --attribute`.

    The full one finds every span and is about half of the corpus's size.
    """
    documents = read_documents(corpus)
    # A compact index is made from a full one, whose files are still mapped when it goes.
    temporary = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
    total = read_manifest(corpus)["totals"]["files"]
    with progress_bar() as show, temporary as folder:
        full = build_full(
            documents,
            Path(folder) / "full" if compact else output,
            at_least=at_least,
            progress=lambda done: show("documents", done, total),
        )
        if compact:
            made = build_compact(full, output)
            said = f"grams of {made.gram} words, {counted(made.stride, 'word')} apart,"
        else:
            said = f"spans of {full.at_least} words and more"
    size = sum(file.stat().st_size for file in output.iterdir())
    typer.echo(f"{output}: {size / 1e6:.1f} MB, {said} of {len(full.words)}")


def notice(
    corpus: Corpus,
    sources: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="SOURCE",
            help="What the corpus was built from: copyright lines are read from these.",
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="The file to write; by default standard output.")
    ] = None,
) -> None:
    """Write a NOTICE: the packages of a corpus, versions, licenses, copyright lines."""
    text = notice_of(read_manifest(corpus), sources or ())
    if output is None:
        typer.echo(text, nl=False)
    else:
        write_atomically(output, text.encode())
