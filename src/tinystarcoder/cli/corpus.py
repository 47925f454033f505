"""``tinystarcoder corpus``: build a corpus from packages, make it tokens, and ask it."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ..corpus.bulk_encoding import CHECK_EVERY
from ..corpus.pipeline import build_corpus
from ..corpus.settings import Settings
from ..corpus.tokenizing import tokenize_corpus
from . import governance
from .options import counted
from .progress import progress_bar

app = typer.Typer(add_completion=False, rich_markup_mode=None, no_args_is_help=True)


Sources = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCE...",
        help="Names of packages (pypi:NAME to be sure), wheels, sdists (.tar.gz, .zip), folders, "
        "git repositories (folders, or git+file:///PATH@REVISION), tables (.parquet, "
        ".jsonl[.gz]), data sets (hf:OWNER/NAME), notebooks.",
    ),
]
Output = Annotated[Path, typer.Option(help="The folder to make; it must not exist.")]
Jobs = Annotated[int | None, typer.Option(min=1, help="Worker processes; by default one a core.")]
License = Annotated[
    str | None,
    typer.Option(
        "--license",
        metavar="SPDX",
        help="License of what does not say its own, packages aside; else it is set aside.",
    ),
]
Exclude = Annotated[
    list[str] | None,
    typer.Option(
        metavar="SOURCE",
        help="A package that must not enter, nor near duplicates of its files. Repeatable.",
    ),
]
Skip = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME", help="A folder name to leave out of folders. Repeatable."),
]
NearDedup = Annotated[bool, typer.Option(help="Drop near duplicates.")]
Redact = Annotated[
    bool,
    typer.Option(help="Replace e-mail and public IP addresses, keys, passwords, authors' names."),
]
StripLicenseHeaders = Annotated[
    bool, typer.Option(help="Take off comments at the top that repeat the license.")
]
OptOut = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="A TOML list of packages, repositories, paths and authors to leave out.",
    ),
]
Decontaminate = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="FILE",
        help="A benchmark (.jsonl[.gz], .parquet); files that hold a problem or a solution "
        "of it are dropped. Repeatable.",
    ),
]
MinQuality = Annotated[float, typer.Option(min=0, max=1, help="Drop files that score less.")]
Cache = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER", help="Where wheels by name are kept; by default the user's cache."
    ),
]


@app.callback()
def corpus() -> None:
    """Build training data from Python packages."""


@app.command()
def build(
    sources: Sources,
    output: Output,
    license_: License = None,
    exclude: Exclude = None,
    skip: Skip = None,
    near_dedup: NearDedup = True,
    redact: Redact = False,
    strip_license_headers: StripLicenseHeaders = False,
    opt_out: OptOut = None,
    decontaminate: Decontaminate = None,
    min_quality: MinQuality = 0.0,
    cache: Cache = None,
    jobs: Jobs = None,
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
    with progress_bar() as progress:
        manifest = build_corpus(
            sources,
            output,
            settings=settings,
            excluded=exclude or (),
            cache=cache,
            jobs=jobs or os.cpu_count() or 1,
            announce=_announce,
            progress=progress,
        )
    _print_summary(output, manifest)


def _announce(names: Sequence[str]) -> None:
    typer.echo(
        f"packages by name, from the package index or the cache: {', '.join(names)}", err=True
    )


def _print_summary(output: Path, manifest: Mapping[str, Any]) -> None:
    totals = manifest["totals"]
    typer.echo(
        f"{output}: {totals['bytes'] / 1e6:.1f} MB in {counted(totals['files'], 'file')} "
        f"of {counted(totals['packages'], 'package')} (read: {totals['read_bytes'] / 1e6:.1f} MB "
        f"in {counted(totals['read_files'], 'file')})"
    )
    for name, count in manifest["dropped_files"].items():
        typer.echo(f"  {count:7} dropped: {name}")
    for kind, count in manifest["redacted"].items():
        typer.echo(f"  {count:7} replaced: {kind}")
    for report in manifest["packages"]:
        if report["set_aside"]:
            typer.echo(f"  set aside: {report['source']}: {report['set_aside']}")


@app.command()
def tokenize(
    corpus: Annotated[Path, typer.Argument(help="A folder made by `corpus build`.")],
    tokenizer: Annotated[Path, typer.Option(help="A folder with a tokenizer.")],
    output: Output,
    check_every: Annotated[
        int,
        typer.Option(
            min=1,
            help="Encode one of so many documents by the tokenizers library too, and compare.",
        ),
    ] = CHECK_EVERY,
    short_docstrings: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="Share of docstrings that are cut to their first paragraph."
        ),
    ] = 0.0,
    jobs: Jobs = None,
) -> None:
    """Make the token shards that training reads.

    Started again after an interruption, it goes on where it stopped.
    """
    with progress_bar() as progress:
        shards = tokenize_corpus(
            corpus,
            tokenizer,
            output,
            check_every=check_every,
            short_docstrings=short_docstrings,
            jobs=jobs or os.cpu_count() or 1,
            progress=progress,
        )
    typer.echo(
        f"{output}: {shards.num_tokens} tokens of {counted(len(shards), 'document')}, "
        f"{shards.num_bytes / shards.num_tokens:.3f} bytes a token"
    )


for command in (governance.report, governance.lookup, governance.index, governance.notice):
    app.command()(command)
