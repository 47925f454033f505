"""What a source yields and every stage takes: one Python file and where it comes from.

A notebook's cells are told apart by special tokens. In a document's text such a
token is :data:`CONTROL` and its spelling; no text of a source holds CONTROL, so
a file that spells ``<jupyter_code>`` never makes a control token.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

CONTROL = "\0"
"""Stands before the spelling of a special token; sources set NUL bytes aside."""

# Documents that are in memory at once: so many, or so many characters and one more.
BATCH = 512
BATCH_CHARACTERS = 4 << 20

_CONTROL_TOKEN = re.compile(f"{CONTROL}(<[a-z_]+>)")


@dataclass(frozen=True, slots=True)
class Document:
    """One file of one package. ``text`` has ``\\n`` line ends and always encodes as UTF-8."""

    text: str
    path: str
    """Path inside the package, with forward slashes."""
    package: str
    """Package or repository."""
    version: str
    """Of the package; of a repository, the commit."""
    license: str
    """SPDX expression: the file's own where it says one, else its package's."""
    stars: int | None = None
    """Of the repository, where they are known."""
    quality: float | None = None
    """From 0 to 1: see ``quality.py``."""


def segments(text: str) -> list[str]:
    """Text, special token, text, token … text: what stands at odd places is a token's spelling."""
    return _CONTROL_TOKEN.split(text) if CONTROL in text else [text]


def batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    """The documents in lists of bounded size."""
    batch: list[Document] = []
    characters = 0
    for document in documents:
        batch.append(document)
        characters += len(document.text)
        if len(batch) >= BATCH or characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch
