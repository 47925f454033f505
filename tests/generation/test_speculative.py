"""Speculation: token for token what plain generation writes, by fewer passes."""

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinystarcoder.engine.numpy_decoder import NumpyDecoder
from tinystarcoder.generation.generate import generate_ids, new_slot, sample_texts
from tinystarcoder.generation.sampling import SamplingOptions, probabilities
from tinystarcoder.generation.sequence import Sequence as Text
from tinystarcoder.generation.speculative import (
    DraftModel,
    NewDrafter,
    PromptLookup,
    Speculation,
    speculative_ids,
)
from tinystarcoder.model.checkpoint import Checkpoint
from tinystarcoder.tokenizer import Tokenizer

Tables = Callable[..., Any]


class Liar:
    """Guesses what is seldom right."""

    def guess(self, text: Text, limit: int) -> list[int]:
        return [(text.ids[-1] + step) % 12 for step in range(limit)]

    def close(self) -> None: ...


def drafters(table: Tables, seed: int) -> dict[str, NewDrafter]:
    return {
        "prompt lookup": PromptLookup,
        "the model itself": lambda: DraftModel(table(seed=seed)),
        "a model like it": lambda: DraftModel(table(seed=seed, apart=0.5)),
        "a liar": Liar,
    }


KINDS = ("prompt lookup", "the model itself", "a model like it", "a liar")


class TestSameTokens:
    @pytest.mark.parametrize("kind", KINDS)
    @settings(max_examples=30)
    @given(
        seed=st.integers(0, 50),
        prompt=st.lists(st.integers(0, 11), min_size=1, max_size=150),
        temperature=st.sampled_from([0.0, 0.7, 1.5]),
        penalty=st.sampled_from([1.0, 1.3]),
        max_tokens=st.integers(1, 60),
    )
    def test_as_without(
        self,
        table: Tables,
        kind: str,
        seed: int,
        prompt: list[int],
        temperature: float,
        penalty: float,
        max_tokens: int,
    ) -> None:
        """Greedy or sampled, whatever guesses: ids, log-probabilities, what the slot holds."""
        options = SamplingOptions(
            max_tokens=max_tokens,
            temperature=temperature,
            repetition_penalty=penalty,
            seed=seed,
            top_logprobs=2,
        )
        ends = frozenset({7})
        plain, guessed = table(seed=seed), table(seed=seed)
        slots = plain.allocate(), guessed.allocate()
        expected = list(generate_ids(plain, slots[0], prompt, options, stop_ids=ends))
        new = drafters(table, seed)[kind]
        tokens = list(speculative_ids(guessed, slots[1], prompt, options, new, stop_ids=ends))
        assert tokens == expected
        assert guessed.slots[slots[1]] == plain.slots[slots[0]]

    def test_on_a_real_decoder(self, tokenizer: Tokenizer, tiny_checkpoint: Path) -> None:
        """Healing and samples included. The draft is the model: all it guesses is right."""
        decoder = NumpyDecoder(Checkpoint.open(tiny_checkpoint))
        options = SamplingOptions(max_tokens=24, temperature=1.0, seed=5)
        ids = tokenizer.encode("import os\n\n\ndef list")
        for new in (PromptLookup, lambda: DraftModel(decoder)):
            plain, guessed = (
                sample_texts(decoder, tokenizer, ids, options, 3, beginning="x", new_drafter=given)
                for given in (None, new)
            )
            for one, other in zip(plain, guessed, strict=True):
                assert one.text == other.text
                assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)


class TestDistribution:
    """By enumeration: of all texts of three ids, as many as their probability says."""

    VOCABULARY, LENGTH, TEXTS = 4, 3, 4000
    # Of 63 degrees of freedom, chi-square is larger than this once in 10,000 times.
    LIMIT = 113.5

    def chi_square(self, table: Tables, tokens_of: Callable[[int], Sequence[int]]) -> float:
        model = table(self.VOCABULARY, seed=3, spread=1.0)
        counts = Counter(tuple(tokens_of(seed)) for seed in range(self.TEXTS))
        total = 0.0
        for text in product(range(self.VOCABULARY), repeat=self.LENGTH):
            ids, share = [1, 2], 1.0
            for token in text:
                weights = probabilities(model.logits[ids[-2], ids[-1]], self.options(0))
                share *= weights[token] / weights.sum()
                ids.append(token)
            expected = share * self.TEXTS
            total += (counts[text] - expected) ** 2 / expected
        return total

    def options(self, seed: int) -> SamplingOptions:
        return SamplingOptions(max_tokens=self.LENGTH, temperature=1.1, seed=seed)

    @pytest.mark.parametrize("apart", [0.0, 0.5, 3.0])
    def test_is_the_models_whatever_the_draft(self, table: Tables, apart: float) -> None:
        model = table(self.VOCABULARY, seed=3, spread=1.0)
        draft = table(self.VOCABULARY, seed=3, spread=1.0, apart=apart)

        def tokens_of(seed: int) -> list[int]:
            with new_slot(model) as slot:
                options, new = self.options(seed), lambda: DraftModel(draft)
                return [t.id for t in speculative_ids(model, slot, [1, 2], options, new)]

        assert self.chi_square(table, tokens_of) < self.LIMIT

    def test_the_test_can_fail(self, table: Tables) -> None:
        draft = table(self.VOCABULARY, seed=3, spread=1.0, apart=0.5)

        def tokens_of(seed: int) -> list[int]:
            with new_slot(draft) as slot:
                return [t.id for t in generate_ids(draft, slot, [1, 2], self.options(seed))]

        assert self.chi_square(table, tokens_of) > 2 * self.LIMIT


class TestPasses:
    def passes(
        self, table: Tables, prompt: list[int], new: NewDrafter, vocabulary: int = 12
    ) -> tuple[int, int]:
        """Passes after the prompt's for 60 tokens, and ids that they computed."""
        model = table(vocabulary, seed=1)
        options = SamplingOptions(max_tokens=60)
        tokens = list(speculative_ids(model, model.allocate(), prompt, options, new))
        assert len(tokens) == 60
        return len(model.passes) - 1, model.computed - (len(prompt) - 1)

    def test_right_guesses_save_them(self, table: Tables) -> None:
        passes, computed = self.passes(table, [1, 2, 3], lambda: DraftModel(table(seed=1)))
        assert (passes, computed) == (7, 60)  # 3 + 5 + 9 + 13 + 13 + 13 + 4.

    def test_a_loop_is_guessed_by_lookup(self, table: Tables) -> None:
        """A greedy text of four ids, of which two are remembered, loops within 16 tokens."""
        passes, _ = self.passes(table, [1, 2, 3], PromptLookup, vocabulary=4)
        assert passes < 30

    def test_wrong_guesses_cost_little(self, table: Tables) -> None:
        passes, computed = self.passes(table, [1, 2, 3], Liar)
        assert passes > 50
        assert computed < 80

    def test_guesses_stay_in_the_context(self, table: Tables) -> None:
        """To its very last position, and no further than a draft of less context knows."""
        model, draft = table(seed=1), table(seed=1)
        small = type(draft)(draft.logits, n_positions=100)
        options, prompt = SamplingOptions(max_tokens=200), [3] * 56
        for new in (PromptLookup, lambda: DraftModel(small)):
            slot = model.allocate()
            assert len(list(speculative_ids(model, slot, prompt, options, new))) == 200
            assert model.length(slot) == 255


class TestPromptLookup:
    def guess(self, ids: list[int], limit: int = 4) -> list[int]:
        options = SamplingOptions(max_tokens=50)
        config = type("Config", (), {"n_positions": 500})()
        return PromptLookup().guess(Text(config, ids, options), limit)

    def test_what_followed_last(self) -> None:
        assert self.guess([1, 2, 3, 4, 9, 1, 2, 5, 6, 9, 8, 1, 2]) == [5, 6, 9, 8]

    def test_the_longest_match_counts(self) -> None:
        assert self.guess([7, 8, 1, 2, 3, 9, 1, 2, 4, 7, 8, 1, 2], 1) == [3]

    def test_a_loop_goes_on(self) -> None:
        assert self.guess([5, 1, 2, 3, 1, 2, 3, 1], 5) == [2, 3, 1, 2, 3]

    @given(st.lists(st.integers(0, 3), min_size=1, max_size=40))
    def test_the_last_place_of_the_longest_match(self, ids: list[int]) -> None:
        """By definition: for 4, 3 and 2 ids, the last place behind which they stood before."""
        places = (
            at
            for n in (4, 3, 2)
            for at in range(len(ids) - 1, n - 1, -1)
            if ids[at - n : at] == ids[-n:]
        )
        start = next(places, None)
        expected = [] if start is None else [ids[start]]
        assert self.guess(ids, 1) == expected

    @pytest.mark.parametrize("ids", [[1], [1, 2], [1, 2, 3, 4, 5]])
    def test_nothing_to_go_by(self, ids: list[int]) -> None:
        assert self.guess(ids) == []


class TestCancellation:
    @pytest.mark.parametrize("kind", KINDS)
    def test_within_one_pass(self, table: Tables, kind: str) -> None:
        model = table(seed=2)
        slot, looks = model.allocate(), iter([False, False, False, True])

        class Cancelled:
            def is_set(self) -> bool:
                return next(looks)

        new = drafters(table, 2)[kind]
        prompt, options = [1, 2, 3], SamplingOptions(max_tokens=50)
        tokens = list(speculative_ids(model, slot, prompt, options, new, cancelled=Cancelled()))
        assert 2 <= len(tokens) <= 8  # Two passes, of at most two and four guesses.
        assert model.slots[slot] == [*prompt, *(token.id for token in tokens)][:-1]

    def test_left_in_the_middle_of_a_pass(self, table: Tables) -> None:
        """Closed between two tokens of one pass: the slot forgets the rest of the guesses."""
        model, draft = table(seed=2), table(seed=2)
        slot, prompt = model.allocate(), [1, 2, 3]
        options = SamplingOptions(max_tokens=50)
        tokens = speculative_ids(model, slot, prompt, options, lambda: DraftModel(draft))
        first = next(tokens)
        assert model.length(slot) > len(prompt)
        tokens.close()
        assert model.slots[slot] == prompt
        assert draft.slots == {}
        assert first == next(generate_ids(model, model.allocate(), prompt, options))


def test_a_pause_ends(table: Tables) -> None:
    """Wrong a few times, then asked again, later each time; right once, asked at once."""
    speculation = Speculation(PromptLookup())
    text = Text(table().config, [1, 2, 1, 2, 1, 2], SamplingOptions(max_tokens=50))
    waits = []
    for kept in (0, 0, 0, 1, 0):
        wait = 0
        while not (guesses := speculation.guess(text)):
            wait += 1
        waits.append(wait)
        speculation.learn(len(guesses), kept)
    assert waits == [0, 1, 3, 7, 0]
    assert np.all(np.diff(waits[:4]) > 0)
