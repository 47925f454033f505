"""What a source yields and every stage takes: one Python file and where it comes from.

A notebook's cells are told apart by special tokens. In a document's text such a
token is :data:`CONTROL` and its spelling; no text of a source holds CONTROL, so
a file that spells ``<jupyter_code>`` never makes a control token.
"""

import re
from dataclasses import dataclass

CONTROL = "\0"
"""Stands before the spelling of a special token; sources set NUL bytes aside."""

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
