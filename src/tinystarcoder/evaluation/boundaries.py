"""Where suggestions end: at the end of what the author's cursor stood in, or elsewhere.

The true boundary is told by the author's syntax tree. A hole is cut into a
held-out file:

    statement    from inside a statement that has its line to itself, to the line's end
    block        from behind the colon of a compound statement to its end, six lines at most

A suggestion in the hole ends at the boundary where the file parses, and but for
that statement its tree is the author's: nothing that follows was swallowed or
written again, nothing was left open, no sibling was added. So each is judged as
it comes (to the model's own end, or 64 tokens), stopped, and after the filters;
and the rule that stops has to end the author's own text exactly where the
hole ends.

It gives up the content: ``pass`` for a body ends where it should. And only the
top-level statement around the hole and the next one are parsed.
"""

import ast
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, zip_longest
from typing import NamedTuple

from ..completion.postprocess import filtered
from ..completion.request import CompletionRequest
from ..completion.service import CompletionService
from ..completion.stopping import boundary, extent
from ..verdict import parse
from .held_out import Source, deal
from .journal import Journal, Record
from .keystrokes import AFTER, AT_ONCE, BEFORE, restored, stored

# Lines of a block; more would not be written with a suggestion's tokens.
LINES = 6
_LEAST = 4
# Characters of the author's text that the rule is shown, beyond the hole.
_BEYOND = 1000

_WORD = re.compile(r"\w+|\s+|[^\w\s]")

KINDS = ("statement", "block")

# From the module down to a statement: fields and places in them.
Route = tuple[tuple[str, int], ...]
# Line and column where it begins, and the line that it ends with.
Span = tuple[tuple[int, int], int]


class Place(NamedTuple):
    """Offsets of a hole and of what is parsed around it, and the way to its statement."""

    start: int
    stop: int
    top: int
    bottom: int
    route: Route


@dataclass(frozen=True)
class Hole:
    """``text`` between ``before`` and ``after``, which are all of the file.

    Of ``before`` and ``after``, what lies between the offsets ``top`` and
    ``bottom`` is parsed; ``route`` leads there to the hole's statement.
    """

    id: str
    kind: str
    before: str
    text: str
    after: str
    top: int
    bottom: int
    route: Route

    @property
    def request(self) -> CompletionRequest:
        """What an editor asks for in the hole."""
        return CompletionRequest(self.before[-BEFORE:], self.after[:AFTER])

    def ends_there(self, text: str) -> bool:
        """Whether a text in the hole ends at the true boundary."""
        around = self._around(text)
        return bool(around) and around == self._around(self.text)

    def _around(self, text: str) -> str:
        """The tree without the hole's statement; nothing where the text does not parse."""
        try:
            tree = parse(self.before[self.top :] + text + self.after[: self.bottom])
            node: ast.AST = tree
            for field, index in self.route[:-1]:
                node = getattr(node, field)[index]
            field, index = self.route[-1]
            getattr(node, field)[index] = ast.Pass()
        except (SyntaxError, AttributeError, IndexError):
            return ""
        return ast.dump(tree)


def cut_holes(sources: Sequence[Source], count: int, seed: int = 0) -> list[Hole]:
    """``count`` holes, evenly over the sources, their files and the two kinds.

    Raises CorpusError where a source has too few.
    """
    return list(deal(sources, count, seed, _holes_of))


def stops_exactly(hole: Hole) -> bool:
    """Whether the author's own text, word by word as it comes, is ended where the hole ends."""
    text, allowed = hole.text + hole.after[:_BEYOND], extent(hole.request)
    ends = (boundary(allowed, text[: word.end()]) for word in _WORD.finditer(text))
    stop = next((end for end in ends if end is not None), None)
    if stop is None:
        stop = boundary(allowed, text, complete=True)
    return text[:stop].rstrip() == hole.text.rstrip()


def write_holes(
    holes: Sequence[Hole], service: CompletionService, samples: Journal
) -> Iterator[Record]:
    """What is written in each hole that the journal lacks, endless and stopped; yields all."""

    def written(hole: Hole) -> Record:
        request = hole.request
        endless = service.run(service.prompt_ids(request), request.sampling).whole()
        return {"id": hole.id, "endless": endless.text, "stopped": stored(service.write(request))}

    return samples.fill([(hole.id, hole) for hole in holes], written, AT_ONCE)


def score_holes(holes: Sequence[Hole], samples: Journal, scores: Journal) -> Iterator[Record]:
    """Judges each hole's texts that the scores lack; yields all.

    Raises EvaluationError where samples are missing.
    """
    samples.need([hole.id for hole in holes])

    def scored(hole: Hole) -> Record:
        record = samples.records[hole.id]
        stopped = restored(record["stopped"])
        texts = {
            "as it comes": record["endless"],
            "stopped": stopped.text,
            # A text that is shown in part, or withheld, is no matter of where it ends.
            "filtered": filtered(stopped, hole.request).text,
        }
        metrics = {
            name: (float(hole.ends_there(text)), 1) if text.strip() else (0.0, 0)
            for name, text in texts.items()
        }
        metrics["author's text, stopped"] = (float(stops_exactly(hole)), 1)
        return {"id": hole.id, "group": hole.kind, "metrics": metrics}

    return scores.fill([(hole.id, hole) for hole in holes], scored)


def _holes_of(source: str, path: str, text: str, rng: random.Random) -> Iterator[Hole]:
    """The file's holes in random order, the two kinds in turn."""
    try:
        places = _places(text)
    except SyntaxError:
        return
    kinds = rng.sample(KINDS, len(KINDS))
    shuffled = [rng.sample(places[kind], len(places[kind])) for kind in kinds]
    for pair in zip_longest(*shuffled):
        for kind, place in zip(kinds, pair, strict=True):
            if place is not None:
                hole = _hole(f"{source}: {path}", kind, text, place, rng)
                if hole.ends_there(hole.text):
                    yield hole


def _hole(file: str, kind: str, text: str, place: Place, rng: random.Random) -> Hole:
    start, stop = place.start, place.stop
    if kind == "statement":
        start += rng.randrange(1, len(text[start:stop].rstrip()))
    row = text.count("\n", 0, start) + 1
    return Hole(
        f"{file}:{row} {kind}",
        kind,
        text[:start],
        text[start:stop],
        text[stop:],
        place.top,
        place.bottom - stop,
        place.route,
    )


def _places(text: str) -> dict[str, list[Place]]:
    """Where holes may lie, a statement's from its beginning. Raises SyntaxError."""
    tree = parse(text)
    lines = text.split("\n")
    starts = [0, *accumulate(len(line) + 1 for line in lines)]
    found: dict[str, list[Place]] = {kind: [] for kind in KINDS}
    for number, top in enumerate(tree.body):
        last = tree.body[min(number + 1, len(tree.body) - 1)]
        frame = starts[_first_line(top) - 1], starts[_last_line(last)] - 1
        for node, route in _statements(top, (("body", 0),)):
            for kind, find in (("statement", _own_line), ("block", _short_block)):
                if span := find(node, lines):
                    (row, column), end = span
                    start, stop = starts[row - 1] + column, starts[end] - 1
                    found[kind].append(Place(start, stop, *frame, route))
    return found


def _statements(node: ast.AST, route: Route) -> Iterator[tuple[ast.stmt, Route]]:
    """A statement and those in it, each with the way to it."""
    if isinstance(node, ast.stmt):
        yield node, route
    for field in ("body", "handlers", "orelse", "finalbody"):
        for index, inner in enumerate(getattr(node, field, ())):
            yield from _statements(inner, (*route, (field, index)))


def _own_line(node: ast.stmt, lines: list[str]) -> Span | None:
    """A simple statement that has its line to itself."""
    line = lines[node.lineno - 1]
    written = line.lstrip()
    ends = node.end_lineno == node.lineno and not hasattr(node, "body")
    if not ends or len(written.rstrip()) < _LEAST:
        return None
    column = len(line) - len(written)
    # What stands on the line before or behind it is another statement's, or a comment.
    alone = len(line[:column].encode()) == node.col_offset and _is_one(written)
    return ((node.lineno, column), node.lineno) if alone else None


def _short_block(node: ast.stmt, lines: list[str]) -> Span | None:
    """From behind the colon of a compound statement whose end is its body's, to there."""
    body = getattr(node, "body", None)
    if not body or _last_line(body[-1]) != node.end_lineno:
        return None
    row = _first_line(body[0]) - 1
    while row > node.lineno and re.match(r"\s*(#|$)", lines[row - 1]):
        row -= 1
    head = lines[row - 1].rstrip()
    if row < node.lineno or not head.endswith(":") or _last_line(node) - row > LINES:
        return None
    return (row, len(head)), _last_line(node)


def _is_one(line: str) -> bool:
    try:
        return len(parse(line).body) == 1
    except SyntaxError:  # The end of a statement that began on another line.
        return False


def _first_line(node: ast.stmt) -> int:
    decorators: list[ast.expr] = getattr(node, "decorator_list", [])
    return min([node.lineno, *(decorator.lineno for decorator in decorators)])


def _last_line(node: ast.stmt) -> int:
    return node.end_lineno or node.lineno
