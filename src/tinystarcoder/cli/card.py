"""``tinystarcoder card``: a model card from a run, or from a published card's plain text."""

import json
from pathlib import Path
from typing import Annotated

import typer

from ..errors import RequestError
from ..evaluation.card import Labels, read_run
from ..evaluation.card import card as make_card
from ..evaluation.card_text import LABELS, suggest_labels, to_markdown
from .options import read_text

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def card(
    run: Annotated[
        Path | None,
        typer.Argument(metavar="RUN", help="A folder of tinystarcoder train, or a model's."),
    ] = None,
    from_text: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Turn this plain text into Markdown; -: standard input."),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="With --from-text: the labels to choose from, a JSON object of key to value.",
        ),
    ] = None,
    evaluation: Annotated[
        Path | None, typer.Option(help="The --output of tinystarcoder evaluate.")
    ] = None,
    corpus: Annotated[Path | None, typer.Option(help="The folder of corpus build.")] = None,
    name: Annotated[str, typer.Option(help="The model's name; by default the folder's.")] = "",
    license_: Annotated[
        str, typer.Option("--license", help="The weights' license, by the Hub's id.")
    ] = "",
    dataset: Annotated[
        list[str] | None, typer.Option(help="An id of what it was trained on. Repeatable.")
    ] = None,
    about: Annotated[Path | None, typer.Option(help="Markdown to stand under the title.")] = None,
) -> None:
    """Write a model card.

    Markdown with the Hub's front matter, from what the run and its evaluation
    wrote: no other figure is in it. With --from-text, a published card's plain text
    becomes Markdown again, with suggested labels below.
    """
    if (run is None) == (from_text is None):
        raise RequestError("give a run's folder, or --from-text FILE")
    if labels is not None and from_text is None:
        raise RequestError("--labels goes with --from-text: a run's card has no labels to choose")
    if from_text is not None:
        typer.echo(_from_text(read_text(from_text), labels), nl=False)
    elif run is not None:
        chosen = Labels(
            name or run.resolve().name,
            license_,
            dataset or (),
            read_text(about) if about else "",
        )
        typer.echo(make_card(read_run(run, evaluation, corpus), chosen), nl=False)


def _from_text(text: str, labels: Path | None) -> str:
    chosen = suggest_labels(text, LABELS if labels is None else _read_labels(labels))
    objects = ",\n".join(json.dumps(label, ensure_ascii=False) for label in chosen)
    suggested = f"\n## Suggested labels\n\n```json\n[\n{objects}\n]\n```\n" if chosen else ""
    return to_markdown(text) + suggested


def _read_labels(path: Path) -> dict[str, str]:
    try:
        found = json.loads(read_text(path))
    except ValueError as error:
        raise RequestError(f"{path}: is no JSON: {error}") from error
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise RequestError(f"{path}: labels are one JSON object of key to value, both strings")
    return found
