"""Keystrokes saved: lines of held-out files typed again, with suggestions at every key.

A line is typed from behind its indentation, what stood before and after it
being there already. At each place the suggestion is asked for; where it is
exactly what the author wrote next, accepting it costs one key, and else one
character is typed. So a suggestion that is longer than what follows, or wrong
at its end, saves nothing: nobody is credited with deleting.

As a task it has two halves. What a model writes at each place of each line is
kept, unfiltered, many lines at a time; replays of what is kept, with the
service's filters and without, with its suggestion cache as a user has it, take
seconds. Another filter or threshold needs no model again.

It gives up the person: one who never reads costs nothing, and accepts the
first suggestion that is right, though a later one might have said more.
"""

import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from ..completion.postprocess import Filter, postprocess
from ..completion.request import CompletionRequest, Score, Suggestion
from ..completion.suggestion_cache import SuggestionCache
from ..generation.sampling import SamplingOptions
from .generators import Ask, Generator
from .held_out import Source, deal
from .journal import Journal, Record

Kind = Literal["import", "definition", "return", "assignment", "comment", "other"]
KINDS: tuple[Kind, ...] = ("import", "definition", "return", "assignment", "comment", "other")

# Characters of a file around a line, as an editor's plugin sends them.
BEFORE, AFTER = 4000, 1000
# A line is suggested whole, or as much of it as so many tokens are.
MAX_TOKENS = 32
_LEAST = 4
# Lines that are typed at once: as many texts a pass of the engine.
AT_ONCE = 8

_FORMS: tuple[tuple[Kind, str], ...] = (
    ("import", r"(from\s+\S+\s+)?import\b"),
    ("definition", r"(async\s+)?def\b|class\b|@"),
    ("return", r"(return|yield|raise)\b"),
    ("comment", r"#|[rRbBuU]{0,2}(\"\"\"|''')"),
    ("assignment", r"[\w.\[\]'\", *]+(:[^=]+)?\s*[-+*/|&]?=(?!=)"),
)


@dataclass(frozen=True)
class Line:
    """One line to type: ``text`` between ``before``, with its indentation, and ``after``.

    These are what an editor sends; ``above`` and ``below`` are the file's text beyond them.
    """

    id: str
    path: str
    before: str
    text: str
    after: str
    source: str = ""
    above: str = ""
    below: str = ""

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
# The same, before any filter.
Write = Callable[[Line, int], Suggestion]


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


def request_at(line: Line, at: int) -> CompletionRequest:
    """What an editor asks for where ``at`` characters of the line stand there."""
    sampling = SamplingOptions(max_tokens=MAX_TOKENS)
    return CompletionRequest(line.before + line.text[:at], line.after, None, "line", sampling)


def by_generator(generator: Generator) -> Write:
    """What any model writes up to the line's end, one place at a time."""

    def write(line: Line, at: int) -> Suggestion:
        request = request_at(line, at)
        options = replace(request.sampling, stop=("\n",))
        [[written]] = generator.generate([Ask(request.prefix, request.suffix, options)])
        return Suggestion(written.text, "boundary" if written.ended else "length")

    return write


def as_written(suggestion: Suggestion, _: CompletionRequest) -> Suggestion:
    """The chain without a filter."""
    return suggestion


def from_written(written: Sequence[Suggestion], chain: Filter = postprocess) -> Suggest:
    """What the service suggests in one line, where at each place of it this was ``written``.

    Typing into a suggestion keeps it: the suggestion cache is the service's own.
    """
    known = SuggestionCache()

    def suggest(line: Line, at: int) -> str:
        request = request_at(line, at)
        suggestion = known.find(request)
        if suggestion is None:
            suggestion = chain(written[at], request)
            known.store(request, suggestion)
        return suggestion.text

    return suggest


def write_lines(
    lines: Sequence[Line], write: Write, samples: Journal, at_once: int
) -> Iterator[Record]:
    """What is written at every place of each line that the journal lacks; yields all lines'."""

    def places(line: Line) -> Record:
        kept = [stored(write(line, at)) for at in range(len(line.text))]
        return {"id": line.id, "places": kept}

    return samples.fill([(line.id, line) for line in lines], places, at_once)


def score_lines(
    lines: Sequence[Line], samples: Journal, scores: Journal, chains: Mapping[str, Filter]
) -> Iterator[Record]:
    """Replays each line that the scores lack, once by each chain; yields all lines'.

    A chain's name goes behind its metrics'. Raises EvaluationError where samples are missing.
    """
    samples.need([line.id for line in lines])

    def scored(line: Line) -> Record:
        written = [restored(entry) for entry in samples.records[line.id]["places"]]
        metrics: dict[str, tuple[float, float]] = {}
        for name, chain in chains.items():
            typed = replay(line, from_written(written, chain))
            metrics |= {metric + name: value for metric, value in _metrics(typed).items()}
        return {"id": line.id, "group": line.kind, "metrics": metrics}

    return scores.fill([(line.id, line) for line in lines], scored)


def _metrics(typed: Typed) -> dict[str, tuple[float, float]]:
    return {
        "saved": (typed.saved, typed.characters),
        "shown": (typed.shown, typed.places),
        "accepted": (typed.accepted, typed.shown),
        "whole lines": (int(typed.whole), 1),
    }


def stored(suggestion: Suggestion) -> list[Any]:
    """What a journal keeps of a suggestion."""
    scores = [[score.stop, round(score.logprob, 4)] for score in suggestion.scores]
    return [suggestion.text, suggestion.finish, scores]


def restored(entry: Sequence[Any]) -> Suggestion:
    """The inverse of :func:`stored`, costs apart."""
    text, finish, scores = entry
    return Suggestion(text, finish, scores=tuple(Score(*score) for score in scores))


def _lines_of(source: str, path: str, text: str, rng: random.Random) -> Iterator[Line]:
    """The file's lines that can be typed, in random order."""
    lines = [(found.start(), found[0]) for found in re.finditer(r"[^\n]+", text)]
    for start, line in rng.sample(lines, len(lines)):
        written = line.strip()
        if len(written) >= _LEAST:
            at = start + line.index(written)
            number = text.count("\n", 0, at) + 1
            end = start + len(line)
            first, last = max(0, at - BEFORE), end + AFTER
            yield Line(
                f"{source}: {path}:{number}",
                path,
                text[first:at],
                written,
                text[end:last],
                source,
                text[:first],
                text[last:],
            )
