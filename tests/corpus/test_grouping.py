import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinystarcoder.corpus import grouping
from tinystarcoder.corpus.grouping import Forest, shared_keys

KEYS = st.lists(st.integers(0, 9).map(lambda key: key * (2**64 // 10)), max_size=60)
PAIRS = st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), max_size=40)


@given(KEYS, st.integers(1, 60))
def test_rows_that_share_a_key_stand_together_however_few_are_sorted_at_once(keys, at_once):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grouping, "SORTED_AT_ONCE", at_once)
        found = {}
        for part, (rows, runs) in enumerate(shared_keys(np.array(keys, dtype=np.uint64))):
            assert (np.diff(runs) >= 0).all() and set(np.diff(runs)) <= {0, 1}
            for row, run in zip(rows.tolist(), runs.tolist(), strict=True):
                found.setdefault((part, run), []).append(row)
    rows_of = {}
    for row, key in enumerate(keys):
        rows_of.setdefault(key, []).append(row)
    expected = sorted(rows for rows in rows_of.values() if len(rows) > 1)
    assert sorted(found.values()) == expected


@given(PAIRS, st.data())
def test_a_root_is_the_lowest_of_all_that_is_connected(pairs, data):
    expected = list(range(20))
    for left, right in pairs:
        low, high = sorted((expected[left], expected[right]))
        expected = [low if root == high else root for root in expected]
    forest = Forest(np.arange(20))
    while pairs:  # In any number of calls.
        count = data.draw(st.integers(1, len(pairs)))
        forest.join(*np.array(pairs[:count]).T)
        pairs = pairs[count:]
    assert forest.find(np.arange(20)).tolist() == expected


def test_a_long_chain():
    forest = Forest(np.arange(5000))
    forest.join(np.arange(4999), np.arange(1, 5000))
    assert not forest.find(np.arange(5000)).any()
