"""What is typed: lines of held-out files, key by key, with so many tokens of the file around them.

The window does not move while a session lasts, as editors' plugins keep it; so
what a key costs is what it changes, and not how a client cuts its context.
"""

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tinystarcoder.evaluation.held_out import deal, read_sources
from tinystarcoder.tokenizer import Tokenizer

_LINE_START = re.compile(r"\n[ \t]*(?=\S)")
_FEWEST, _MOST = 4, 8  # Characters of a window a token: other places are passed over.


@dataclass(frozen=True)
class Session:
    """``keys`` typed between ``before`` and ``after``."""

    id: str
    before: str
    keys: str
    after: str


def sample(
    wheels: list[Path], tokenizer: Tokenizer, count: int, keys: int, context: int, seed: int = 0
) -> list[Session]:
    """Sessions of so many keys, ``context`` tokens around them, three before for one after.

    Evenly over the wheels and their files; the same for the same seed. Raises
    CorpusError where a wheel has too few places.
    """
    before, after = context * 3 // 4, context // 4

    def cut(source: str, path: str, text: str, rng: random.Random) -> Iterator[Session]:
        first, last = before * _FEWEST, len(text) - keys - after * _FEWEST
        places = [m.end() for m in _LINE_START.finditer(text) if first < m.end() < last]
        for at in rng.sample(places, len(places)):
            stop = text.find("\n", at + keys)
            head = _last_lines(text[:at], before, tokenizer)
            tail = _first_lines(text[stop:], after, tokenizer) if stop > 0 else ""
            if head and tail:
                yield Session(f"{source}: {path}", head, text[at : at + keys], tail)

    return deal(list(read_sources(wheels)), count, seed, cut)


def _last_lines(text: str, tokens: int, tokenizer: Tokenizer) -> str:
    """The text's end, from a line's start, of at most so many tokens; none where it is shorter."""
    ids = tokenizer.encode(text[-tokens * _MOST :])
    if len(ids) <= tokens or not text.isascii():
        return ""
    return tokenizer.decode(ids[-tokens:]).partition("\n")[2]


def _first_lines(text: str, tokens: int, tokenizer: Tokenizer) -> str:
    """The text's beginning, up to a line's end, of at most so many tokens; none if shorter."""
    ids = tokenizer.encode(text[: tokens * _MOST])
    if len(ids) <= tokens or not text.isascii():
        return ""
    return tokenizer.decode(ids[:tokens]).rpartition("\n")[0] + "\n"
