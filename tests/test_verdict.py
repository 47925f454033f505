"""Which completions are whole Python that does something, and why others are not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinystarcoder.verdict import judge, one_pass_makes_it_whole

HEADER = "def f(x):\n"


@pytest.mark.parametrize(
    ("completion", "dropped"),
    [
        ("    return x\n", 0),
        ("    return x\n    unfinished = (", 0),
        ("    return x\n\n    # why\n", 0),
        ("    return x\n\n\ndef g(y):\n    ret", 1),
        ("    y = [\n        1,\n    ]\n    z = [\n        2,\n        3", 2),
        ("    y = 1\n    try:\n        y += 1\n        y +=", 2),
        ("    y = 1\n    text = '''\n    never\n    clos", 2),
        ("    y = 1\n    if y:\n        # a comment\n", 2),
        ("    return '\\d'\n", 0),
    ],
)
def test_whole_completions_pass(completion: str, dropped: int) -> None:
    verdict = judge(HEADER, completion, ended=False)
    assert verdict.passed and verdict.dropped_lines == dropped
    assert not verdict.docstring_only


@pytest.mark.parametrize(
    ("completion", "reason"),
    [
        ("", "nothing whole"),
        ("    return x", "nothing whole"),  # Its only line is not finished.
        ("    # only a remark\n", "nothing whole"),
        ("    y = (1,\n    2", "nothing whole"),
        ("    pass\n", "only pass"),
        ("    ...\n", "only pass"),
        ("    pass\n\n\ndef g(\n", "only pass"),
        ("return x\n", "does not parse"),
        ("    return = x\n    y = 2\n", "does not parse"),
        ("    y = 1\n  z = 2\n", "does not parse"),
        ("    print 'x'\n", "does not parse"),
        ("    y = 1)\n", "does not parse"),
        ("    y = (1\n    z = 2\n", "does not parse"),
        ("    y = 1\n    try:\n        y\n    z = 2\n", "does not parse"),
        ("    y = \0\n", "does not parse"),
        ("    y = " + "(" * 300 + ")" * 300 + "\n", "does not parse"),
    ],
)
def test_others_fail_with_a_reason(completion: str, reason: str) -> None:
    verdict = judge(HEADER, completion, ended=False)
    assert not verdict.passed
    assert verdict.reason.startswith(reason)


def test_a_docstring_passes_and_is_told_apart() -> None:
    assert judge(HEADER, '    """Doubles x."""\n', ended=False).docstring_only
    assert not judge(HEADER, '    """Doubles x."""\n    return 2 * x\n', ended=False).docstring_only


def test_a_model_that_ends_by_itself_has_finished_its_line() -> None:
    assert judge(HEADER, "    return x", ended=True).passed
    assert judge("def f(x):", "\n    return x", ended=True).passed


def test_what_the_prompt_holds_does_not_count() -> None:
    assert judge("x = 1\n", "# nothing\n", ended=True).reason == "no new statement"
    assert judge("x = 1\ny = 2\n", "", ended=True).reason == "no new statement"
    assert judge("x = 1; ", "y = 2\n", ended=False).passed
    assert judge("é = 1; ", "y = 2\n", ended=False).passed  # Columns are bytes.


@given(st.text(max_size=40), st.booleans())
def test_any_text_gets_a_verdict(completion: str, ended: bool) -> None:
    verdict = judge(HEADER, completion, ended=ended)
    assert verdict.passed == (verdict.reason == "")
    assert 0 <= verdict.dropped_lines <= completion.count("\n") + 1


@pytest.mark.parametrize(
    ("prompt", "line", "whole"),
    [
        ("def f(x):\n", "    return x", True),
        ("def f(x):\n    if x:\n", "        y = (", True),
        ("def f(x):\n    return 1\n", "    return 2", True),
        ("def f(x):\n    try:\n", "        y = 1", False),
        ("y = (\n", "    1,", False),
        ("def f(x):\n    if x:\n", "    return x", False),
    ],
)
def test_a_place_for_a_statement(prompt: str, line: str, whole: bool) -> None:
    assert one_pass_makes_it_whole(prompt, line) is whole
