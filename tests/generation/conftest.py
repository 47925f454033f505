"""A decoder whose logits are looked up: exact in any pieces, and quick."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from tinystarcoder.engine.decoder import Logits, check_batch, check_ids, check_length
from tinystarcoder.model.config import ModelConfig

Requests = Sequence[tuple[int, Sequence[int]]]


class Table:
    """Logits by the last id and the one before, from ``[V, V, V]``; records what it computes."""

    def __init__(self, logits: np.ndarray, n_positions: int = 256) -> None:
        self.config = ModelConfig(
            vocab_size=len(logits), n_positions=n_positions, n_embd=8, n_head=1
        )
        self.logits = logits.astype(np.float32)
        self.slots: dict[int, list[int]] = {}
        self.passes: list[dict[int, list[int]]] = []  # Of each pass: slot -> ids.

    @property
    def computed(self) -> int:
        return sum(len(ids) for batch in self.passes for ids in batch.values())

    def allocate(self) -> int:
        slot = max(self.slots, default=-1) + 1
        self.slots[slot] = []
        return slot

    def release(self, slot: int) -> None:
        del self.slots[slot]

    def length(self, slot: int) -> int:
        return len(self.slots[slot])

    def extend(self, slot: int, ids: Sequence[int], *, all_logits: bool = False) -> Logits:
        return self.extend_batch([(slot, ids)], all_logits=all_logits)[0]

    def extend_batch(self, requests: Requests, *, all_logits: bool = False) -> list[Logits]:
        check_batch(self.config, requests, self.length)
        self.passes.append({slot: list(ids) for slot, ids in requests})
        return [self._extend(slot, ids, all_logits) for slot, ids in requests]

    def _extend(self, slot: int, ids: Sequence[int], every: bool) -> Logits:
        check_ids(self.config, self.length(slot), ids)
        start = self.length(slot)
        held = self.slots[slot]
        held += ids
        last = np.array(held[start:])
        before = np.array([0, *held][start : start + len(ids)])
        rows = self.logits[before, last]
        return rows if every else rows[-1]

    def truncate(self, slot: int, length: int) -> None:
        check_length(self.length(slot), length)
        del self.slots[slot][length:]

    def copy(self, source: int, target: int) -> None:
        self.slots[target] = list(self.slots[source])


@pytest.fixture(scope="session")
def table() -> Callable[..., Table]:
    """Makes one of random logits: ``spread`` is how far from uniform, ``apart`` from seed's."""

    def make(vocabulary: int = 12, seed: int = 0, spread: float = 2.0, apart: float = 0.0) -> Table:
        shape = (vocabulary,) * 3
        logits = np.random.default_rng(seed).normal(0, spread, shape)
        return Table(logits + np.random.default_rng(seed + 1).normal(0, 1, shape) * apart)

    return make
