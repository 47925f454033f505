"""Many texts at once: each the same as alone, in fair turns, and none that hangs."""

from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinystarcoder.engine.numpy_decoder import NumpyDecoder
from tinystarcoder.errors import BusyError, RequestError
from tinystarcoder.generation.generate import generate_ids, new_slot, pieces_of, stream_text
from tinystarcoder.generation.sampling import SamplingOptions
from tinystarcoder.generation.scheduler import Generation, Scheduler
from tinystarcoder.generation.sequence import PREFILL_STEP
from tinystarcoder.generation.speculative import DraftModel, NewDrafter, PromptLookup
from tinystarcoder.model.checkpoint import Checkpoint
from tinystarcoder.tokenizer import Tokenizer

Tables = Callable[..., Any]

PROMPTS = st.lists(st.integers(0, 11), min_size=1, max_size=150)
CHOSEN = st.builds(
    SamplingOptions,
    max_tokens=st.integers(1, 40),
    temperature=st.sampled_from([0.0, 1.0]),
    seed=st.integers(0, 5),
)


def run(scheduler: Scheduler) -> None:
    while scheduler.step():
        pass


def received(generation: Generation) -> list[int]:
    """What has come so far, without waiting."""
    events = [generation.events.get() for _ in range(generation.events.qsize())]
    return [event.id for event in events if event is not None]  # type: ignore[union-attr]


class TestSameTokens:
    @pytest.mark.parametrize("kind", ["plain", "prompt lookup", "a draft model"])
    @settings(max_examples=30)
    @given(requests=st.lists(st.tuples(PROMPTS, CHOSEN), max_size=8), slots=st.integers(1, 4))
    def test_as_alone(
        self,
        table: Tables,
        kind: str,
        requests: list[tuple[list[int], SamplingOptions]],
        slots: int,
    ) -> None:
        """Whatever else runs, however few slots there are, with guesses or without."""
        kinds: dict[str, NewDrafter | None] = {
            "plain": None,
            "prompt lookup": PromptLookup,
            "a draft model": lambda: DraftModel(table(apart=0.3)),
        }
        model, ends = table(), frozenset({7})
        scheduler = Scheduler(model, slots=slots, new_drafter=kinds[kind])
        handles = [scheduler.submit(*request, stop_ids=ends) for request in requests]
        run(scheduler)
        assert len(model.slots) <= slots
        for handle, (prompt, options) in zip(handles, requests, strict=True):
            alone = table()
            expected = generate_ids(alone, alone.allocate(), prompt, options, stop_ids=ends)
            assert list(handle) == list(expected)

    def test_threads_ask_a_real_decoder(self, tokenizer: Tokenizer, tiny_checkpoint: Path) -> None:
        decoder = NumpyDecoder(Checkpoint.open(tiny_checkpoint))
        options = SamplingOptions(max_tokens=20)
        prompts = [tokenizer.encode(text) for text in ("import os\n", "def f(", "x = 1", "class ")]
        expected = []
        for ids in prompts:
            with new_slot(decoder) as slot:
                expected.append(
                    "".join(p.text for p in stream_text(decoder, slot, tokenizer, ids, options))
                )
        scheduler = Scheduler(decoder, slots=3).start()
        found: dict[int, str] = {}

        def ask(number: int) -> None:
            ends = tokenizer.special_ids
            tokens = scheduler.submit(prompts[number], options, stop_ids=ends)
            found[number] = "".join(p.text for p in pieces_of(tokens, tokenizer, options))

        threads = [Thread(target=ask, args=(number,)) for number in range(len(prompts))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        scheduler.close()
        assert [found[number] for number in range(len(prompts))] == expected


class TestTurns:
    def test_a_long_prompt_holds_up_nobody(self, table: Tables) -> None:
        """Every pass over a step of it carries the next token of those that write."""
        model = table()
        scheduler = Scheduler(type(model)(model.logits, n_positions=2000))
        writer = scheduler.submit([1, 2], SamplingOptions(max_tokens=100))
        scheduler.step()
        assert len(received(writer)) == 1
        other = scheduler.submit([3] * (5 * PREFILL_STEP), SamplingOptions(max_tokens=1))
        for _ in range(5):
            assert not received(other)
            scheduler.step()
            assert len(received(writer)) == 1
        assert len(received(other)) == 1

    def test_prompts_take_turns(self, table: Tables) -> None:
        model = table()
        model = type(model)(model.logits, n_positions=2000)
        scheduler = Scheduler(model)
        one = SamplingOptions(max_tokens=1)
        lengths = [4 * PREFILL_STEP, PREFILL_STEP, 2 * PREFILL_STEP]
        for first, length in enumerate(lengths):
            scheduler.submit([first] * length, one)
        run(scheduler)
        turns = [next(iter(ids.values()))[0] for ids in model.passes]
        assert turns == [0, 1, 2, 0, 2, 0, 0]
        assert {len(ids) for batch in model.passes for ids in batch.values()} == {PREFILL_STEP}

    def test_first_come_first_served(self, table: Tables) -> None:
        scheduler = Scheduler(table(), slots=1)
        handles = [
            scheduler.submit([number, 1], SamplingOptions(max_tokens=3)) for number in range(3)
        ]
        counts = []
        while scheduler.step():
            counts.append([handle.text.generated for handle in handles])
        assert counts == sorted(counts)
        assert [3, 0, 0] in counts
        assert [3, 3, 0] in counts

    def test_clients_take_turns(self, table: Tables) -> None:
        """Who asks for one text does not wait for all those of who asked for many before."""
        scheduler = Scheduler(table(), slots=1)
        one = SamplingOptions(max_tokens=1)
        clients = ["many", "many", "many", "other", "third", "other"]
        handles = [scheduler.submit([n, 1], one, client=name) for n, name in enumerate(clients)]
        order = []
        while scheduler.step():
            order += [n for n, one in enumerate(handles) if one.text.generated and n not in order]
        assert order == [0, 3, 4, 1, 5, 2]

    def test_the_client_with_the_fewest_slots_goes_first(self, table: Tables) -> None:
        """Even where it had one later than the others."""
        scheduler = Scheduler(table(), slots=2)
        one = SamplingOptions(max_tokens=1)
        scheduler.submit([1, 1], SamplingOptions(max_tokens=50), client="many")
        scheduler.step()
        first = scheduler.submit([5, 1], one, client="other")
        while not first.text.is_finished:
            scheduler.step()
        waiting = [scheduler.submit([6, n], one, client=c) for n, c in enumerate(["many", "other"])]
        while not waiting[1].text.is_finished:
            scheduler.step()
            assert not waiting[0].text.is_finished

    def test_the_queue_has_room_for_others(self, table: Tables) -> None:
        """A client may fill half of it; who has no name may fill it all."""
        scheduler = Scheduler(table(), waiting=4)
        for _ in range(2):
            scheduler.submit([1], SamplingOptions(), client="many")
        with pytest.raises(BusyError, match="2 requests of yours wait"):
            scheduler.submit([1], SamplingOptions(), client="many")
        for _ in range(2):
            scheduler.submit([1], SamplingOptions())
        with pytest.raises(BusyError, match="4 requests wait"):
            scheduler.submit([1], SamplingOptions(), client="other")


class TestReuse:
    def test_samples_share_one_prefill(self, table: Tables) -> None:
        model = table()
        scheduler = Scheduler(model)
        prompt = [1, 2, 3, 4] * 50
        options = SamplingOptions(max_tokens=4, temperature=1.0, seed=0)
        handles = [scheduler.submit(prompt, options, sample=sample) for sample in range(3)]
        run(scheduler)
        assert [handle.reused for handle in handles] == [0, len(prompt) - 1, len(prompt) - 1]
        assert model.computed == len(prompt) + 2 + 3 * 3
        assert len({tuple(token.id for token in handle) for handle in handles}) == 3

    def test_the_next_prompt_goes_on_from_the_last(self, table: Tables) -> None:
        model = table()
        scheduler = Scheduler(model)
        first = scheduler.submit([1, 2, 3] * 30, SamplingOptions(max_tokens=5))
        run(scheduler)
        text = [*first.text.ids, 9]
        second = scheduler.submit(text, SamplingOptions(max_tokens=5))
        run(scheduler)
        assert second.reused == len(text) - 2  # Not the last token, which was never computed.


class TestEnds:
    def test_cancelled_within_one_pass(self, table: Tables) -> None:
        model = table()
        scheduler = Scheduler(model)
        gone, stays = (scheduler.submit([n, 2], SamplingOptions(max_tokens=9)) for n in (1, 3))
        for _ in range(4):
            scheduler.step()
        before = gone.text.generated
        gone.cancel()
        run(scheduler)
        assert gone.text.generated == before
        assert len(list(gone)) == before
        assert len(list(stays)) == 9

    def test_cancelled_in_its_prompt_and_before(self, table: Tables) -> None:
        model = table()
        model = type(model)(model.logits, n_positions=2000)
        scheduler = Scheduler(model, slots=1)
        running = scheduler.submit([1] * (3 * PREFILL_STEP), SamplingOptions())
        waiting = scheduler.submit([2], SamplingOptions())
        scheduler.step()
        running.cancel()
        waiting.cancel()
        assert not scheduler.step()
        assert list(running) == list(waiting) == []
        assert model.computed == PREFILL_STEP

    def test_closing_ends_all(self, table: Tables) -> None:
        model, is_asked = table(), Event()
        model = type(model)(model.logits, n_positions=1_000_000)
        extend = model.extend_batch

        def told(*arguments: Any, **keywords: Any) -> Any:
            is_asked.set()
            return extend(*arguments, **keywords)

        model.extend_batch = told
        scheduler = Scheduler(model, slots=1).start()
        handles = [scheduler.submit([1], SamplingOptions(max_tokens=900_000)) for _ in range(2)]
        is_asked.wait()
        scheduler.close()
        assert len(list(handles[0])) < 900_000
        assert list(handles[1]) == []
        assert model.slots == {}
        with pytest.raises(RequestError, match="closed"):
            scheduler.submit([1], SamplingOptions())

    def test_bad_requests_are_told_at_once(self, table: Tables) -> None:
        scheduler = Scheduler(table())
        with pytest.raises(RequestError, match="context has room for 192"):
            scheduler.submit([1] * 200, SamplingOptions())
        with pytest.raises(RequestError, match="token id 12 is outside"):
            scheduler.submit([12], SamplingOptions())
        with pytest.raises(RequestError, match="no tokens"):
            scheduler.submit([], SamplingOptions())
        assert not scheduler.step()

    def test_a_damaged_text_ends_alone(self, table: Tables) -> None:
        model = table()
        model.logits[3, 3] = np.nan
        scheduler = Scheduler(model)
        broken, sound = (scheduler.submit([n, n], SamplingOptions(max_tokens=1)) for n in (3, 4))
        run(scheduler)
        with pytest.raises(RequestError, match="not finite"):
            list(broken)
        assert len(list(sound)) == 1

    def test_a_failing_engine_hangs_nobody(self, table: Tables) -> None:
        model = table()

        def fail(*_: Any, **__: Any) -> Any:
            raise MemoryError("no more")

        works, model.extend_batch = model.extend_batch, fail
        scheduler = Scheduler(model).start()
        with pytest.raises(MemoryError):
            list(scheduler.submit([1], SamplingOptions()))
        model.extend_batch = works
        assert len(list(scheduler.submit([1], SamplingOptions(max_tokens=2)))) == 2
        scheduler.close()

    def test_who_cannot_have_a_slot_ends_alone(self, table: Tables) -> None:
        model = table()
        scheduler = Scheduler(model, slots=2)
        sound = scheduler.submit([1], SamplingOptions(max_tokens=2))
        scheduler.step()

        def fail() -> int:
            raise MemoryError("no more")

        works, model.allocate = model.allocate, fail
        broken = scheduler.submit([2], SamplingOptions(max_tokens=2))
        run(scheduler)
        with pytest.raises(MemoryError):
            list(broken)
        assert len(list(sound)) == 2
        model.allocate = works
        later = scheduler.submit([2], SamplingOptions(max_tokens=2))
        run(scheduler)
        assert len(list(later)) == 2

    def test_who_cannot_have_a_drafter_keeps_no_slot(self, table: Tables) -> None:
        model, failures = table(), [MemoryError("no more")]

        def drafter() -> PromptLookup:
            if failures:
                raise failures.pop()
            return PromptLookup()

        scheduler = Scheduler(model, slots=1, new_drafter=drafter)
        broken = scheduler.submit([1], SamplingOptions(max_tokens=2))
        run(scheduler)
        with pytest.raises(MemoryError):
            list(broken)
        sound = scheduler.submit([1], SamplingOptions(max_tokens=2))
        run(scheduler)
        assert len(list(sound)) == 2
        scheduler.close()
        assert model.slots == {}
