"""Which slot a prompt gets, and that what it holds is what it says."""

from collections.abc import Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tinystarcoder.engine.prefix_cache import PrefixCache, common


class Slots:
    """The slots of a decoder, and nothing else of it."""

    def __init__(self) -> None:
        self.held: dict[int, list[int]] = {}
        self.computed = 0

    def allocate(self) -> int:
        slot = max(self.held, default=-1) + 1
        self.held[slot] = []
        return slot

    def release(self, slot: int) -> None:
        del self.held[slot]

    def length(self, slot: int) -> int:
        return len(self.held[slot])

    def extend(self, slot: int, ids: Sequence[int]) -> None:
        self.held[slot] += ids
        self.computed += len(ids)

    def truncate(self, slot: int, length: int) -> None:
        assert 0 <= length <= len(self.held[slot])
        del self.held[slot][length:]

    def copy(self, source: int, target: int) -> None:
        self.held[target] = list(self.held[source])


def made(capacity: int = 3) -> tuple[Any, PrefixCache]:
    slots: Any = Slots()
    return slots, PrefixCache(slots, capacity)


def compute(slots: Any, cache: PrefixCache, ids: list[int]) -> int:
    """Takes a slot, computes all ids in it, gives it back; the ids that were there already."""
    slot = cache.acquire(ids)
    reused = slots.length(slot)
    slots.extend(slot, ids[reused:])
    cache.release(slot)
    return reused


def test_a_prompt_that_grew() -> None:
    slots, cache = made()
    assert [compute(slots, cache, list(range(n))) for n in (10, 12, 30)] == [0, 10, 12]
    assert len(slots.held) == 1


def test_the_last_id_is_always_computed() -> None:
    slots, cache = made()
    assert [compute(slots, cache, [1, 2, 3]) for _ in range(2)] == [0, 2]
    assert compute(slots, cache, [1]) == 0


def test_two_documents_keep_a_slot_each() -> None:
    slots, cache = made()
    one, other = list(range(100)), list(range(100, 200))
    compute(slots, cache, one)
    compute(slots, cache, other)
    assert compute(slots, cache, [*one, 1]) == 100
    assert compute(slots, cache, [*other, 1]) == 100


def test_a_branch_leaves_the_whole_to_others() -> None:
    """A prompt that shares a little of a long one does not destroy it."""
    slots, cache = made()
    compute(slots, cache, list(range(100)))
    assert compute(slots, cache, [0, 1, 2, 50, 51]) == 3
    assert compute(slots, cache, [*range(100), 7]) == 100


def test_the_slot_unused_for_longest_goes() -> None:
    slots, cache = made(2)
    for start in (0, 1000, 2000):
        compute(slots, cache, list(range(start, start + 10)))
    assert len(slots.held) == 2
    assert compute(slots, cache, list(range(1000, 1020))) == 10
    assert compute(slots, cache, list(range(20))) == 0


def test_slots_in_use_are_copied_never_taken() -> None:
    slots, cache = made(2)
    ids = list(range(10))
    first = cache.acquire(ids)
    slots.extend(first, ids[:6])
    second = cache.acquire([*range(8), 99])
    assert (first != second, slots.held[second]) == (True, list(range(6)))
    assert cache.is_exhausted
    slots.extend(first, ids[6:])
    assert slots.held[first] == ids
    cache.release(first)
    cache.discard(second)
    assert not cache.is_exhausted
    cache.close()
    assert slots.held == {}


@settings(max_examples=100)
@given(
    prompts=st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=8), max_size=12),
    capacity=st.integers(1, 4),
)
def test_what_is_reused_is_the_beginning(prompts: list[list[int]], capacity: int) -> None:
    slots, cache = made(capacity)
    for ids in prompts:
        slot = cache.acquire(ids)
        held = list(slots.held[slot])
        assert held == ids[: len(held)]
        assert len(held) < len(ids)
        slots.extend(slot, ids[len(held) :])
        cache.release(slot)
        assert len(slots.held) <= capacity


@given(st.lists(st.integers(0, 1)), st.lists(st.integers(0, 1)), st.integers(0, 200))
def test_common(left: list[int], right: list[int], both: int) -> None:
    left, right = [7] * both + left, [7] * both + right
    shared = common(left, right)
    assert left[:shared] == right[:shared]
    assert left[: shared + 1] != right[: shared + 1] or shared == min(len(left), len(right))
