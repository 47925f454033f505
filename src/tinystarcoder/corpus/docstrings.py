"""Docstrings cut to their first paragraph, in a share of cases, on request.

Parameter lists and examples follow in many docstrings of published packages. A small
model learns to write them before it can fill them: asked for a function, it answers
with a page of prose that repeats itself. Where most docstrings end with their first
paragraph, it goes on to the code.

What it gives up: what it cut is never learned; a docstring made of several
literals, or of one with a prefix (``r``), stays as it is.
"""

import ast
import warnings
from collections.abc import Iterator
from random import Random

_QUOTES = ('"""', "'''")


def with_short_docstrings(text: str, share: float, key: str) -> str:
    """The text, each of its docstrings cut with the chance ``share``.

    What is cut is a function of ``key`` and of the place in the text. Text that is
    not Python comes back as it is.
    """
    draws = Random(key)
    data, parts, at = text.encode(), [], 0
    for start, end in sorted(_literals(text, data)):
        if draws.random() < share:
            parts += [data[at:start], _first_paragraph(data[start:end].decode()).encode()]
            at = end
    return b"".join([*parts, data[at:]]).decode()


def _first_paragraph(literal: str) -> str:
    quotes = literal[:3]
    lines = literal[3:-3].split("\n")
    # An empty first line is the style that begins below its quotes.
    begin = next((n for n, line in enumerate(lines) if line.strip()), 0)
    end = next((n for n in range(begin, len(lines)) if not lines[n].strip()), len(lines))
    if end >= len(lines) - 1:
        return literal  # There is but one paragraph.
    kept = quotes + "\n".join(lines[:end])
    # Where more than one line is left, closing quotes on a line of their own stay there.
    below = end > 1 and not lines[-1].strip()
    return f"{kept}\n{lines[-1]}{quotes}" if below else kept + quotes


def _literals(text: str, data: bytes) -> Iterator[tuple[int, int]]:
    """Where docstrings in three quotes begin and end in ``data``, the text's bytes."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    # Lines as the parser counts them: "\n" alone ends one, since documents have no other.
    starts = [0]
    for line in data.split(b"\n"):
        starts.append(starts[-1] + len(line) + 1)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        match node.body[:1]:
            case [ast.Expr(value=ast.Constant(value=str()) as found)]:
                assert found.end_lineno is not None and found.end_col_offset is not None
                start = starts[found.lineno - 1] + found.col_offset
                end = starts[found.end_lineno - 1] + found.end_col_offset
                literal = data[start:end].decode()
                # Of several literals side by side the ends match, the middle does not.
                if literal[:3] in _QUOTES and literal.find(literal[:3], 3) == len(literal) - 3:
                    yield start, end
