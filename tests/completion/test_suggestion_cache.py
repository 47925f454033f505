"""Typing into a suggestion, and back, finds the rest of it; anything else finds nothing."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from tinystarcoder.completion.request import CompletionRequest, Cost, Snippet, Suggestion
from tinystarcoder.completion.suggestion_cache import SuggestionCache
from tinystarcoder.generation.sampling import SamplingOptions

TEXT = st.text("ab\n", max_size=6)


@given(prefix=TEXT, text=TEXT, suffix=TEXT, places=st.lists(st.integers(0, 6)))
def test_typing_and_backspace(prefix: str, text: str, suffix: str, places: list[int]) -> None:
    cache, asked = SuggestionCache(), CompletionRequest(prefix, suffix)
    cache.store(asked, Suggestion(text, "end", cost=Cost(1, 2, 3)))
    for place in places:
        typed = text[: min(place, len(text))]
        found = cache.find(replace(asked, prefix=prefix + typed))
        if typed == text and text:
            assert found is None  # All is typed: the model is asked for more.
        else:
            assert found == Suggestion(text[len(typed) :], "end")


@given(asked=st.tuples(TEXT, TEXT), text=TEXT, other=st.tuples(TEXT, TEXT))
def test_nothing_else_is_found(asked: tuple[str, str], text: str, other: tuple[str, str]) -> None:
    cache = SuggestionCache()
    cache.store(CompletionRequest(*asked), Suggestion(text, "end"))
    found = cache.find(CompletionRequest(*other))
    if found is not None:
        assert other[1] == asked[1]
        assert other[0] + found.text == asked[0] + text
        assert len(other[0]) >= len(asked[0])


def test_options_and_documents_are_apart() -> None:
    cache, asked = SuggestionCache(), CompletionRequest("x = ")
    cache.store(asked, Suggestion("1", "end"))
    assert cache.find(asked)
    for changed in (
        replace(asked, mode="line"),
        replace(asked, path="other.py"),
        replace(asked, deadline=1.0),
        replace(asked, sampling=SamplingOptions(seed=1)),
    ):
        assert cache.find(changed) is None


def test_the_unused_longest_is_forgotten() -> None:
    cache = SuggestionCache(capacity=2)
    one, two, three = (CompletionRequest(name) for name in ("one", "two", "three"))
    cache.store(one, Suggestion("1", "end"))
    cache.store(two, Suggestion("2", "end"))
    assert cache.find(one)
    cache.store(three, Suggestion("3", "end"))
    assert [cache.find(asked) is None for asked in (one, two, three)] == [False, True, False]


def test_other_snippets_ask_anew_but_not_while_one_types() -> None:
    cache, asked = SuggestionCache(), CompletionRequest("x = ", snippets=(Snippet("b.py", "y"),))
    cache.store(asked, Suggestion("12", "end"))
    other = replace(asked, snippets=())
    assert cache.find(asked)
    assert cache.find(other) is None
    assert cache.find(replace(other, prefix="x = 1")) == Suggestion("2", "end")
