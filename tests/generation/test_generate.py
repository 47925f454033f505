"""Generation over a scripted decoder, where every logit is known, and over a random model."""

import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import GPTBigCodeForCausalLM

from tinystarcoder.engine.decoder import Logits, check_ids, check_length
from tinystarcoder.engine.numpy_decoder import NumpyDecoder
from tinystarcoder.errors import RequestError
from tinystarcoder.generation.generate import (
    Completion,
    complete_text,
    fit_prompt,
    generate_ids,
    new_slot,
    sample_texts,
    stream_text,
)
from tinystarcoder.generation.sampling import SamplingOptions
from tinystarcoder.model.checkpoint import Checkpoint
from tinystarcoder.model.config import ModelConfig
from tinystarcoder.tokenizer import Tokenizer

PROMPT = [30, 31, 32]


class Scripted:
    """A decoder that wants to continue a prompt of three ids with a given list."""

    def __init__(self, script: Iterable[int], n_positions: int = 128) -> None:
        self.config = ModelConfig(vocab_size=400, n_positions=n_positions, n_embd=8, n_head=1)
        self.script = list(script)
        self.slots: dict[int, list[int]] = {}
        self.computed = 0

    def allocate(self) -> int:
        slot = max(self.slots, default=-1) + 1
        self.slots[slot] = []
        return slot

    def release(self, slot: int) -> None:
        del self.slots[slot]

    def length(self, slot: int) -> int:
        return len(self.slots[slot])

    def extend(self, slot: int, ids: Sequence[int], *, all_logits: bool = False) -> Logits:
        check_ids(self.config, self.length(slot), ids)
        self.slots[slot] += ids
        self.computed += len(ids)
        logits = np.zeros(self.config.vocab_size, np.float32)
        step = self.length(slot) - len(PROMPT)
        if 0 <= step < len(self.script):
            logits[self.script[step]] = 5.0
        return logits

    def truncate(self, slot: int, length: int) -> None:
        check_length(self.length(slot), length)
        del self.slots[slot][length:]

    def copy(self, source: int, target: int) -> None:
        self.slots[target] = list(self.slots[source])


def complete(tokenizer: Tokenizer, script: Iterable[int], **options: object) -> Completion:
    decoder = Scripted(script)
    chosen = SamplingOptions(**options)  # type: ignore[arg-type]
    with new_slot(decoder) as slot:
        pieces = list(stream_text(decoder, slot, tokenizer, PROMPT, chosen))
        assert [piece.finish_reason is None for piece in pieces[:-1]] == [True] * (len(pieces) - 1)
    with new_slot(decoder) as slot:
        whole = complete_text(decoder, slot, tokenizer, PROMPT, chosen)
    assert whole.text == "".join(piece.text for piece in pieces)
    assert whole.finish_reason == pieces[-1].finish_reason
    assert decoder.slots == {}
    return whole


class TestText:
    def test_ends_at_max_tokens(self, tokenizer: Tokenizer) -> None:
        ids = tokenizer.encode("def print_hello_world():")
        done = complete(tokenizer, [*ids, *ids], max_tokens=len(ids))
        assert (done.text, done.finish_reason) == ("def print_hello_world():", "length")
        assert [token.id for token in done.tokens] == ids

    @pytest.mark.parametrize("special", ["<|endoftext|>", "<fim_pad>", "<filename>"])
    def test_ends_at_any_special_token(self, tokenizer: Tokenizer, special: str) -> None:
        ids = tokenizer.encode("x = 1")
        end = tokenizer.token_id(special)
        assert end is not None
        done = complete(tokenizer, [*ids, end, *ids])
        assert (done.text, done.finish_reason) == ("x = 1", "stop")
        assert [token.id for token in done.tokens] == [*ids, end]

    @given(data=st.data())
    def test_stop_strings_never_leak(self, tokenizer: Tokenizer, data: st.DataObject) -> None:
        """Whatever part of the text is a stop string, and wherever tokens cut it."""
        text = "import os\n\n\ndef list_files(path):\n    return os.listdir(path)\n"
        start = data.draw(st.integers(0, len(text) - 1))
        stop = text[start : data.draw(st.integers(start + 1, len(text)))]
        ids = tokenizer.encode(text)
        done = complete(tokenizer, ids, max_tokens=len(ids), stop=stop)
        assert done.text == text[: text.index(stop)]
        assert done.finish_reason == "stop"

    def test_an_unfinished_stop_string_is_text(self, tokenizer: Tokenizer) -> None:
        ids = tokenizer.encode("x = 1\n")
        ended = complete(tokenizer, [*ids, 0], stop=["\n\n"])
        cut = complete(tokenizer, ids, stop=["\n\n"], max_tokens=len(ids))
        assert (ended.text, ended.finish_reason) == ("x = 1\n", "stop")
        assert (cut.text, cut.finish_reason) == ("x = 1\n", "length")

    @given(text=st.text(max_size=12), data=st.data())
    def test_half_a_character_is_dropped(
        self, tokenizer: Tokenizer, text: str, data: st.DataObject
    ) -> None:
        ids = tokenizer.encode("." + text)
        number = data.draw(st.integers(1, len(ids)))
        done = complete(tokenizer, ids, max_tokens=number)
        raw = b"".join(map(tokenizer.token_bytes, ids[:number]))
        assert done.text == raw.decode(errors="ignore")

    def test_greedy_text_is_transformers(self, tokenizer: Tokenizer, tiny_checkpoint: Path) -> None:
        decoder = NumpyDecoder(Checkpoint.open(tiny_checkpoint))
        model = GPTBigCodeForCausalLM.from_pretrained(tiny_checkpoint)
        for prompt in ("def ", "import os\n", "x"):
            ids = tokenizer.encode(prompt)
            with new_slot(decoder) as slot:
                ours = list(generate_ids(decoder, slot, ids, SamplingOptions(max_tokens=30)))
            theirs = model.generate(
                torch.tensor([ids]), max_new_tokens=30, do_sample=False, eos_token_id=None
            )
            assert [*ids, *(token.id for token in ours)] == theirs[0].tolist()


class TestTokens:
    def test_logprobs_are_the_models_own(self, tokenizer: Tokenizer, tiny_checkpoint: Path) -> None:
        """Whatever reshapes the choice: temperature, penalty and top-k are not in them."""
        decoder = NumpyDecoder(Checkpoint.open(tiny_checkpoint))
        options = SamplingOptions(
            max_tokens=12, temperature=3.0, top_k=50, repetition_penalty=1.5, seed=0, top_logprobs=3
        )
        with new_slot(decoder) as slot:
            tokens = list(generate_ids(decoder, slot, PROMPT, options))
        model = GPTBigCodeForCausalLM.from_pretrained(tiny_checkpoint)
        ids = [*PROMPT, *(token.id for token in tokens)]
        with torch.no_grad():
            logprobs = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
        assert len(tokens) == 12
        for position, token in enumerate(tokens, start=len(PROMPT) - 1):
            best = logprobs[position].topk(3)
            assert token.logprob == pytest.approx(logprobs[position, token.id].item(), abs=1e-4)
            assert [i for i, _ in token.alternatives] == best.indices.tolist()
            found = [logprob for _, logprob in token.alternatives]
            assert found == pytest.approx(best.values.tolist(), abs=1e-4)

    def test_more_alternatives_than_ids(self) -> None:
        decoder = Scripted([40])
        options = SamplingOptions(max_tokens=1, top_logprobs=1000)
        (token,) = generate_ids(decoder, decoder.allocate(), PROMPT, options)
        assert len(token.alternatives) == 400
        assert token.alternatives[0] == (40, token.logprob)

    def test_what_the_slot_holds_is_not_computed_again(self) -> None:
        decoder = Scripted(range(40, 50))
        slot = decoder.allocate()
        decoder.extend(slot, PROMPT[:2])
        tokens = list(generate_ids(decoder, slot, PROMPT, SamplingOptions(max_tokens=5)))
        assert [token.id for token in tokens] == [40, 41, 42, 43, 44]
        assert decoder.computed == len(PROMPT) + 4
        assert decoder.slots[slot] == [*PROMPT, 40, 41, 42, 43]

    def test_stop_ids_are_the_callers(self) -> None:
        decoder = Scripted([40, 0, 41, 42])
        options = SamplingOptions(max_tokens=4)
        every = [t.id for t in generate_ids(decoder, decoder.allocate(), PROMPT, options)]
        stops = frozenset({0, 41})
        ended = generate_ids(decoder, decoder.allocate(), PROMPT, options, stop_ids=stops)
        assert every == [40, 0, 41, 42]
        assert [token.id for token in ended] == [40, 0]

    def test_a_damaged_model_is_told(self) -> None:
        decoder = Scripted([])
        broken = np.full(400, np.nan, np.float32)
        decoder.extend = lambda *_, **__: broken  # type: ignore[method-assign]
        with pytest.raises(RequestError, match="logits are not finite"):
            next(generate_ids(decoder, decoder.allocate(), PROMPT, SamplingOptions()))


class TestSamples:
    def test_one_prefill_for_all(self, tokenizer: Tokenizer) -> None:
        decoder = Scripted(range(40, 90))
        prompt = PROMPT * 10
        done = sample_texts(decoder, tokenizer, prompt, SamplingOptions(max_tokens=2), 4)
        assert len(done) == 4
        # The prompt but its last token once; that and one generated token for each sample.
        assert decoder.computed == len(prompt) - 1 + 4 * 2
        assert decoder.slots == {}

    def test_they_differ_and_repeat_by_seed(
        self, tokenizer: Tokenizer, tiny_checkpoint: Path
    ) -> None:
        decoder = NumpyDecoder(Checkpoint.open(tiny_checkpoint))
        options = SamplingOptions(max_tokens=20, temperature=2.0, seed=11)
        first = sample_texts(decoder, tokenizer, PROMPT, options, 3)
        again = sample_texts(decoder, tokenizer, PROMPT, options, 3)
        assert first == again
        assert len({done.tokens for done in first}) == 3
        with new_slot(decoder) as slot:
            alone = complete_text(decoder, slot, tokenizer, PROMPT, options)
        assert [token.id for token in alone.tokens] == [token.id for token in first[0].tokens]

    def test_a_prompt_of_one_token(self, tokenizer: Tokenizer, tiny_checkpoint: Path) -> None:
        decoder = NumpyDecoder(Checkpoint.open(tiny_checkpoint))
        (done,) = sample_texts(decoder, tokenizer, [30], SamplingOptions(max_tokens=3), 1)
        with new_slot(decoder) as slot:
            alone = complete_text(decoder, slot, tokenizer, [30], SamplingOptions(max_tokens=3))
        assert done == alone

    def test_none(self, tokenizer: Tokenizer) -> None:
        with pytest.raises(RequestError, match="samples 0"):
            sample_texts(Scripted([]), tokenizer, PROMPT, SamplingOptions(), 0)

    def test_slots_are_released_on_errors(self, tokenizer: Tokenizer) -> None:
        decoder = Scripted([])
        with pytest.raises(RequestError):
            sample_texts(decoder, tokenizer, [1000, 1], SamplingOptions(), 2)
        assert decoder.slots == {}


class TestRoom:
    config = Scripted([], n_positions=64).config

    @given(length=st.integers(0, 100), max_tokens=st.integers(1, 63))
    def test_prompt_and_answer_fit_the_context(self, length: int, max_tokens: int) -> None:
        ids = [40 + position for position in range(length)]
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            kept = fit_prompt(ids, self.config, max_tokens)
        cut = max(0, length + max_tokens - 64)
        assert kept == (ids[cut:] or [self.config.bos_token_id])
        if cut:
            told = str(caught[0].message)
            assert f"first {cut} of {length} tokens were cut off" in told
        else:
            assert not caught

    def test_an_answer_as_long_as_the_context(self) -> None:
        with pytest.raises(RequestError, match=r"max_tokens 64 leaves no room .* context of 64"):
            fit_prompt([1], self.config, 64)

    def test_ids_that_do_not_fit_are_refused_before_anything_is_computed(self) -> None:
        decoder = Scripted(range(40, 50), n_positions=64)
        slot = decoder.allocate()
        options = SamplingOptions(max_tokens=4)
        with pytest.raises(RequestError, match=r"61 tokens: with max_tokens 4.* room for 60"):
            next(generate_ids(decoder, slot, [40] * 61, options))
        assert decoder.computed == 0
        assert len(list(generate_ids(decoder, slot, [40] * 60, options))) == 4
