"""A request says what is wrong with it."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinystarcoder import fim
from tinystarcoder.completion.request import CompletionRequest, Score, Snippet, Suggestion
from tinystarcoder.errors import RequestError
from tinystarcoder.generation.sampling import SamplingOptions


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"mode": "word"}, "mode 'word': must be one of line, block, auto"),
        ({"deadline": 0}, "deadline 0"),
        ({"deadline": -1.0}, "deadline -1.0"),
        ({"deadline": math.nan}, "deadline nan"),
        ({"deadline": math.inf}, "deadline inf"),
    ],
)
def test_out_of_range(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(RequestError, match=told):
        CompletionRequest("x", **fields)


LINES = st.text("ab \n", max_size=30)


@given(prefix=LINES, suffix=LINES, line_break=st.sampled_from(["\n", "\r\n"]))
def test_texts_are_held_with_lf(prefix: str, suffix: str, line_break: str) -> None:
    def spelled(text: str) -> str:
        return text.replace("\n", line_break)

    expected = CompletionRequest(
        prefix,
        suffix,
        sampling=SamplingOptions(stop=["\n\n"]),
        snippets=(Snippet("b.py", prefix),),
        line_break=line_break if "\n" in prefix + suffix else "\n",
    )
    request = CompletionRequest(
        spelled(prefix),
        spelled(suffix),
        sampling=SamplingOptions(stop=[spelled("\n\n")]),
        snippets=(Snippet("b.py", spelled(prefix)),),
    )
    assert request == expected


@pytest.mark.parametrize(
    ("prefix", "suffix", "line_break"),
    [
        ("", "", "\n"),
        ("a\r\nb\nc", "\r\n", "\n"),
        ("a\nb\r\nc", "\n", "\r\n"),
        ("a", "b\r\nc\n", "\r\n"),
        ("a", "\n\r\n", "\n"),
        ("a\rb", "c\r", "\n"),
    ],
)
def test_the_nearest_line_above_tells_the_line_break(
    prefix: str, suffix: str, line_break: str
) -> None:
    assert CompletionRequest(prefix, suffix).line_break == line_break


@given(text=LINES, stops=st.lists(st.integers(0, 40)))
def test_spelling_line_breaks_moves_scores_with_their_text(text: str, stops: list[int]) -> None:
    suggestion = Suggestion(text, "end", scores=tuple(Score(stop, -1.0) for stop in sorted(stops)))
    spelled = suggestion.spelled("\r\n")
    assert fim.with_lf(spelled.text) == text
    assert suggestion.spelled("\n") == suggestion
    for one, other in zip(suggestion.scores, spelled.scores, strict=True):
        assert fim.with_lf(spelled.text[: other.stop]) == text[: one.stop]
    assert len(spelled.shown_scores) == len(suggestion.shown_scores)
