from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tinystarcoder.training import packing
from tinystarcoder.training.packing import FIM_OVERHEAD, blocks, cut, pack, plan

LENGTHS = st.lists(st.integers(1, 300), min_size=1, max_size=60).map(np.array)
CAPACITY = st.integers(FIM_OVERHEAD + 1, 120)


def some_fim(document: int, start: int) -> bool:
    return (document + start) % 3 == 0


@given(LENGTHS, CAPACITY)
def test_every_token_stands_in_exactly_one_row(lengths, capacity):
    block = np.arange(len(lengths))
    rows = plan(lengths, block, capacity, some_fim, [0])
    seen = Counter((p.document, at) for row in rows for p in row for at in range(p.start, p.stop))
    assert set(seen.values()) == {1}
    assert len(seen) == lengths.sum()


@given(LENGTHS, CAPACITY)
def test_no_row_is_overfull_even_with_the_sentinels(lengths, capacity):
    for row in plan(lengths, np.arange(len(lengths)), capacity, some_fim, [0]):
        assert sum(map(len, row)) <= capacity


@given(LENGTHS, CAPACITY)
def test_best_fit_leaves_no_two_rows_that_fit_together(lengths, capacity):
    pieces = list(cut(lengths, np.arange(len(lengths)), capacity, lambda *_: False))
    fill = sorted(sum(map(len, row)) for row in pack(pieces, capacity))
    assert len(fill) < 2 or fill[0] + fill[1] > capacity


def test_a_plan_depends_on_its_key_alone():
    lengths = np.random.default_rng(0).integers(1, 200, 50)
    block = np.arange(50)
    assert plan(lengths, block, 64, some_fim, [1, 2]) == plan(lengths, block, 64, some_fim, [1, 2])
    assert plan(lengths, block, 64, some_fim, [1, 2]) != plan(lengths, block, 64, some_fim, [1, 3])


def test_blocks_hold_every_document_once(monkeypatch):
    monkeypatch.setattr(packing, "BLOCK_TOKENS", 100)
    lengths = np.random.default_rng(0).integers(1, 90, 50)
    parts = blocks(lengths, np.arange(50), [0])
    assert sorted(np.concatenate(parts)) == list(range(50))
    assert len(parts) > 10
