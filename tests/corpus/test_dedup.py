import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tinystarcoder.corpus.dedup import content_key, join_equal
from tinystarcoder.corpus.grouping import Forest

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


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), max_size=30))
def test_the_first_of_equals_stands_for_all(keys):
    """Keys that agree in one half only are different."""
    forest = Forest(np.arange(len(keys)))
    join_equal(np.array(keys, dtype=np.uint64).reshape(-1, 2), forest)
    assert forest.find(np.arange(len(keys))).tolist() == [keys.index(key) for key in keys]
