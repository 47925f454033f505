import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinystarcoder.completion.accept import first_line, first_word


@pytest.mark.parametrize(
    ("text", "word"),
    [("listdir(path)", "listdir"), ("(path)", "("), ("\n    return x", "\n    return"), ("", "")],
)
def test_a_word_is_what_one_key_steps_over(text, word):
    assert first_word(text) == word


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("x)\n  y", "x)"),
        ("\n  return x\n  z", "\n  return x"),
        ("\n", "\n"),
        ("x)\r\n  y", "x)"),
        ("\r\n  return x\r\n", "\r\n  return x"),
    ],
)
def test_a_line_has_something_on_it(text, line):
    assert first_line(text) == line


@given(st.text())
def test_words_one_after_another_are_the_text(text):
    taken = ""
    while rest := text[len(taken) :]:
        word = first_word(rest)
        assert word
        taken += word
    assert taken == text
