"""``tinystarcoder corpus``: build a corpus from packages, make it tokens, and ask it."""

import os
from pathlib import Path
from typing import Annotated

import typer

from ..corpus.bulk_encoding import CHECK_EVERY
from ..corpus.pipeline import build_corpus
from ..corpus.settings import Settings
from ..corpus.tokenizing import tokenize_corpus
from . import governance
from .progress import progress_bar

app = typer.Typer(add_completion=False, rich_markup_mode=None, no_args_is_help=True)


@app.callback()
def corpus() -> None:
    """Build training data from Python packages."""


@app.command()
def build(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="Names of packages, wheels, sdists (.tar.gz, .zip), folders, git repositories "
            "(folders, or git+file:///PATH@REVISION), tables (.parquet, .jsonl[.gz]), data sets "
            "(hf:OWNER/NAME), notebooks.",
        ),
    ],
    output: Annotated[Path, typer.Option(help="The folder to make; it must not exist.")],
    license_: Annotated[
        str | None,
        typer.Option(
            "--license",
            metavar="SPDX",
            help="License of what does not say its own, packages aside; else it is set aside.",
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SOURCE",
            help="A package that must not enter, nor near duplicates of its files. Repeatable.",
        ),
    ] = None,
    skip: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A folder name to leave out of folders. Repeatable."),
    ] = None,
    near_dedup: Annotated[bool, typer.Option(help="Drop near duplicates.")] = True,
    redact: Annotated[
        bool,
        typer.Option(
            help="Replace e-mail and public IP addresses, keys, passwords, authors' names."
        ),
    ] = False,
    strip_license_headers: Annotated[
        bool, typer.Option(help="Take off comments at the top that repeat the license.")
    ] = False,
    opt_out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A TOML list of packages, repositories, paths and authors to leave out.",
        ),
    ] = None,
    decontaminate: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="A benchmark (.jsonl[.gz], .parquet); files that hold a problem or a solution "
            "of it are dropped. Repeatable.",
        ),
    ] = None,
    min_quality: Annotated[
        float, typer.Option(min=0, max=1, help="Drop files that score less.")
    ] = 0.0,
    cache: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Where wheels by name are kept; by default the user's cache."
        ),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Worker processes; by default one a core.")
    ] = None,
) -> None:
    """Build a corpus folder: licensed, filtered, deduplicated, with a manifest.

    Started again after an interruption, it goes on where it stopped.
    """
    settings = Settings(
        license=license_,
        skipped=tuple(skip or ()),
        near_dedup=near_dedup,
        redact=redact,
        strip_license_headers=strip_license_headers,
        min_quality=min_quality,
        opt_out=None if opt_out is None else str(opt_out),
        decontaminate=tuple(map(str, decontaminate or ())),
    )
    with progress_bar() as bar:
        task = bar.add_task("")
        manifest = build_corpus(
            sources,
            output,
            settings=settings,
            excluded=exclude or (),
            cache=cache,
            jobs=jobs or os.cpu_count() or 1,
            progress=lambda stage, done, total: bar.update(
                task, description=stage, completed=done, total=total
            ),
        )
    totals = manifest["totals"]
    typer.echo(
        f"{output}: {totals['bytes'] / 1e6:.1f} MB in {totals['files']} files "
        f"of {totals['packages']} packages (read: {totals['read_bytes'] / 1e6:.1f} MB in "
        f"{totals['read_files']} files)"
    )
    for name, count in manifest["dropped_files"].items():
        typer.echo(f"  {count:7} files dropped: {name}")
    for kind, count in manifest["redacted"].items():
        typer.echo(f"  {count:7} replaced: {kind}")
    for report in manifest["packages"]:
        if report["set_aside"]:
            typer.echo(f"  set aside: {report['source']}: {report['set_aside']}")


@app.command()
def tokenize(
    corpus: Annotated[Path, typer.Argument(help="A folder made by `corpus build`.")],
    tokenizer: Annotated[Path, typer.Option(help="A folder with a tokenizer.")],
    output: Annotated[Path, typer.Option(help="The folder to make; it must not exist.")],
    check_every: Annotated[
        int,
        typer.Option(
            min=1,
            help="Encode one of so many documents by the tokenizers library too, and compare.",
        ),
    ] = CHECK_EVERY,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Worker processes; by default one a core.")
    ] = None,
) -> None:
    """Make the token shards that training reads.

    Started again after an interruption, it goes on where it stopped.
    """
    with progress_bar() as bar:
        task = bar.add_task("")
        shards = tokenize_corpus(
            corpus,
            tokenizer,
            output,
            check_every=check_every,
            jobs=jobs or os.cpu_count() or 1,
            progress=lambda step, done, total: bar.update(
                task, description=step, completed=done, total=total
            ),
        )
    typer.echo(
        f"{output}: {shards.num_tokens} tokens of {len(shards)} documents, "
        f"{shards.num_bytes / shards.num_tokens:.3f} bytes a token"
    )


for command in (governance.report, governance.lookup, governance.index, governance.notice):
    app.command()(command)
