"""Prefix and suffix, cut to a budget of tokens: whole lines, 3:1, in anchored blocks.

A left cut that moves with every new line shifts all positions behind it, and a
cache of the prefix is lost with each. So lines are dropped in blocks, counted
from the far end of each text: the cut stands still while a block's worth of
text is typed. It gives up a part of a block of the budget for that. Where an
editor sends a window of its own that moves by lines, nothing can stand still.

What other files say goes before all that, as Python: each snippet under a
comment with its path, then the path of the file itself. So a model that never
saw StarCoder's ``<filename>`` reads nothing that it has not learned, and code
that is not commented out spells its names in the tokens that they are written
in.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .request import Snippet

Encode = Callable[[str], list[int]]

# Lines that are dropped together; fewer where the room is small.
BLOCK = 32
_TOKENS_A_LINE = 64

# Snippets have a quarter of the room, if that is worth it.
LEAST_SNIPPETS = 64
_BYTES_A_TOKEN = 16  # No code has more on average.

_LINE = re.compile(r"[^\n]*\n|[^\n]+")


@dataclass(frozen=True)
class Fitted:
    """Ids of both sides of a cursor, and whether that is all of both texts."""

    before: list[int]
    after: list[int]
    is_whole: bool


def fit(prefix: str, suffix: str, room: int, encode: Encode) -> Fitted:
    """Prefix and suffix, together at most ``room`` ids, their far ends cut away.

    Three quarters are the prefix's; what one side does not use, the other may.
    """
    step = block_lines(room)
    above, below = _Side(prefix, room, encode), _Side(suffix, room, encode, reverse=True)
    after, is_all_after = below.nearest(room // 4, step)
    before, is_all_before = above.nearest(room - len(after), step)
    # What a cut leaves over is not lent: it changes with every key.
    if is_all_before and (rest := room - len(before)) > room // 4:
        after, is_all_after = below.nearest(rest, step)
    return Fitted(before, after, is_all_before and is_all_after)


def header(path: str | None, snippets: Sequence[Snippet], room: int, encode: Encode) -> list[int]:
    """Ids of what stands before the file: snippets, the first of them nearest, and its path.

    At most a quarter of the room, cut at line boundaries; none without snippets
    or where that quarter is small. It depends on nothing that a key changes.
    """
    budget = room // 4
    given = [snippet for snippet in snippets if snippet.text.strip()]
    if budget < LEAST_SNIPPETS or not given:
        return []
    own = encode(f"# Path: {_line(path)}\n") if path else []
    left, parts = budget - len(own), list[list[int]]()
    for snippet in given:
        if left <= 0:
            break
        title = f"# Path: {_line(snippet.path)}\n" if snippet.path else ""
        if part := _beginning(title, snippet.text, left, encode):
            parts.append(part)
            left -= len(part)
    return [*(id_ for part in reversed(parts) for id_ in part), *own] if parts else []


def _line(path: str) -> str:
    """A path that stays on its line."""
    return " ".join(path.split())


def _beginning(title: str, text: str, budget: int, encode: Encode) -> list[int]:
    """Ids of a title, as many of a text's first lines as fit below it, and an empty line."""
    lines = _LINE.findall(text[: budget * _BYTES_A_TOKEN].rstrip() + "\n")
    low, high = 0, len(lines)  # So many fit; so many may.
    best: list[int] = []
    while low < high:
        middle = (low + high + 1) // 2
        ids = encode(title + "".join(lines[:middle]).rstrip() + "\n\n")
        if len(ids) <= budget:
            low, best = middle, ids
        else:
            high = middle - 1
    return best


def block_lines(room: int) -> int:
    """Lines that are dropped at a time in a room of so many tokens."""
    return min(BLOCK, max(1, room // _TOKENS_A_LINE))


class _Side:
    """One side's lines, the far end first: those of the suffix in reverse.

    Lines that are more characters away than ``room`` tokens have are not read.
    """

    def __init__(self, text: str, room: int, encode: Encode, *, reverse: bool = False) -> None:
        lines = _LINE.findall(text)
        self._lines: list[str] = lines[::-1] if reverse else lines
        self._encode = encode
        self._reverse = reverse
        self._out_of_reach, left = len(lines), room * _BYTES_A_TOKEN
        while self._out_of_reach and (left := left - len(self._lines[self._out_of_reach - 1])) >= 0:
            self._out_of_reach -= 1

    def nearest(self, budget: int, step: int) -> tuple[list[int], bool]:
        """Ids of the nearest lines that fit, and whether that is all of them.

        Lines are dropped ``step`` at a time where that leaves any.
        """
        surely = self._too_many(budget)
        for lines in dict.fromkeys((step, 1)):
            for dropped in range(-(-surely // lines) * lines, len(self._lines), lines):
                if len(ids := self._ids(dropped, None)) <= budget:
                    return ids, dropped == 0
        if not self._lines or budget <= 0:
            return [], not self._lines
        return self._part_of_own_line(budget), False

    def _too_many(self, budget: int) -> int:
        """Lines that are surely to be dropped, found without reading all of a long file.

        A text has fewer tokens than its parts, but for whole blocks hardly any fewer.
        """
        total, least = 0, self._out_of_reach
        for start in range((len(self._lines) - 1) // BLOCK * BLOCK, least - BLOCK, -BLOCK):
            total += len(self._ids(max(start, least), start + BLOCK))
            if total > budget + budget // 8 + BLOCK:
                return max(start, least)
        return least

    def _part_of_own_line(self, budget: int) -> list[int]:
        """Ids of a part of the cursor's own line, all of which does not fit."""
        line, most = self._lines[-1], budget * _BYTES_A_TOKEN
        if self._reverse:
            return self._encode(line[:most])[:budget]
        # Cut in steps, so that the next key's text begins at the same place.
        start = max(0, len(line) - most) // most * most
        return self._encode(line[start:])[-budget:]

    def _ids(self, start: int, stop: int | None) -> list[int]:
        lines = self._lines[start:stop]
        return self._encode("".join(lines[::-1] if self._reverse else lines))
