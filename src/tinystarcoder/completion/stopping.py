"""Where a suggestion ends: at the place where a person would have stopped.

One line or a block is decided from the cursor's place. A block ends before

- a line that is indented less than the block, unless it goes on with the
  statement that the block stands in (``else``, ``except`` …) or only looks like
  a line (it stands inside brackets or a string);
- the next definition beside the one that the block began with, decorators and
  comments counted to what follows them; at top level, whatever follows a blank
  line;
- a line that repeats the one above it.

It works on text as it comes, and decides at the first token that tells. It
gives up grammar: a lexer finds the lines, and indentation does the rest.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from .request import CompletionRequest
from .syntax import Scan, indentation, scan, scan_prefix

# Clause -> the clauses that it may follow in one statement.
_CLAUSES = {
    "elif": {"if", "elif"},
    "else": {"if", "elif", "for", "while", "try", "except", "async"},
    "except": {"try", "except"},
    "finally": {"try", "except", "else"},
    "case": {"case"},
}
_DEFINITIONS = {"def", "class", "async", "@"}
_LEADS_ON = {"@", "#"}  # What begins the statement below it.

_FIRST_WORD = re.compile(r"[ \t]*(\w+|[^\w\s]?)")


# A statement by its indentation and first word.
Statement = tuple[int, str]


@dataclass(frozen=True)
class Extent:
    """How far a suggestion may go, from the text around its cursor.

    ``head``: the logical line up to the cursor. ``floor``: the least
    indentation in the block; None for that of its first line. ``around``: the
    statements above that are not ended by a lesser indentation, outermost
    first. ``previous``: the last line with text above the cursor's.
    """

    is_block: bool
    head: str = ""
    floor: int | None = None
    around: tuple[Statement, ...] = ()
    previous: str = ""


def extent(request: CompletionRequest) -> Extent:
    """Decides from the cursor's place, unless the request's mode has."""
    prefix = request.prefix
    found = scan_prefix(prefix)
    line = prefix[prefix.rfind("\n") + 1 :]
    if request.mode == "line" or (request.mode == "auto" and not _opens(found, line, request)):
        return Extent(is_block=False)
    head = prefix[found.lines[-1] :]
    whole = prefix[: len(prefix) - len(line)].rstrip()
    previous = whole[whole.rfind("\n") + 1 :]
    around = _around(prefix[a:b] for a, b in pairwise(found.lines))
    if head.strip():  # Whatever is indented more belongs to this statement.
        at = indentation(head)
        return Extent(True, head, at + 1, (*around, (at, _word(head))), previous)
    return Extent(True, head, indentation(head) if head else None, around, previous)


def _opens(found: Scan, line: str, request: CompletionRequest) -> bool:
    """Whether a block begins at the cursor, or an empty line is to be filled."""
    if request.suffix.partition("\n")[0].strip():
        return False
    line = line.rstrip()
    return not line or line.endswith(("(", "[", "{")) or (line.endswith(":") and not found.open)


def _around(lines: Iterable[str]) -> tuple[Statement, ...]:
    statements: list[Statement] = []
    for line in lines:
        if line.strip() and not line.lstrip().startswith("#"):
            at = indentation(line)
            while statements and statements[-1][0] >= at:
                statements.pop()
            statements.append((at, _word(line)))
    return tuple(statements)


def boundary(extent: Extent, text: str, *, complete: bool = False) -> int | None:
    """Characters of ``text`` before its natural end; None where none has come yet.

    ``complete``: no more text will come, so that its last line is whole.
    """
    at = text.find("\n")
    if at < 0 or not extent.is_block:
        return at if at >= 0 else None
    ends = (_statement_end(extent, text, complete), _repeated_line(extent, text, complete))
    found = [end for end in ends if end is not None]
    if not found:
        return None
    kept = (extent.head + text)[: min(found)].rstrip()
    return max(0, len(kept) - len(extent.head))


def _statement_end(extent: Extent, text: str, complete: bool) -> int | None:
    """Offset in head and text of the first logical line that is not the block's."""
    full = extent.head + text
    floor, above = extent.floor, _above(extent, extent.floor)
    level = None  # The indentation of the block's own statements.
    word = ""  # How the last of them began.
    after_blank = False
    for start, stop in pairwise((*scan(full).lines, len(full))):
        line = full[start:stop]
        if not line.strip():
            after_blank = True
            continue
        at, first = indentation(line), _word(line)
        is_whole = complete or stop < len(full) or line.strip() != first
        if floor is None:
            floor, above = at, _above(extent, at)
        if start == 0 and extent.head.strip():
            pass  # The statement that the cursor stands in.
        elif at < floor:
            if not is_whole and any(clause.startswith(first) for clause in _CLAUSES):
                return None
            if at != above[0] or above[1] not in _CLAUSES.get(first, ()):
                return start
            above = (at, first)
        elif level is None:
            level, word = (-1 if extent.head.strip() else at), first
        elif at == level:
            if not is_whole and any(known.startswith(first) for known in _DEFINITIONS):
                return None
            is_next = first in _DEFINITIONS or (at == 0 and after_blank)
            if is_next and word not in _LEADS_ON:
                return start
            word = first
        after_blank = False
    return None


def _above(extent: Extent, floor: int | None) -> Statement:
    """The statement that a block of this indentation stands in."""
    outer = [one for one in extent.around if floor is not None and one[0] < floor]
    return outer[-1] if outer else (-1, "")


def _repeated_line(extent: Extent, text: str, complete: bool) -> int | None:
    """Offset in head and text of the first whole line that is the same as the one above it."""
    full = extent.head + text
    # Where the cursor stands in a line with text, only what follows it is new.
    start = 0 if not extent.head.strip() else full.index("\n", len(extent.head)) + 1
    previous = extent.previous if start == 0 else full[:start].rstrip()
    previous = previous[previous.rfind("\n") + 1 :].rstrip()
    for line in full[start:].splitlines(keepends=True):
        content = line.rstrip()
        if not (line.endswith("\n") or complete):
            return None
        if content == previous and any(map(str.isalnum, content)):
            return start
        previous = content or previous
        start += len(line)
    return None


def _word(line: str) -> str:
    found = _FIRST_WORD.match(line)
    return found[1] if found else ""
