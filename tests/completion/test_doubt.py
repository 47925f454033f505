"""A suggestion's first part: what promises most saved keys, and is never a torn name."""

from itertools import combinations, pairwise
from math import exp, log

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinystarcoder.completion.doubt import certain_part, ends, first_part
from tinystarcoder.completion.request import Score, Suggestion


def suggested(*tokens: tuple[str, float]) -> Suggestion:
    """A suggestion of these tokens with their probabilities."""
    text, scores = "", []
    for token, probability in tokens:
        text += token
        scores.append(Score(len(text), log(probability)))
    return Suggestion(text, "boundary", scores=tuple(scores))


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        # Sure of all of it: one key for the whole line.
        ([("return", 0.99), (" value", 0.99), (".", 0.99), ("name", 0.99)], "return value.name"),
        # 6 characters less a key and then the rest, or 0.3 of it all: the first is more.
        ([("return", 0.9), (" value", 0.3), (".", 0.9), ("name", 0.9)], "return"),
        # A doubtful beginning does not make the rest doubtful.
        ([("return", 0.3), (" value", 0.99), (".", 0.99), ("name", 0.99)], "return value.name"),
        # Not inside of a name, however doubtful the rest of it is; not behind blanks.
        ([("self", 0.9), (".", 0.9), ("val", 0.9), ("ue", 0.1)], "self."),
        ([("val", 0.9), ("ue", 0.1)], "value"),
        ([("a", 0.9), (" =", 0.9), (" ", 0.9), ("[", 0.1), ("1", 0.1)], "a ="),
    ],
)
def test_the_part_that_is_shown(tokens: list[tuple[str, float]], expected: str) -> None:
    made = certain_part(suggested(*tokens))
    assert (made.text, made.finish) == (expected, "boundary")


def test_without_scores_or_text_nothing_is_cut() -> None:
    """As of a text that was not written by a model, or is all filtered away."""
    assert certain_part(Suggestion("value = 1", "end")).text == "value = 1"
    assert certain_part(Suggestion("", "end", scores=(Score(5, -1.0),))).text == ""


def test_a_token_that_the_filters_cut() -> None:
    """Its probability counts, up to where the text ends."""
    made = Suggestion("os.path", "boundary", scores=(Score(2, -0.1), Score(9, -3.0), Score(9, -1)))
    assert ends(made) == [(2, -0.1), (7, pytest.approx(-3.1))]


def test_half_a_character_has_no_end_of_its_own() -> None:
    made = Suggestion("a = é", "end", scores=(Score(4, -0.1), Score(4, -0.2), Score(5, -0.4)))
    assert ends(made) == [(5, pytest.approx(-0.7))]
    assert ends(made, torn=True) == [(5, pytest.approx(-0.7))]


def test_inside_of_words_where_that_is_asked_for() -> None:
    made = suggested(("val", 0.5), ("ue", 0.5))
    assert [stop for stop, _ in ends(made)] == [5]
    assert [stop for stop, _ in ends(made, torn=True)] == [3, 5]


# Probabilities that stay above the one at which the search looks no further.
TOKENS = st.lists(st.tuples(st.integers(1, 9), st.floats(0.45, 1)), min_size=1, max_size=5)


@given(TOKENS)
def test_no_other_parts_promise_more(tokens: list[tuple[int, float]]) -> None:
    """Of all ways of cutting: a part saves its characters less a key, if all up to it is right."""
    places, stop, logprob = [(0, 0.0)], 0, 0.0
    for size, probability in tokens:
        stop, logprob = stop + size, logprob + log(probability)
        places.append((stop, logprob))
    promised: dict[int, float] = {}
    for count in range(len(places) - 1):
        for inner in combinations(places[1:-1], count):
            chain = [places[0], *inner, places[-1]]
            value = sum(exp(there[1]) * (there[0] - here[0] - 1) for here, there in pairwise(chain))
            promised[chain[1][0]] = max(value, promised.get(chain[1][0], 0.0))
    assert promised[first_part(places[1:])] == pytest.approx(max(promised.values()))
