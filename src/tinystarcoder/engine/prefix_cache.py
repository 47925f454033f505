"""Slots that keep what was computed in them: a prompt is computed from where it differs.

A text gets the free slot that shares most with it. Where that slot holds much
more than what is shared, which another text may want again, the shared part is
copied to the slot unused for longest; so it is where a slot in use shares most.
It gives up sharing memory between slots: a copy is bytes, as many as the cache
of the shared part has.
"""

from collections import OrderedDict
from collections.abc import Sequence

from .decoder import Decoder

_RUN = 64  # Ids that are compared at once.


class PrefixCache:
    """At most ``capacity`` slots of a decoder, each with the ids that it holds."""

    def __init__(self, decoder: Decoder, capacity: int = 4) -> None:
        self._decoder = decoder
        self._capacity = capacity
        # Slot -> the ids of its text, which may hold more of them; last used last.
        self._free: OrderedDict[int, Sequence[int]] = OrderedDict()
        self._used: dict[int, Sequence[int]] = {}

    @property
    def is_exhausted(self) -> bool:
        """Whether every slot is in use."""
        return len(self._used) == self._capacity

    def acquire(self, ids: Sequence[int]) -> int:
        """A slot that holds as much of the beginning of ``ids`` as was known, not all of them.

        The caller extends it, and may append to ``ids`` what it computes. At
        any later ``acquire`` the slot must hold the first of ``ids``, as many as
        its length says. Not to be called where :attr:`is_exhausted`.
        """
        known = {**self._free, **self._used}
        shared = {slot: common(self._held(slot, known[slot]), ids[:-1]) for slot in known}
        best = max(shared, key=lambda slot: shared[slot], default=None)
        if best is None or not shared[best]:
            slot = self._unused()
            self._decoder.truncate(slot, 0)
        elif best in self._free and self._is_spent(best, shared[best]):
            slot = best
            self._decoder.truncate(slot, shared[best])
        else:
            slot = self._unused()
            if slot != best:
                self._decoder.copy(best, slot)
            self._decoder.truncate(slot, shared[best])
        self._free.pop(slot, None)
        self._used[slot] = ids
        return slot

    def release(self, slot: int) -> None:
        """Takes a slot back, and keeps what it holds for the next text that begins so."""
        ids = self._used.pop(slot)
        self._free[slot] = list(self._held(slot, ids))

    def discard(self, slot: int) -> None:
        """Takes a slot back whose contents cannot be trusted."""
        del self._used[slot]
        self._decoder.release(slot)

    def close(self) -> None:
        """Releases all slots, none of which may be in use."""
        while self._free:
            self._decoder.release(self._free.popitem()[0])

    def _held(self, slot: int, ids: Sequence[int]) -> Sequence[int]:
        return ids[: self._decoder.length(slot)]

    def _is_spent(self, slot: int, shared: int) -> bool:
        """Whether little is lost where only the shared part of a slot is kept."""
        return self._decoder.length(slot) <= 2 * shared

    def _unused(self) -> int:
        """A new slot, or the one that was not used for longest."""
        if len(self._free) + len(self._used) < self._capacity:
            return self._decoder.allocate()
        return next(iter(self._free))


def common(left: Sequence[int], right: Sequence[int]) -> int:
    """How many ids both begin with."""
    shorter = min(len(left), len(right))
    for start in range(0, shorter, _RUN):
        stop = min(start + _RUN, shorter)
        if left[start:stop] != right[start:stop]:  # A thousand ids in a few microseconds.
            for at in range(start, stop):
                if left[at] != right[at]:
                    return at
    return shorter
