"""Stop strings: however a text is cut, the same comes out, and never a stop string."""

from hypothesis import given
from hypothesis import strategies as st

from tinystarcoder.generation.stopping import StopStrings

# Few letters, so that stop strings overlap themselves, each other and the text.
words = st.text("ab\n", min_size=1, max_size=5)


def by_definition(text: str, stops: list[str]) -> str:
    """Up to where the first stop string to be complete begins."""
    for end in range(len(text) + 1):
        begins = [end - len(stop) for stop in stops if text[:end].endswith(stop)]
        if begins:
            return text[: min(begins)]
    return text


@given(pieces=st.lists(st.text("ab\n", max_size=4), max_size=12), stops=st.lists(words, max_size=3))
def test_in_any_pieces(pieces: list[str], stops: list[str]) -> None:
    matcher = StopStrings(stops)
    whole = "".join(pieces)
    expected = by_definition(whole, stops)
    shown = ""
    fed = ""
    for piece in pieces:
        fed += piece
        shown += matcher.feed(piece)
        # Nothing shown is ever taken back, and no more is held than may become a stop.
        assert expected.startswith(shown)
        if not matcher.stopped:
            held = fed[len(shown) :]
            assert not held or any(stop.startswith(held) for stop in stops)
    assert matcher.stopped == (expected != whole or any(stop in whole for stop in stops))
    assert shown + matcher.flush() == expected


def test_without_stop_strings_nothing_is_held() -> None:
    matcher = StopStrings([])
    assert [matcher.feed(text) for text in ("a", "", "b\n")] == ["a", "", "b\n"]


def test_after_a_stop_string_nothing_comes() -> None:
    matcher = StopStrings(["\n\n"])
    assert [matcher.feed(text) for text in ("x\n", "\ny", "z")] == ["x", "", ""]
    assert matcher.flush() == ""
