"""Every decoder against transformers, and against itself in other pieces: one class for all."""

import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GPTBigCodeForCausalLM

from tinystarcoder.engine import numpy_decoder
from tinystarcoder.engine.decoder import Decoder
from tinystarcoder.engine.native_decoder import NativeDecoder, instruction_sets
from tinystarcoder.engine.numpy_decoder import NumpyDecoder
from tinystarcoder.engine.torch_decoder import TorchDecoder
from tinystarcoder.errors import RequestError
from tinystarcoder.model import checkpoint
from tinystarcoder.model.checkpoint import Checkpoint
from tinystarcoder.model.config import ModelConfig

DECODERS: dict[str, Callable[[Checkpoint], Decoder]] = {
    "numpy": NumpyDecoder,
    "torch": TorchDecoder,
    **{
        f"native, {isa}": partial(NativeDecoder, precision="fp32", threads=2, isa=isa)
        for isa in instruction_sets()
    },
}

# Largest difference of a logit from transformers', both in float32.
TOLERANCE = 1e-4

VARIANTS = {
    f"{'multi-query' if multi_query else 'multi-head'}, {activation}": {
        "multi_query": multi_query,
        "activation_function": activation,
    }
    for multi_query in (True, False)
    for activation in ("gelu_pytorch_tanh", "gelu")
}

BASE = ModelConfig(vocab_size=300, n_positions=96, n_embd=48, n_layer=3, n_head=4, n_inner=96)
IDS = np.random.default_rng(7).integers(0, BASE.vocab_size, BASE.n_positions).tolist()


@pytest.fixture(scope="module", params=VARIANTS)
def folder(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    random_tensors: Callable[..., dict[str, np.ndarray]],
) -> Path:
    config = replace(BASE, **VARIANTS[request.param])
    path = tmp_path_factory.mktemp("variant")
    checkpoint.write(path, config, random_tensors(config))
    return path


@pytest.fixture(scope="module")
def reference(folder: Path) -> GPTBigCodeForCausalLM:
    return GPTBigCodeForCausalLM.from_pretrained(folder).eval()


@pytest.fixture(scope="module")
def expected(reference: GPTBigCodeForCausalLM) -> np.ndarray:
    """transformers' logits of all positions, ``[T, V]``."""
    return logits_of(reference, IDS)


@pytest.fixture(scope="module", params=DECODERS)
def make(request: pytest.FixtureRequest) -> Callable[[Checkpoint], Decoder]:
    return DECODERS[request.param]


@pytest.fixture(scope="module")
def decoder(make: Callable[[Checkpoint], Decoder], folder: Path) -> Decoder:
    return make(Checkpoint.open(folder))


def logits_of(model: GPTBigCodeForCausalLM, ids: list[int]) -> np.ndarray:
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].numpy()


def assert_close(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)


class TestDecoder:
    """What :mod:`tinystarcoder.engine.decoder` promises."""

    def test_whole_sequence(self, decoder: Decoder, expected: np.ndarray) -> None:
        slot = decoder.allocate()
        assert_close(decoder.extend(slot, IDS, all_logits=True), expected)
        assert decoder.length(slot) == len(IDS)

    def test_last_position(self, decoder: Decoder, expected: np.ndarray) -> None:
        assert_close(decoder.extend(decoder.allocate(), IDS), expected[-1])

    def test_token_by_token(self, decoder: Decoder, expected: np.ndarray) -> None:
        slot = decoder.allocate()
        for position, token_id in enumerate(IDS):
            assert_close(decoder.extend(slot, [token_id]), expected[position])

    @settings(max_examples=25)
    @given(cuts=st.sets(st.integers(1, len(IDS) - 1), max_size=6), every=st.booleans())
    def test_in_any_pieces(
        self, decoder: Decoder, expected: np.ndarray, cuts: set[int], every: bool
    ) -> None:
        slot = decoder.allocate()
        edges = [0, *sorted(cuts), len(IDS)]
        for start, end in pairwise(edges):
            found = decoder.extend(slot, IDS[start:end], all_logits=every)
            assert_close(found, expected[start:end] if every else expected[end - 1])
        decoder.release(slot)

    def test_greedy_text_is_the_same(
        self, decoder: Decoder, reference: GPTBigCodeForCausalLM
    ) -> None:
        prompt = torch.tensor([IDS[:5]])
        wanted = reference.generate(prompt, max_new_tokens=40, do_sample=False, eos_token_id=None)
        slot, ids = decoder.allocate(), IDS[:5]
        while len(ids) < 45:
            ids = [*ids, int(decoder.extend(slot, ids[decoder.length(slot) :]).argmax())]
        assert ids == wanted[0].tolist()

    @settings(max_examples=25)
    @given(length=st.integers(0, 40), again=st.integers(1, 40))
    def test_truncated_slots_go_on_as_if_new(
        self, decoder: Decoder, reference: GPTBigCodeForCausalLM, length: int, again: int
    ) -> None:
        slot = decoder.allocate()
        decoder.extend(slot, IDS[:40])
        decoder.truncate(slot, length)
        assert decoder.length(slot) == length
        other = IDS[:length] + IDS[-again:]
        found = decoder.extend(slot, IDS[-again:])
        assert_close(found, logits_of(reference, other)[-1])
        decoder.release(slot)

    def test_copies_part(self, decoder: Decoder, reference: GPTBigCodeForCausalLM) -> None:
        source, target = decoder.allocate(), decoder.allocate()
        decoder.extend(target, IDS[50:60])  # To be forgotten.
        decoder.extend(source, IDS[:20])
        decoder.copy(source, target)
        assert decoder.length(target) == 20
        # Other tokens take the place of some that were copied.
        decoder.truncate(source, 10)
        found = decoder.extend(source, IDS[70:80])
        assert_close(found, logits_of(reference, IDS[:10] + IDS[70:80])[-1])
        assert decoder.length(target) == 20
        found = decoder.extend(target, IDS[60:75])
        assert_close(found, logits_of(reference, IDS[:20] + IDS[60:75])[-1])

    def test_released_slots_disturb_no_other(self, decoder: Decoder, expected: np.ndarray) -> None:
        kept, gone = decoder.allocate(), decoder.allocate()
        decoder.extend(gone, IDS[:10])
        decoder.extend(kept, IDS[:10])
        decoder.release(gone)
        fresh = decoder.allocate()
        assert decoder.length(fresh) == 0
        decoder.extend(fresh, IDS[40:60])
        assert_close(decoder.extend(kept, IDS[10:20]), expected[19])

    @pytest.mark.parametrize(
        ("ids", "message"),
        [
            ([], "no tokens"),
            ([5, 300], "token id 300 is outside the vocabulary of 300 ids"),
            ([-1, 5], "token id -1 is outside"),
            (IDS[:87], "97 tokens do not fit this model's context of 96"),
        ],
        ids=["none", "too large", "negative", "too many"],
    )
    def test_bad_ids_change_nothing(
        self, decoder: Decoder, expected: np.ndarray, ids: list[int], message: str
    ) -> None:
        slot = decoder.allocate()
        decoder.extend(slot, IDS[:10])
        with pytest.raises(RequestError, match=message):
            decoder.extend(slot, ids)
        assert decoder.length(slot) == 10
        assert_close(decoder.extend(slot, IDS[10:12]), expected[11])

    @settings(max_examples=25)
    @given(
        held=st.lists(st.integers(0, 20), min_size=1, max_size=5),
        added=st.lists(st.integers(1, 20), min_size=5, max_size=5),
        every=st.booleans(),
    )
    def test_a_batch_is_each_alone(
        self, decoder: Decoder, held: list[int], added: list[int], every: bool
    ) -> None:
        """Bit for bit, whatever else is in the pass; the slots go on alike."""
        together, alone, texts = [], [], []
        for number, (past, new) in enumerate(zip(held, added, strict=False)):
            text = IDS[number : number + past + new]
            for slots in (together, alone):
                slots.append(decoder.allocate())
                if past:
                    decoder.extend(slots[-1], text[:past])
            texts.append(text[past:])
        found = decoder.extend_batch(list(zip(together, texts, strict=True)), all_logits=every)
        for slot, other, ids, logits in zip(together, alone, texts, found, strict=True):
            expected = decoder.extend(other, ids, all_logits=every)
            np.testing.assert_array_equal(logits, expected)
            assert decoder.length(slot) == decoder.length(other)
            np.testing.assert_array_equal(decoder.extend(slot, [5]), decoder.extend(other, [5]))
        for slot in together + alone:
            decoder.release(slot)

    def test_an_empty_batch(self, decoder: Decoder) -> None:
        assert decoder.extend_batch([]) == []

    def test_a_bad_batch_changes_nothing(self, decoder: Decoder) -> None:
        first, second = decoder.allocate(), decoder.allocate()
        with pytest.raises(RequestError, match="token id 300 is outside"):
            decoder.extend_batch([(first, [1, 2]), (second, [300])])
        with pytest.raises(RequestError, match="a slot is named twice"):
            decoder.extend_batch([(first, [1]), (second, [2]), (first, [3])])
        assert (decoder.length(first), decoder.length(second)) == (0, 0)

    @pytest.mark.parametrize("length", [-1, 6])
    def test_bad_truncation(self, decoder: Decoder, length: int) -> None:
        slot = decoder.allocate()
        decoder.extend(slot, IDS[:5])
        with pytest.raises(RequestError, match=f"5 tokens cannot be truncated to {length}"):
            decoder.truncate(slot, length)

    @pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
    def test_narrow_weights_are_widened(
        self, make: Callable[[Checkpoint], Decoder], folder: Path, tmp_path: Path, dtype: str
    ) -> None:
        opened = Checkpoint.open(folder)
        tensors = {name: opened.tensor(name) for name in opened.names}
        checkpoint.write(tmp_path, opened.config, tensors, dtype)
        model = GPTBigCodeForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
        narrow = make(Checkpoint.open(tmp_path))
        found = narrow.extend(narrow.allocate(), IDS, all_logits=True)
        assert_close(found, logits_of(model, IDS))


LONG = ModelConfig(vocab_size=256, n_positions=8192, n_embd=32, n_layer=2, n_head=4, n_inner=64)


@pytest.mark.parametrize("multi_query", [True, False], ids=["multi-query", "multi-head"])
@pytest.mark.parametrize("make", DECODERS.values(), ids=DECODERS)
def test_the_whole_context_of_8192(
    tmp_path: Path,
    random_tensors: Callable[..., dict[str, np.ndarray]],
    make: Callable[[Checkpoint], Decoder],
    multi_query: bool,
) -> None:
    """Parity at every 512th position; memory far below one [H, T, T] of scores."""
    config = replace(LONG, multi_query=multi_query)
    checkpoint.write(tmp_path, config, random_tensors(config))
    ids = np.random.default_rng(3).integers(0, 256, 8192).tolist()
    decoder = make(Checkpoint.open(tmp_path))
    slot = decoder.allocate()
    tracemalloc.start()
    decoder.extend(slot, ids[:-1])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * 4 * 8192**2 / 20
    last = decoder.extend(slot, ids[-1:])
    with pytest.raises(RequestError, match="8193 tokens"):
        decoder.extend(slot, [0])
    model = GPTBigCodeForCausalLM.from_pretrained(tmp_path, attn_implementation="sdpa").eval()
    expected = logits_of(model, ids)
    assert_close(last, expected[-1])
    for position in range(7679, 0, -512):
        decoder.truncate(slot, position)
        assert_close(decoder.extend(slot, [ids[position]]), expected[position])


class TestNumpy:
    """What only the numpy decoder has."""

    @pytest.mark.parametrize(("chunk", "scores"), [(1, 1), (7, 100), (96, 1), (5, 10**9)])
    def test_chunks_and_blocks_change_nothing(
        self,
        folder: Path,
        expected: np.ndarray,
        monkeypatch: pytest.MonkeyPatch,
        chunk: int,
        scores: int,
    ) -> None:
        monkeypatch.setattr(numpy_decoder, "CHUNK", chunk)
        monkeypatch.setattr(numpy_decoder, "SCORES", scores)
        decoder = NumpyDecoder(Checkpoint.open(folder))
        assert_close(decoder.extend(decoder.allocate(), IDS, all_logits=True), expected)
        assert_close(decoder.extend(decoder.allocate(), IDS), expected[-1])

    def test_a_short_text_takes_little_memory(
        self, tmp_path: Path, random_tensors: Callable[..., dict[str, np.ndarray]]
    ) -> None:
        """The cache of one token, not of 8192 positions, which would be 4 MB."""
        checkpoint.write(tmp_path, LONG, random_tensors(LONG))
        decoder = NumpyDecoder(Checkpoint.open(tmp_path))
        tracemalloc.start()
        decoder.extend(decoder.allocate(), [1])
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 400_000

    def test_erf(self) -> None:
        x = np.linspace(-7, 7, 100_001)
        expected = torch.erf(torch.from_numpy(x)).numpy()
        assert np.abs(numpy_decoder.erf(x) - expected).max() < 1e-7
        assert numpy_decoder.erf(np.array([-np.inf, 0, np.inf])).round(7).tolist() == [-1, 0, 1]

    @pytest.mark.parametrize(("name", "approximate"), [("gelu", "none"), ("gelu_tanh", "tanh")])
    def test_gelu(self, name: str, approximate: str) -> None:
        x = np.linspace(-12, 12, 10_001, dtype=np.float32)
        expected = torch.nn.functional.gelu(torch.from_numpy(x), approximate=approximate).numpy()
        found = getattr(numpy_decoder, name)(x)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)
