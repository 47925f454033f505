from hypothesis import given
from hypothesis import strategies as st

from tinystarcoder.corpus.dedup import content_key, first_of_each

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
BLANKS = st.text(" \t", max_size=3)


@given(st.lists(st.text("ab(): ", max_size=8), max_size=6), st.data())
def test_trailing_white_space_makes_no_difference(lines, data):
    padded = [line + data.draw(BLANKS) for line in lines]
    ending = data.draw(st.text("\n ", max_size=3))
    assert content_key("\n".join(lines)) == content_key("\n".join(padded) + ending)


@given(TEXT, TEXT)
def test_other_differences_do(left, right):
    def stripped(text):
        return [line.rstrip() for line in text.rstrip().split("\n")]

    assert (content_key(left) == content_key(right)) == (stripped(left) == stripped(right))


def test_indentation_is_content():
    assert content_key("if x:\n  y") != content_key("if x:\n    y")


@given(st.lists(st.sampled_from([b"a", b"b", b"c"])))
def test_the_first_of_equals_stands_for_all(keys):
    assert first_of_each(keys) == [keys.index(key) for key in keys]
