"""A prompt computed while there is nothing else to do, and given up for whoever asks."""

from collections.abc import Callable
from functools import partial
from threading import Event, current_thread
from typing import Any

import pytest

from tinystarcoder.generation.sampling import SamplingOptions
from tinystarcoder.generation.scheduler import Scheduler
from tinystarcoder.generation.sequence import PREFILL_STEP

Tables = Callable[..., Any]

ONE = SamplingOptions(max_tokens=1)


@pytest.fixture
def long_table(table: Tables) -> Any:
    model = table()
    return type(model)(model.logits, n_positions=2000)


class Gate:
    """Lets a decoder compute only once it is open; ``is_asked`` is set at the first pass."""

    def __init__(self, model: Any) -> None:
        self.is_asked, self.is_open = Event(), Event()
        self._extend = model.extend_batch
        model.extend_batch = self

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        self.is_asked.set()
        self.is_open.wait()
        return self._extend(*arguments, **named)


def holds(model: Any, ids: list[int]) -> bool:
    return any(held[: len(ids)] == ids for held in list(model.slots.values()))


def test_what_begins_so_is_not_computed_again(long_table: Any) -> None:
    scheduler, ids = Scheduler(long_table).start(), [1, 2, 3] * 100
    scheduler.prefetch(lambda: ids)
    while not holds(long_table, ids) or any(scheduler.load):
        pass
    asked = scheduler.submit([*ids, 4], ONE)
    assert len(list(asked)) == 1
    assert asked.reused == len(ids)
    scheduler.close()


def test_who_asks_ends_it_within_a_step(long_table: Any) -> None:
    gate, scheduler = Gate(long_table), Scheduler(long_table)
    scheduler.start().prefetch(lambda: [1] * (5 * PREFILL_STEP))
    gate.is_asked.wait()
    asked = scheduler.submit([2, 3], ONE)
    gate.is_open.set()
    assert len(list(asked)) == 1
    while any(scheduler.load):
        pass
    scheduler.close()
    assert long_table.computed == PREFILL_STEP + 2


def test_it_waits_for_those_that_run(long_table: Any) -> None:
    gate, scheduler = Gate(long_table), Scheduler(long_table)
    asked = scheduler.start().submit([2, 3], SamplingOptions(max_tokens=9))
    gate.is_asked.wait()
    scheduler.prefetch(lambda: [1] * 40)
    gate.is_open.set()
    assert len(list(asked)) == 9
    while not holds(long_table, [1] * 40):
        pass
    scheduler.close()
    firsts = [next(iter(batch.values()))[0] for batch in long_table.passes]
    assert 1 not in firsts[:9]
    assert [len(ids) for ids in long_table.passes[-1].values()] == [40]


def test_the_last_one_counts_and_closing_ends_it(long_table: Any) -> None:
    gate, scheduler = Gate(long_table), Scheduler(long_table)
    asked = scheduler.start().submit([2], SamplingOptions(max_tokens=2))
    gate.is_asked.wait()
    for first in (5, 6):
        scheduler.prefetch(partial(list, [first] * 10))
    gate.is_open.set()
    list(asked)
    while not holds(long_table, [6] * 10):
        pass
    scheduler.prefetch(lambda: [7] * 10)
    scheduler.close()
    assert long_table.slots == {}
    assert not any(5 in ids for batch in long_table.passes for ids in batch.values())


@pytest.mark.parametrize("ids", [[12], []])
def test_what_cannot_be_computed_is_let_go(long_table: Any, ids: list[int]) -> None:
    scheduler, is_made = Scheduler(long_table).start(), Event()
    scheduler.prefetch(lambda: is_made.set() or ids)
    is_made.wait()
    assert len(list(scheduler.submit([2, 3], ONE))) == 1
    scheduler.close()


def test_ids_are_asked_for_while_nobody_else_asks(long_table: Any) -> None:
    """By the engine's thread, so that who has prefetched is not kept."""
    gate, scheduler, makers = Gate(long_table), Scheduler(long_table), []
    asked = scheduler.start().submit([2], ONE)
    gate.is_asked.wait()
    scheduler.prefetch(lambda: makers.append(current_thread().name) or [1] * 10)
    assert makers == []
    gate.is_open.set()
    list(asked)
    while not holds(long_table, [1] * 10):
        pass
    scheduler.close()
    assert makers == ["engine"]
