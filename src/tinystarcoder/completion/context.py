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

from .request import Snippet

Encode = Callable[[str], list[int]]

# Lines that are dropped together; fewer where the room is small.
BLOCK = 32
_TOKENS_A_LINE = 64

# Snippets have a quarter of the room, if that is worth it.
LEAST_SNIPPETS = 64
_BYTES_A_TOKEN = 16  # No code has more on average.

_LINE = re.compile(r"[^\n]*\n|[^\n]+")


def fit(prefix: str, suffix: str, room: int, encode: Encode) -> tuple[list[int], list[int]]:
    """Ids of prefix and suffix, together at most ``room``, their far ends cut away.

    Three quarters are the prefix's; what one side does not use, the other may.
    """
    step = block_lines(room)
    before_lines, after_lines = _LINE.findall(prefix), _LINE.findall(suffix)[::-1]
    # The suffix's lines in reverse, so that both lists end at the cursor.
    after, _ = _Side(after_lines, encode, reverse=True).nearest(room // 4, step)
    before, is_whole = _Side(before_lines, encode).nearest(room - len(after), step)
    # What a cut leaves over is not lent: it changes with every key.
    if is_whole and (rest := room - len(before)) > room // 4:
        after, _ = _Side(after_lines, encode, reverse=True).nearest(rest, step)
    return before, after


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
    """One side's lines, the far end first."""

    def __init__(self, lines: list[str], encode: Encode, *, reverse: bool = False) -> None:
        self._lines = lines
        self._encode = encode
        self._reverse = reverse

    def nearest(self, budget: int, step: int) -> tuple[list[int], bool]:
        """Ids of the nearest lines that fit, and whether that is all of them.

        Lines are dropped ``step`` at a time where that leaves any.
        """
        for lines in dict.fromkeys((step, 1)):
            dropped = self._too_many(budget, lines)
            while dropped < len(self._lines):
                if len(ids := self._ids(dropped, None)) <= budget:
                    return ids, dropped == 0
                dropped += lines
        if not self._lines or budget <= 0:
            return [], not self._lines
        own = self._ids(-1, None)  # Not even the cursor's own line fits.
        return own[:budget] if self._reverse else own[-budget:], False

    def _too_many(self, budget: int, step: int) -> int:
        """Lines that are surely to be dropped, found without reading all of a long file.

        A text has fewer tokens than its parts, but for whole blocks hardly any fewer.
        """
        total = 0
        for start in range((len(self._lines) - 1) // BLOCK * BLOCK, -1, -BLOCK):
            total += len(self._ids(start, start + BLOCK))
            if total > budget + budget // 8 + BLOCK:
                return start // step * step
        return 0

    def _ids(self, start: int, stop: int | None) -> list[int]:
        lines = self._lines[start:stop]
        return self._encode("".join(lines[::-1] if self._reverse else lines))
