"""As much of Python's lexing as half-written code allows: strings, brackets, logical lines.

It gives up Python's own tokenizer, which stops at the first thing that is not
finished yet; here nothing is an error. A statement's keyword at the start of a
line closes all brackets, so that one missing bracket does not swallow a file;
nothing does that for a text that begins inside a docstring.
"""

import re
from dataclasses import dataclass
from functools import lru_cache

_LEXEME = re.compile(
    r"""
    \#[^\n]*
  | (?P<quote>\"\"\"|''')(?:\\(?:.|\Z)|(?!(?P=quote))[^\\])*+(?P<closed>(?P=quote))?
  | (?P<mark>["'])(?:\\(?:.|\Z)|(?!(?P=mark))[^\\\n])*+(?P<ended>(?P=mark))?
  | \\\r?\n
  | (?P<open>[(\[{])
  | (?P<close>[)\]}])
  | (?P<newline>\n)
    """,
    re.VERBOSE | re.DOTALL,
)
# Keywords that begin a line inside no bracket.
_STATEMENT = re.compile(
    r"[ \t]*(?:def|class|import|return|while|try|raise|del|global|nonlocal|assert|pass|break"
    r"|continue|with|elif|except|finally)\b"
)


@dataclass(frozen=True)
class Text:
    """A string literal: its first offset, the one behind it, its quotes; closed or not."""

    start: int
    stop: int
    quote: str
    closed: bool


@dataclass(frozen=True)
class Scan:
    """What :func:`scan` found.

    ``lines``: offsets at which a logical line, an empty one or a comment's
    begins. ``open``: offsets of the brackets that the text leaves open,
    outermost first. ``pairs``: offsets of brackets and of what closes them.
    ``unmatched``: of the closing ones that nothing opens.
    """

    lines: tuple[int, ...]
    open: tuple[int, ...]
    pairs: tuple[tuple[int, int], ...]
    unmatched: tuple[int, ...]
    strings: tuple[Text, ...]

    def string_at(self, offset: int) -> Text | None:
        """The string literal that the place before ``offset`` lies inside of."""
        for text in self.strings:
            inner = text.stop - len(text.quote) if text.closed else text.stop
            if text.start + len(text.quote) <= offset <= inner:
                return text
        return None


def scan(text: str) -> Scan:
    """Lexes a text that begins at the start of a logical line, and may end anywhere."""
    lines, opened = [0], list[int]()
    pairs, unmatched, strings = list[tuple[int, int]](), list[int](), list[Text]()
    for lexeme in _LEXEME.finditer(text):
        end = lexeme.end()
        if lexeme["open"]:
            opened.append(lexeme.start())
        elif lexeme["close"]:
            if opened:
                pairs.append((opened.pop(), lexeme.start()))
            else:
                unmatched.append(lexeme.start())
        elif lexeme["newline"]:
            if opened and _STATEMENT.match(text, end):
                opened.clear()
            if not opened:
                lines.append(end)
        elif quote := lexeme["quote"] or lexeme["mark"]:
            closed = bool(lexeme["closed"] or lexeme["ended"])
            strings.append(Text(lexeme.start(), end, quote, closed))
    return Scan(tuple(lines), tuple(opened), tuple(pairs), tuple(unmatched), tuple(strings))


@lru_cache(maxsize=4)
def scan_prefix(prefix: str) -> Scan:
    """The same, remembered: one request asks several times what stands before its cursor."""
    return scan(prefix)


def indentation(line: str) -> int:
    """Columns before the first other character; a tab goes to the next multiple of 8."""
    return len((line[: len(line) - len(line.lstrip(" \t"))]).expandtabs(8))
