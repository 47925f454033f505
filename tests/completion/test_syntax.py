"""The lexer, held to Python's own where the code is whole, and to nothing but sense elsewhere."""

import io
import tokenize

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinystarcoder.completion.syntax import indentation, scan

WHOLE = [
    "x = (1,\n     2)\ny = '(' + \"[\"  # {\nz = 1\n",
    'def f():\n    """Doc (\n\n    more\n    """\n    return [\n        1,\n    ]\n',
    "a = b \\\n    + c\nd = r'\\'\ne = '''x''' '''y\n'''\n",
    'print("a" "b\\"(" \'c\')\nif x:\n    pass\nelse:\n    y = {1: (2, [3])}\n',
]


@pytest.mark.parametrize("text", WHOLE)
def test_logical_lines_are_pythons(text: str) -> None:
    rows = text.splitlines(keepends=True)
    starts, new = [], True
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in (tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER):
            continue
        if new:
            starts.append(sum(map(len, rows[: token.start[0] - 1])))
        new = token.type in (tokenize.NEWLINE, tokenize.NL) and (
            token.type == tokenize.NEWLINE or new
        )
    found = scan(text)
    assert [at for at in found.lines if text[at:].partition("\n")[0].strip()] == starts
    assert (found.open, found.unmatched) == ((), ())


@pytest.mark.parametrize("text", WHOLE)
def test_brackets_where_it_ends_early(text: str) -> None:
    for stop in range(len(text)):
        found = scan(text[:stop])
        # What is open there is closed by the rest, in its order.
        assert all(text[at] in "([{" for at in found.open)
        assert all("([{".index(text[a]) == ")]}".index(text[b]) for a, b in found.pairs)


@given(st.text("()[]'\"\\\n #adef", max_size=40))
def test_any_text(text: str) -> None:
    found = scan(text)
    assert found.lines[0] == 0
    assert all(text[at - 1] == "\n" for at in found.lines[1:])
    assert all(text[at] in ")]}" for at in found.unmatched)


def test_a_statement_closes_what_was_forgotten() -> None:
    text = "x = foo(1,\ndef g():\n    y\n"
    assert scan(text).lines == (0, 11, 20, 26)
    assert scan("x = (a\n  if b else\n  c").lines == (0,)


def test_strings() -> None:
    open_one = scan("print('it").string_at(9)
    assert open_one is not None and not open_one.closed
    closed = scan("print('it')").string_at(9)
    assert closed is not None and (closed.closed, closed.stop) == (True, 10)
    assert scan("print('it')").string_at(10) is None
    assert scan("'''a'b").string_at(6) is not None


def test_tabs() -> None:
    assert [indentation(line) for line in ("x", "  x", "\tx", "  \tx", "\t x")] == [0, 2, 8, 8, 9]
