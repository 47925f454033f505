"""``tinystarcoder tokenizer``: learn a vocabulary from a corpus."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from ..corpus.parquet import read_documents, read_manifest
from ..errors import TokenizerError
from ..tokenizer import Tokenizer

app = typer.Typer(add_completion=False, rich_markup_mode=None, no_args_is_help=True)


@app.callback()
def tokenizer() -> None:
    """Train a tokenizer."""


@app.command()
def train(
    corpus: Annotated[Path, typer.Argument(help="A folder made by `corpus build`.")],
    output: Annotated[Path, typer.Option(help="The folder to make; it must not exist.")],
    vocab_size: Annotated[int, typer.Option(help="Ids, 19 special tokens and 256 bytes included.")],
    sample_bytes: Annotated[
        int | None,
        typer.Option(min=1, help="Learn from about so many bytes, spread evenly over the corpus."),
    ] = None,
) -> None:
    """Learn a byte-level BPE from a corpus."""
    if output.exists():
        raise TokenizerError(f"{output}: exists; remove it or choose another --output")
    trained = Tokenizer.train(_texts(corpus, sample_bytes), vocab_size, progress=True)
    trained.save(output)
    typer.echo(f"{output}: {trained.vocab_size} ids")


def _texts(corpus: Path, sample_bytes: int | None) -> Iterator[str]:
    """Every text, or every n-th document so that ``sample_bytes`` are reached at the end."""
    total = read_manifest(corpus)["totals"]["bytes"]
    share = 1.0 if sample_bytes is None else min(1.0, sample_bytes / total)
    due = 0.0
    for document in read_documents(corpus):
        due += share
        if due >= 1:
            due -= 1
            yield document.text
