"""Keystrokes saved: lines of held-out files typed again, with suggestions at every key.

A line is typed from behind its indentation, what stood before and after it
being there already. At each place the suggestion is asked for; where it is
exactly what the author wrote next, accepting it costs one key, and else one
character is typed. So a suggestion that is longer than what follows, or wrong
at its end, saves nothing: nobody is credited with deleting.

It gives up the person: one who never reads costs nothing, and accepts the
first suggestion that is right, though a later one might have said more.
"""

import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from ..completion.request import CompletionRequest
from ..completion.service import CompletionService
from ..generation.sampling import SamplingOptions
from .held_out import Source, deal

Kind = Literal["import", "definition", "return", "assignment", "comment", "other"]
KINDS: tuple[Kind, ...] = ("import", "definition", "return", "assignment", "comment", "other")

# Characters of a file around a line, as an editor's plugin sends them.
BEFORE, AFTER = 4000, 1000
# A line is suggested whole, or as much of it as so many tokens are.
MAX_TOKENS = 32
_LEAST = 4

_FORMS: tuple[tuple[Kind, str], ...] = (
    ("import", r"(from\s+\S+\s+)?import\b"),
    ("definition", r"(async\s+)?def\b|class\b|@"),
    ("return", r"(return|yield|raise)\b"),
    ("comment", r"#|[rRbBuU]{0,2}(\"\"\"|''')"),
    ("assignment", r"[\w.\[\]'\", *]+(:[^=]+)?\s*[-+*/|&]?=(?!=)"),
)


@dataclass(frozen=True)
class Line:
    """One line to type: ``text`` between ``before``, with its indentation, and ``after``."""

    id: str
    path: str
    before: str
    text: str
    after: str

    @property
    def kind(self) -> Kind:
        """By how it begins; a line inside a docstring is mostly ``other``."""
        found = (kind for kind, pattern in _FORMS if re.match(pattern, self.text))
        return next(found, "other")


@dataclass(frozen=True)
class Typed:
    """How a line was typed: ``keys`` for its ``characters``, an accepted suggestion being one.

    ``places``: where a suggestion was asked for; ``shown``: where there was
    one; ``accepted``: how many were right; ``whole``: the first one was the line.
    """

    characters: int
    keys: int
    places: int
    shown: int
    accepted: int
    whole: bool

    @property
    def saved(self) -> int:
        """Keys that did not have to be pressed."""
        return self.characters - self.keys


# Takes a line and how many of its characters stand there; returns what is suggested.
Suggest = Callable[[Line, int], str]


def sample_lines(sources: Sequence[Source], count: int, seed: int = 0) -> list[Line]:
    """``count`` lines of at least four characters, evenly over the sources and their files.

    Raises CorpusError where a source has too few.
    """
    return list(deal(sources, count, seed, _lines_of))


def replay(line: Line, suggest: Suggest) -> Typed:
    """Types the line, accepting whatever is right."""
    at = keys = places = shown = accepted = 0
    whole = False
    while at < len(line.text):
        places += 1
        text = suggest(line, at)
        shown += bool(text)
        if text and line.text.startswith(text, at):
            accepted += 1
            whole = whole or (at == 0 and len(text) == len(line.text))
            at += len(text)
        else:
            at += 1
        keys += 1
    return Typed(len(line.text), keys, places, shown, accepted, whole)


def by_service(service: CompletionService) -> Suggest:
    """The completion service's suggestions of one line."""
    sampling = SamplingOptions(max_tokens=MAX_TOKENS)

    def suggest(line: Line, at: int) -> str:
        prefix = line.before + line.text[:at]
        request = CompletionRequest(prefix, line.after, mode="line", sampling=sampling)
        return service.suggest(request).text

    return suggest


def without_filters(service: CompletionService) -> Suggest:
    """What the model writes up to the line's end, as it comes."""
    sampling = SamplingOptions(max_tokens=MAX_TOKENS, stop=("\n",))

    def suggest(line: Line, at: int) -> str:
        ids = service.infill_ids(line.before + line.text[:at], line.after, MAX_TOKENS)
        return service.run(ids, sampling).whole().text

    return suggest


def _lines_of(source: str, path: str, text: str, rng: random.Random) -> Iterator[Line]:
    """The file's lines that can be typed, in random order."""
    lines = [(found.start(), found[0]) for found in re.finditer(r"[^\n]+", text)]
    for start, line in rng.sample(lines, len(lines)):
        written = line.strip()
        if len(written) >= _LEAST:
            at = start + line.index(written)
            number = text.count("\n", 0, at) + 1
            before = text[max(0, at - BEFORE) : at]
            after = text[start + len(line) :][:AFTER]
            yield Line(f"{source}: {path}:{number}", path, before, written, after)
