"""What only the native decoder has: precisions, the same bits in any batch, the packed cache."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GPTBigCodeForCausalLM

from tinystarcoder.engine import native_decoder, packed_weights
from tinystarcoder.engine.decoder import Logits
from tinystarcoder.engine.native_decoder import PRECISIONS, NativeDecoder, instruction_sets
from tinystarcoder.engine.numpy_decoder import NumpyDecoder
from tinystarcoder.engine.packed_weights import Precision
from tinystarcoder.errors import CheckpointError, RequestError
from tinystarcoder.model import checkpoint
from tinystarcoder.model.checkpoint import Checkpoint
from tinystarcoder.model.config import ModelConfig
from tinystarcoder.pretrained import load, locate, new_decoder
from tinystarcoder.tokenizer import Tokenizer

if not native_decoder.is_built():
    pytest.skip("the native engine is not built: scripts/build-native", allow_module_level=True)

from tinystarcoder.engine import _native

Tensors = Callable[..., dict[str, np.ndarray]]

# Past one page of the cache (256 tokens), and past one pass through the layers.
CONFIG = ModelConfig(vocab_size=300, n_positions=560, n_embd=128, n_layer=2, n_head=2, n_inner=192)
IDS = np.random.default_rng(5).integers(0, CONFIG.vocab_size, CONFIG.n_positions).tolist()
OTHER = np.random.default_rng(6).integers(0, CONFIG.vocab_size, 80).tolist()


@pytest.fixture(scope="module", params=[True, False], ids=["multi-query", "multi-head"])
def folder(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    random_tensors: Tensors,
) -> Path:
    path = tmp_path_factory.mktemp("native")
    config = replace(CONFIG, multi_query=request.param)
    tensors = random_tensors(config)
    # Attention as in a trained model: neither flat nor a single token's.
    checkpoint.write(path, config, {name: tensor / 4 for name, tensor in tensors.items()})
    return path


@pytest.fixture(scope="module", params=PRECISIONS)
def precision(request: pytest.FixtureRequest) -> Precision:
    chosen: Precision = request.param
    return chosen


# The fastest and the plainest each time; those between them, when there is more of it.
ISAS = [
    isa if isa in (instruction_sets()[0], "portable") else pytest.param(isa, marks=pytest.mark.full)
    for isa in instruction_sets()
]


@pytest.fixture(scope="module", params=ISAS)
def isa(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def decoders(folder: Path, precision: Precision, isa: str) -> list[NativeDecoder]:
    """The same model on one, two and three threads."""
    opened = Checkpoint.open(folder)
    return [NativeDecoder(opened, precision, threads, isa) for threads in (1, 2, 3)]


@pytest.fixture(scope="module")
def expected(decoders: list[NativeDecoder]) -> Logits:
    """Logits of IDS, ``[T, V]``, token by token on one thread."""
    decoder = decoders[0]
    slot = decoder.allocate()
    logits = np.stack([decoder.extend(slot, [token_id]) for token_id in IDS])
    assert np.isfinite(logits).all()  # Two NaNs would pass for equal.
    return logits


class TestSameBits:
    """A token's logits are those of its own sequence, whatever is computed beside it."""

    @settings(max_examples=4)
    @given(data=st.data())
    def test_in_any_pieces_threads_and_company(
        self, decoders: list[NativeDecoder], expected: Logits, data: st.DataObject
    ) -> None:
        decoder = data.draw(st.sampled_from(decoders))
        cuts = data.draw(st.sets(st.integers(1, len(IDS) - 1), max_size=4))
        slot, company = decoder.allocate(), decoder.allocate()
        at = 0
        for end in [*sorted(cuts), len(IDS)]:
            requests: list[tuple[int, Sequence[int]]] = [(slot, IDS[at:end])]
            beside = data.draw(st.integers(0, len(OTHER)))
            if beside:
                decoder.truncate(company, 0)
                requests.insert(data.draw(st.integers(0, 1)), (company, OTHER[:beside]))
            own = requests.index((slot, IDS[at:end]))
            every = data.draw(st.booleans())
            found = decoder.extend_batch(requests, all_logits=every)[own]
            np.testing.assert_array_equal(found, expected[at:end] if every else expected[end - 1])
            at = end
        decoder.release(slot)
        decoder.release(company)

    def test_eight_sequences_at_once(self, decoders: list[NativeDecoder], expected: Logits) -> None:
        decoder = decoders[1]
        slots = [decoder.allocate() for _ in range(8)]
        starts = [1, 30, 31, 32, 33, 255, 256, 257]
        for slot, start in zip(slots, starts, strict=True):
            decoder.extend(slot, IDS[:start])
        for step in range(3):
            found = decoder.extend_batch(
                [(s, [IDS[start + step]]) for s, start in zip(slots, starts, strict=True)]
            )
            for row, start in zip(found, starts, strict=True):
                np.testing.assert_array_equal(row, expected[start + step])
        for slot in slots:
            decoder.release(slot)

    def test_copies_share_pages_until_they_part(
        self, decoders: list[NativeDecoder], expected: Logits
    ) -> None:
        decoder = decoders[1]
        source, target = decoder.allocate(), decoder.allocate()
        decoder.extend(source, IDS[:300])
        before = decoder.cache_bytes
        decoder.copy(source, target)
        assert decoder.cache_bytes == before
        decoder.extend(source, OTHER[:20])
        assert before < decoder.cache_bytes < 2 * before
        np.testing.assert_array_equal(decoder.extend(target, IDS[300:320]), expected[319])
        decoder.release(source)
        decoder.release(target)
        assert decoder.cache_bytes == 0


@pytest.mark.parametrize("isa", instruction_sets())
def test_integer_sums_do_not_depend_on_the_instruction_set(folder: Path, isa: str) -> None:
    """Norms and attention may differ in the last place, which rounding mostly hides."""
    opened = Checkpoint.open(folder)
    first = NativeDecoder(opened, "int8", 1, instruction_sets()[0])
    other = NativeDecoder(opened, "int8", 1, isa)
    a = first.extend(first.allocate(), IDS, all_logits=True)
    b = other.extend(other.allocate(), IDS, all_logits=True)
    assert np.abs(a - b).mean() < 0.02 * np.abs(a).mean()


# Largest and mean difference of nano's logits from float32's on Python code, in standard
# deviations of these: half as much again as was measured, since what is read, this package's
# own files, changes.
NANO_ERRORS: dict[Precision, tuple[float, float]] = {
    "fp32": (5e-4, 5e-5),  # numpy and transformers are 1.6e-4 off float64's logits themselves.
    "bf16": (0.2, 0.012),
    "int8": (0.8, 0.065),
    "int4": (2.5, 0.24),
}


@pytest.fixture(scope="module")
def nano_reference() -> tuple[list[int], Logits]:
    """Ids of Python code, and numpy's logits of them."""
    folder = locate("nano")
    text = Path(native_decoder.__file__).read_text(encoding="utf-8")
    ids = Tokenizer.from_folder(folder).encode(text)[:256]
    reference = NumpyDecoder(Checkpoint.open(folder))
    return ids, reference.extend(reference.allocate(), ids, all_logits=True)


@pytest.mark.parametrize("isa", instruction_sets())
@pytest.mark.parametrize("precision", PRECISIONS)
def test_nano_in_each_precision(
    nano_reference: tuple[list[int], Logits], precision: Precision, isa: str
) -> None:
    ids, expected = nano_reference
    decoder = NativeDecoder(Checkpoint.open(locate("nano")), precision, isa=isa)
    difference = np.abs(decoder.extend(decoder.allocate(), ids, all_logits=True) - expected)
    largest, mean = NANO_ERRORS[precision]
    assert difference.max() < largest * expected.std()
    assert difference.mean() < mean * expected.std()


@pytest.mark.full
def test_nano_writes_what_transformers_writes() -> None:
    """Greedy, 256 tokens after each of 20 prompts, and logits within 5e-3 along the way.

    Against float64, transformers' own float32 logits of nano are 1.4e-3 off. So where two
    tokens are nearer than twice the tolerance, either may be the likeliest.
    """
    folder, tolerance, ties = locate("nano"), 5e-3, 0
    decoder = NativeDecoder(Checkpoint.open(folder), "fp32")
    tokenizer = Tokenizer.from_folder(folder)
    reference = GPTBigCodeForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    sources = sorted(Path(native_decoder.__file__).parents[1].rglob("*.py"), key=os.path.getsize)
    for source in sources[-20:]:
        prompt = tokenizer.encode(source.read_text(encoding="utf-8")[:400])
        slot = decoder.allocate()
        with torch.no_grad():
            wanted = reference.generate(
                torch.tensor([prompt]), max_new_tokens=256, do_sample=False, eos_token_id=None
            )[0]
            logits = reference(wanted[None]).logits[0].numpy()
        for place in range(len(prompt), len(wanted)):
            found = decoder.extend(slot, wanted[decoder.length(slot) : place].tolist())
            np.testing.assert_allclose(found, logits[place - 1], rtol=0, atol=tolerance)
            likeliest = int(found.argmax())
            if likeliest != wanted[place]:
                assert found[likeliest] - found[wanted[place]] < 2 * tolerance, source.name
                ties += 1
        decoder.release(slot)
    assert ties <= 3


class TestCache:
    """Packed once, read from then on, and never believed."""

    @pytest.fixture
    def model(self, tmp_path: Path, tiny_config: ModelConfig, random_tensors: Tensors) -> Path:
        checkpoint.write(tmp_path / "model", tiny_config, random_tensors(tiny_config))
        return tmp_path / "model"

    @pytest.fixture
    def cache(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setenv("TINYSTARCODER_CACHE", str(tmp_path / "cache"))
        return tmp_path / "cache" / "packed"

    @staticmethod
    def logits(model: Path) -> Logits:
        decoder = NativeDecoder(Checkpoint.open(model))
        return decoder.extend(decoder.allocate(), [1, 2, 3])

    def test_packs_once(self, model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        expected = self.logits(model)
        assert len(list(cache.iterdir())) == 1
        monkeypatch.setattr(packed_weights, "_pack", None)
        np.testing.assert_array_equal(self.logits(model), expected)

    def test_maps_where_memory_is_short(
        self, model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        expected = self.logits(model)
        monkeypatch.setattr(packed_weights, "_large_pages_pay", lambda _: False)
        np.testing.assert_array_equal(self.logits(model), expected)

    @pytest.mark.parametrize("damage", ["header", "weights", "shorter", "empty"])
    def test_a_damaged_file_is_packed_again(self, model: Path, cache: Path, damage: str) -> None:
        expected = self.logits(model)
        (path,) = cache.iterdir()
        good = path.read_bytes()
        bad = bytearray(good)
        bad[{"header": 30, "weights": 9000}.get(damage, 0)] ^= 1
        path.write_bytes({"shorter": good[:-64], "empty": b""}.get(damage, bytes(bad)))
        np.testing.assert_array_equal(self.logits(model), expected)
        assert path.read_bytes() == good

    def test_other_weights_are_another_file(
        self, model: Path, cache: Path, tiny_config: ModelConfig, random_tensors: Tensors
    ) -> None:
        before = self.logits(model)
        checkpoint.write(model, tiny_config, random_tensors(tiny_config, seed=1))
        assert not np.array_equal(self.logits(model), before)
        assert len(list(cache.iterdir())) == 2

    def test_a_folder_that_cannot_be_written(
        self, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        expected = self.logits(model)
        (tmp_path / "file").touch()
        monkeypatch.setenv("TINYSTARCODER_CACHE", str(tmp_path / "file"))
        with pytest.warns(UserWarning, match="packed weights are not kept"):
            found = self.logits(model)
        np.testing.assert_array_equal(found, expected)

    def test_no_home_to_keep_it_in(self, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A user that the system does not know, as in some containers."""
        expected = self.logits(model)
        monkeypatch.setenv("TINYSTARCODER_CACHE", "~nobody-of-that-name")
        with pytest.warns(UserWarning, match="packed weights are not kept"):
            found = self.logits(model)
        np.testing.assert_array_equal(found, expected)

    def test_two_processes_at_once(self, model: Path, cache: Path) -> None:
        program = (
            "import sys\n"
            "from tinystarcoder.engine.native_decoder import NativeDecoder\n"
            "from tinystarcoder.model.checkpoint import Checkpoint\n"
            "d = NativeDecoder(Checkpoint.open(sys.argv[1]))\n"
            "sys.stdout.buffer.write(d.extend(d.allocate(), [1, 2, 3]).tobytes())\n"
        )
        running = [
            subprocess.Popen([sys.executable, "-c", program, model], stdout=subprocess.PIPE)
            for _ in range(2)
        ]
        outputs = [process.communicate()[0] for process in running]
        assert outputs == [self.logits(model).tobytes()] * 2
        assert len(list(cache.iterdir())) == 1

    def test_sharded_checkpoints(
        self, model: Path, tmp_path: Path, cache: Path, tiny_config: ModelConfig
    ) -> None:
        opened = Checkpoint.open(model)
        tensors = {name: opened.tensor(name) for name in opened.names}
        checkpoint.write(tmp_path / "sharded", tiny_config, tensors, max_shard_bytes=20_000)
        assert len(Checkpoint.open(tmp_path / "sharded").files) > 2
        np.testing.assert_array_equal(self.logits(tmp_path / "sharded"), self.logits(model))

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_weights_that_are_not_finite(
        self,
        tmp_path: Path,
        cache: Path,
        tiny_config: ModelConfig,
        random_tensors: Tensors,
        value: float,
    ) -> None:
        tensors = random_tensors(tiny_config)
        tensors["transformer.h.1.mlp.c_fc.weight"][3, 4] = value
        checkpoint.write(tmp_path, tiny_config, tensors)
        with pytest.raises(CheckpointError, match=r"h\.1\.mlp\.c_fc\.weight .* not finite"):
            NativeDecoder(Checkpoint.open(tmp_path))
        assert not any(cache.glob("*.bin"))


class TestOptions:
    def test_precision(self, tiny_checkpoint: Path) -> None:
        with pytest.raises(RequestError, match="precision 'int3': must be one of fp32"):
            load(tiny_checkpoint, precision="int3")  # type: ignore[arg-type]

    @pytest.mark.parametrize("threads", [0, -1, 1025])
    def test_threads(self, tiny_checkpoint: Path, threads: int) -> None:
        with pytest.raises(RequestError, match=f"threads {threads}: must be"):
            load(tiny_checkpoint, threads=threads)

    def test_threads_by_environment(
        self, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TINYSTARCODER_THREADS", "3")
        assert NativeDecoder(Checkpoint.open(tiny_checkpoint)).threads == 3
        monkeypatch.setenv("TINYSTARCODER_THREADS", "many")
        with pytest.raises(RequestError, match="TINYSTARCODER_THREADS many"):
            load(tiny_checkpoint)

    def test_instruction_set_by_environment(
        self, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TINYSTARCODER_ISA", "portable")
        assert NativeDecoder(Checkpoint.open(tiny_checkpoint)).instruction_set == "portable"
        monkeypatch.setenv("TINYSTARCODER_ISA", "sse9")
        with pytest.raises(RequestError, match=r"'sse9' \(TINYSTARCODER_ISA\): this machine runs"):
            load(tiny_checkpoint)

    def test_without_the_engine(
        self, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(native_decoder, "_native", None)
        opened = Checkpoint.open(tiny_checkpoint)
        with pytest.warns(UserWarning, match=r"not built here.*install a C\+\+ compiler"):
            assert isinstance(new_decoder(opened), NumpyDecoder)
        with pytest.raises(RequestError, match=r"precision int4: .*install a C\+\+ compiler"):
            new_decoder(opened, "int4")


class TestSafety:
    """A wrong array is an exception, never a crash."""

    @pytest.fixture
    def plan(self, tiny_config: ModelConfig) -> _native.Plan:
        return packed_weights.plan(tiny_config, "int8")

    @pytest.fixture
    def weights(self, plan: _native.Plan, tiny_checkpoint: Path) -> np.ndarray:
        packed = packed_weights.packed(Checkpoint.open(tiny_checkpoint), "int8", plan)
        aligned = packed_weights._memory(plan.bytes)
        aligned[:] = packed
        return aligned

    def test_buffers(self, plan: _native.Plan, weights: np.ndarray) -> None:
        for wrong in (weights[:-1], weights[:0], np.concatenate([weights, weights])):
            with pytest.raises(ValueError, match="bytes; expected"):
                _native.Engine(plan, wrong, 1)
        shifted = packed_weights._memory(plan.bytes + 64)[1 : plan.bytes + 1]
        with pytest.raises(ValueError, match="aligned"):
            _native.Engine(plan, shifted, 1)
        with pytest.raises(TypeError):
            _native.Engine(plan, weights.view(np.int8), 1)

    @pytest.mark.parametrize("value", [np.nan, np.inf, -1.0])
    def test_scales(self, plan: _native.Plan, weights: np.ndarray, value: float) -> None:
        # The buffer ends with the output layer's scales and biases, 13 blocks of 32.
        weights.view(np.float32)[-(2 * 13 * 32)] = value
        with pytest.raises(ValueError, match="scale is damaged"):
            _native.Engine(plan, weights, 1)

    def test_calls(self, plan: _native.Plan, weights: np.ndarray) -> None:
        engine = _native.Engine(plan, weights, 2)
        slot, other = engine.allocate(), engine.allocate()
        vocab = 400
        one = np.empty((1, vocab), np.float32)

        def call(slots: list[int], counts: list[int], ids: list[int], logits: np.ndarray) -> None:
            engine.forward(slots, counts, np.array(ids, np.int32), False, logits)

        for slots, counts, ids in (
            ([slot], [2], [1]),
            ([slot], [1], [1, 2]),
            ([slot], [0], []),
            ([slot], [-1], []),
            ([slot], [2**31 - 1], [1]),
            ([slot], [129], [1] * 129),
            ([slot], [1], [vocab]),
            ([slot], [1], [-1]),
            ([slot, slot], [1, 1], [1, 2]),
            ([slot, other], [1], [1, 2]),
        ):
            with pytest.raises(ValueError):
                call(slots, counts, ids, np.empty((len(slots), vocab), np.float32))
        for wrong in (np.empty((2, vocab), np.float32), np.empty((1, vocab - 1), np.float32)):
            with pytest.raises(ValueError, match="logits of a wrong shape"):
                call([slot], [1], [1], wrong)
        for bad in (np.empty((1, vocab)), one[:, ::2], np.empty(vocab, np.float32)):
            with pytest.raises(TypeError):
                call([slot], [1], [1], bad)
        with pytest.raises(IndexError):
            call([77], [1], [1], one)
        with pytest.raises(IndexError):
            engine.copy(slot, 77)
        with pytest.raises(ValueError):
            engine.truncate(slot, 1)
        assert engine.length(slot) == 0
        call([slot], [1], [1], one)
        assert np.isfinite(one).all()

    @pytest.mark.parametrize(
        "change",
        [{"vocab": 0}, {"heads": 3}, {"layers": -1}, {"width": 2**31 - 1}, {"epsilon": np.nan}],
        ids=str,
    )
    def test_plans(self, tiny_config: ModelConfig, change: dict[str, int]) -> None:
        numbers = {
            "vocab": 400,
            "positions": 128,
            "width": 32,
            "layers": 2,
            "heads": 2,
            "inner": 64,
            "multi_query": True,
            "tanh_gelu": True,
            "epsilon": 1e-5,
            "precision": "int8",
        }
        with pytest.raises(ValueError, match="impossible size"):
            _native.Plan(**{**numbers, **change})


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_computes_too(tiny_checkpoint: Path) -> None:
    program = (
        "import os, sys\n"
        "from tinystarcoder.engine.native_decoder import NativeDecoder\n"
        "from tinystarcoder.model.checkpoint import Checkpoint\n"
        "decoders = [NativeDecoder(Checkpoint.open(sys.argv[1]), threads=3) for _ in range(2)]\n"
        "def compute():\n"
        "    return [d.extend(d.allocate(), [1, 2, 3] * 20).tobytes() for d in decoders]\n"
        "before = compute()\n"
        "child = os.fork()\n"
        "same = compute() == before == [before[0]] * 2\n"
        "if child == 0:\n"
        "    os._exit(0 if same else 1)\n"
        "assert same and os.waitpid(child, 0)[1] == 0\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", program, tiny_checkpoint], check=True)
