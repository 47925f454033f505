"""Verdicts, in this process and in one of its own; what a hostile file costs."""

import ast
import sys
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinystarcoder.corpus.document import Document
from tinystarcoder.corpus.syntax import CRASH, SyntaxJudge, reason_of

from .conftest import module
from .test_notebooks import code, notebook, notebook_text

GOOD = module(1)
REASONS = {None, "Python 2", "broken Python", "not Python", "too nested to parse"}


@pytest.fixture(scope="module")
def judge() -> Iterator[SyntaxJudge]:
    judge = SyntaxJudge()
    yield judge
    judge.close()


@pytest.mark.parametrize(
    "statement",
    [
        "print 'x'",
        "exec 'x' in d",
        "try:\n    f()\nexcept E, e:\n    pass",
        "raise E, 'x'",
        "raise E, 'x', tb",
        "x = `a`",
        "if a <> b: pass",
        "x = 0777",
        "x = 7L",
        "x = ur'a'",
        "def f((a, b)): pass",
        "f = lambda (a, b): a",
    ],
)
def test_python_2(statement):
    assert reason_of(f"{GOOD}\n{statement}\n") == "Python 2"
    assert reason_of(f"{statement}\n") == "Python 2"


@pytest.mark.parametrize(
    "statement",
    [
        "print('x')",
        "print((x), file=f)",
        "exec('x', d)",
        "try:\n    f()\nexcept (E, F) as e:\n    raise E from e",
        "x = 0o777 + 0x7 + 0 + 00 + 1_000",
        "def f(a, *, b): return (a, b)",
        "match x:\n    case (a, b): pass",
        "async def f(): return [x async for x in y]",
    ],
)
def test_python_3(statement):
    assert reason_of(f"{GOOD}\n{statement}\n") is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (f"{GOOD}\n{{% if jinja %}}\n", "broken Python"),
        (f"{GOOD}\n<<<<<<< HEAD\nx = 1\n=======\n", "broken Python"),
        (f"{GOOD}\ndef f(x:\n", "broken Python"),
        (f"{GOOD}\n  x = 1\n y = 2\n", "broken Python"),
        (f"{GOOD}\nf(a=1, 2)\n", "broken Python"),
        ("<html><body class='a'>\n<p>Some words here.</p>\n</body></html>\n" * 20, "not Python"),
        ('int main(int argc, char **argv) {\n  return puts("x") ? 1 : 0;\n}\n' * 20, "not Python"),
        ("%!PS-Adobe-3.0\n/Helvetica findfont 12 scalefont setfont\n" * 20, "not Python"),
        ("This is a plain text. It has words, and stops; nothing else!\n" * 20, "not Python"),
    ],
)
def test_what_is_neither(text, reason, judge):
    assert reason_of(text) == judge.reason(text) == reason


@pytest.mark.parametrize(
    "text",
    [
        "(" * 5000,
        "x = " + "(" * 5000 + ")" * 5000,
        "x = " + "-" * 100_000 + "1",
        "x = " + "a." * 50_000 + "a",
        "[" * 50_000 + "print x",
        "\n".join("    " * depth + "if x:" for depth in range(150)) + " pass",
        "x = 1\0",
        "x = '\ud800'",
        "",
    ],
)
def test_what_a_parser_may_die_of_gets_a_reason_or_passes(text, judge):
    assert judge.reason(text) in REASONS | {CRASH}
    assert judge.reason(GOOD) is None


def test_warnings_of_the_parsed_code_are_silent(recwarn):
    assert reason_of(GOOD + "\nx = '\\d'\ny = x is 1\n") is None
    assert not recwarn.list


def test_notebooks_are_judged_by_their_code(judge):
    def verdict(*cells):
        text = notebook_text(notebook(*cells))
        return judge(Document(text, "n.ipynb", "pkg", "1.0", "MIT"))

    assert verdict(code("%matplotlib inline\nx = 1"), code("!ls")) is None
    assert verdict(code("print 'x'")) == "Python 2"


class TestItsOwnProcess:
    def test_one_process_for_many_files(self, judge):
        judge.reason(GOOD)
        first = judge._process.pid
        assert [judge.reason(text) for text in (GOOD, "print x\n", "é = 1\n")] == [
            None,
            "Python 2",
            None,
        ]
        assert judge._process.pid == first

    def test_a_killed_process_costs_one_file(self, judge):
        judge.reason(GOOD)
        judge._process.kill()
        assert judge.reason(GOOD) == CRASH
        assert judge.reason(GOOD) is None

    def test_a_crash_costs_one_file(self, tmp_path):
        """A stand-in for a parser with a bug: it dies of what it was asked."""
        crasher = tmp_path / "crasher.py"
        crasher.write_text(
            "import os, signal, struct, sys\n"
            "while header := sys.stdin.buffer.read(8):\n"
            "    text = sys.stdin.buffer.read(*struct.unpack('<Q', header))\n"
            "    if text == b'die': os.abort()\n"
            "    os.write(1, b'half a' if text == b'half' else b'\\n')\n"
            "    if text == b'half': os._exit(1)\n"
        )
        judge = SyntaxJudge(command=(sys.executable, str(crasher)))
        answers = [judge.reason(text) for text in ("x", "die", "x", "half", "x")]
        assert answers == [None, CRASH, None, CRASH, None]
        judge.close()

    @pytest.mark.skipif(sys.platform == "win32", reason="no bound on memory here")
    def test_memory_is_bounded(self):
        judge = SyntaxJudge(memory=120 << 20)
        small, large = "x = [" + "[], " * 1000 + "]\n", "x = [" + "[], " * 300_000 + "]\n"
        assert judge.reason(small) is None
        assert judge.reason(large) in ("too nested to parse", CRASH)
        assert judge.reason(small) is None
        judge.close()

    @pytest.mark.skipif(sys.platform == "win32", reason="no bound on processor time here")
    def test_processor_time_is_bounded(self, tmp_path):
        busy = tmp_path / "busy.py"
        busy.write_text(
            "import ast\n"
            "from tinystarcoder.corpus import syntax\n"
            "def forever(text):\n"
            "    while True: pass\n"
            "syntax.PROCESSOR_SECONDS, syntax.reason_of = 0.05, forever\n"
            "import os\n"
            "syntax._serve(os.fdopen(0, 'rb'), os.fdopen(1, 'wb'))\n"
        )
        judge = SyntaxJudge(command=(sys.executable, str(busy)))
        assert judge.reason("x") == CRASH
        judge.close()

    def test_closing_twice_is_no_error(self):
        judge = SyntaxJudge()
        judge.close()
        judge.close()


@given(st.text(max_size=60))
def test_any_text_gets_a_verdict_that_agrees_with_ast(text):
    try:
        ast.parse(text)
        parses = True
    except (SyntaxError, ValueError):
        parses = False
    reason = reason_of(text)
    assert reason in REASONS
    assert (reason is None) == parses


@given(st.text(max_size=60))
def test_the_process_says_what_the_function_says(judge, text):
    assert judge.reason(text) == reason_of(text)
