"""The doors: load by every kind of name, complete, infill, stream."""

import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

import tinystarcoder
from tinystarcoder import fim, pretrained
from tinystarcoder.engine.decoder import Logits
from tinystarcoder.engine.native_decoder import NativeDecoder
from tinystarcoder.engine.numpy_decoder import NumpyDecoder
from tinystarcoder.errors import (
    CheckpointError,
    ModelNotFoundError,
    RequestError,
    TokenizerError,
    UnsafeCheckpointError,
)
from tinystarcoder.generation.sampling import SamplingOptions
from tinystarcoder.model import checkpoint
from tinystarcoder.model.checkpoint import Checkpoint
from tinystarcoder.model.config import ModelConfig
from tinystarcoder.pretrained import Model, Options, fit_around, load, locate
from tinystarcoder.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def model(tiny_checkpoint: Path) -> Model:
    return load(tiny_checkpoint)


def test_an_empty_name_is_no_folder() -> None:
    with pytest.raises(ModelNotFoundError, match="the model's name is empty: give nano"):
        locate("")


class Listening(NumpyDecoder):
    """Notes the ids that it is asked to compute."""

    def __init__(self, opened: Checkpoint) -> None:
        super().__init__(opened)
        self.heard: list[int] = []

    def extend(self, slot: int, ids: Sequence[int], *, all_logits: bool = False) -> Logits:
        self.heard += ids
        return super().extend(slot, ids, all_logits=all_logits)


@pytest.fixture
def listening(tiny_checkpoint: Path, tokenizer: Tokenizer) -> Model:
    return Model(Listening(Checkpoint.open(tiny_checkpoint)), tokenizer)


def heard(model: Model) -> list[int]:
    assert isinstance(model.decoder, Listening)
    return model.decoder.heard


class TestNames:
    def test_a_folder(self, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        expected = load(tiny_checkpoint).complete("def ", max_tokens=8)
        assert load(str(tiny_checkpoint)).complete("def ", max_tokens=8) == expected
        monkeypatch.chdir(tiny_checkpoint.parent)
        assert locate("tiny") == locate("./tiny") == Path("tiny")
        monkeypatch.setenv("HOME", str(tiny_checkpoint.parent))
        monkeypatch.setenv("USERPROFILE", str(tiny_checkpoint.parent))
        assert locate("~/tiny") == tiny_checkpoint

    def test_the_bundled_model(
        self, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(pretrained.resources, "files", lambda _: tmp_path)
        with pytest.raises(ModelNotFoundError, match="holds no bundled model nano"):
            load()
        bundled = tmp_path / "weights" / "nano"
        shutil.copytree(tiny_checkpoint, bundled)
        # A folder of that name in sight changes nothing.
        monkeypatch.chdir(bundled.parent)
        assert locate() == locate("nano") == bundled
        assert locate("./nano") == Path("nano")
        assert load().config == Checkpoint.open(tiny_checkpoint).config

    @pytest.mark.parametrize(
        "name",
        ["nowhere", "./no/where", "/no/where", "a/b/c", "~/nowhere", "~nobody-of-that-name/x"],
    )
    def test_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        monkeypatch.chdir(tmp_path)
        with pytest.raises(ModelNotFoundError, match="no such folder, and neither a bundled"):
            load(name)
        with pytest.raises(ModelNotFoundError):
            load(Path("owner/name"))

    def test_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "model.bin").write_bytes(b"")
        with pytest.raises(UnsafeCheckpointError):
            load(tmp_path / "model.bin")
        (tmp_path / "notes.txt").write_bytes(b"")
        with pytest.raises(CheckpointError, match=r"notes\.txt: no such folder"):
            load(tmp_path / "notes.txt")

    def test_a_folder_without_a_tokenizer(self, tiny_checkpoint: Path, tmp_path: Path) -> None:
        folder = tmp_path / "model"
        shutil.copytree(tiny_checkpoint, folder)
        (folder / "tokenizer.json").unlink()
        with pytest.raises(TokenizerError, match="model: no tokenizer here"):
            load(folder)

    def test_a_tokenizer_of_another_model(
        self,
        tmp_path: Path,
        tokenizer: Tokenizer,
        tiny_config: ModelConfig,
        random_tensors: Callable[..., dict[str, np.ndarray]],
    ) -> None:
        config = ModelConfig(
            vocab_size=399, n_positions=16, n_embd=8, n_layer=1, n_head=1, n_inner=8
        )
        checkpoint.write(tmp_path, config, random_tensors(config))
        tokenizer.save(tmp_path)
        with pytest.raises(TokenizerError, match=r"has 400 ids, the model's vocab_size .* is 399"):
            load(tmp_path)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Path:
    """A cache as huggingface_hub lays it out, with ``someone/small`` in it."""
    cache = tmp_path_factory.mktemp("hub")
    repository = cache / "models--someone--small"
    snapshot = repository / "snapshots" / ("0123456789" * 4)
    for folder in (repository / "blobs", repository / "refs", snapshot):
        folder.mkdir(parents=True)
    (repository / "refs" / "main").write_text(snapshot.name)
    for path in tiny_checkpoint.iterdir():
        blob = repository / "blobs" / f"blob-of-{path.name}"
        shutil.copy(path, blob)
        (snapshot / path.name).symlink_to(os.path.relpath(blob, snapshot))
    return cache


class TestHub:
    """The hub's client, with the network switched off."""

    def ask(self, cache: Path, name: str) -> subprocess.CompletedProcess[str]:
        program = "import sys, tinystarcoder as t; print(t.load(sys.argv[1]).complete('def ').text)"
        return subprocess.run(
            [sys.executable, "-c", program, name],
            env={**os.environ, "HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "1"},
            capture_output=True,
            text=True,
            encoding="utf-8",
        )

    def test_a_model_in_the_cache(self, cache: Path, model: Model) -> None:
        done = self.ask(cache, "someone/small")
        assert done.stdout == model.complete("def ").text + "\n", done.stderr

    def test_a_model_that_is_not_there(self, cache: Path) -> None:
        done = self.ask(cache, "bigcode/tiny_starcoder_py")
        last = done.stderr.splitlines()[-1]
        assert "ModelNotFoundError: bigcode/tiny_starcoder_py: not a folder, and not to" in last


def test_nothing_heavy_is_imported(tiny_checkpoint: Path) -> None:
    """The runtime knows neither torch nor, for a folder, the hub's client."""
    program = (
        "import sys, tinystarcoder\n"
        "assert 'numpy' not in sys.modules\n"
        "tinystarcoder.load(sys.argv[1]).infill('def ', '()')\n"
        "print(sorted({'torch', 'transformers', 'huggingface_hub', 'typer'} & {*sys.modules}))\n"
    )
    command = [sys.executable, "-c", program, str(tiny_checkpoint)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


def test_public_names() -> None:
    assert tinystarcoder.load is load
    assert tinystarcoder.Model is Model
    assert set(tinystarcoder.__all__) <= set(dir(tinystarcoder))


def test_the_keywords_are_the_options() -> None:
    names = [field.name for field in fields(SamplingOptions)]
    assert list(Options.__annotations__) == names


class TestComplete:
    def test_stream_is_the_same_text(self, model: Model) -> None:
        done = model.complete("import os\n", max_tokens=40)
        pieces = list(model.stream("import os\n", max_tokens=40))
        assert "".join(pieces) == done.text
        assert len(pieces) > 5
        assert all(pieces)
        assert len(done.tokens) == len(done.logprobs) == 40
        assert max(done.logprobs) < 0

    def test_special_tokens_of_a_raw_prompt_are_parsed(self, listening: Model) -> None:
        listening.complete("<fim_prefix>a<fim_suffix>b<fim_middle>", max_tokens=1)
        encode = listening.tokenizer.encode
        assert heard(listening) == [1, *encode("a"), 3, *encode("b"), 2]

    def test_an_empty_prompt_begins_a_document(self, listening: Model) -> None:
        listening.complete("", max_tokens=1)
        assert heard(listening) == [0]

    def test_samples(self, model: Model) -> None:
        done = model.samples("x", 3, temperature=2.0, seed=5, max_tokens=10)
        assert len({completion.text for completion in done}) == 3
        assert done == model.samples("x", 3, temperature=2.0, seed=5, max_tokens=10)

    def test_a_long_prompt_is_cut_on_the_left(self, listening: Model) -> None:
        ids = listening.tokenizer.encode("x = 1\n" * 100)
        told = rf"first {len(ids) - 118} of {len(ids)} tokens were cut off: .* 128.* 10 are kept"
        with pytest.warns(UserWarning, match=told):
            listening.complete("x = 1\n" * 100, max_tokens=10)
        assert heard(listening)[:118] == ids[-118:]

    def test_an_abandoned_stream_frees_its_slot(self, model: Model) -> None:
        stream = model.stream("def ", max_tokens=40)
        next(stream)
        stream.close()  # type: ignore[attr-defined]
        if isinstance(model.decoder, NativeDecoder):
            assert model.decoder.cache_bytes == 0
        else:
            assert isinstance(model.decoder, NumpyDecoder)
            assert model.decoder._slots == {}

    def test_options_are_checked_when_asked_not_when_read(self, model: Model) -> None:
        with pytest.raises(RequestError, match="top_p 7"):
            model.stream("def ", top_p=7)
        with pytest.raises(TypeError, match="colour"):
            model.complete("def ", colour="red")  # type: ignore[call-arg]
        with pytest.raises(RequestError, match="max_tokens 128 leaves no room"):
            model.complete("def ", max_tokens=128)


class TestInfill:
    @pytest.mark.parametrize("order", ["psm", "spm"])
    def test_asks_as_training_wrote(self, listening: Model, order: fim.Order) -> None:
        encode, tokens = listening.tokenizer.encode, listening.tokenizer.fim
        assert tokens is not None
        prefix, suffix = "def area(w, h):\n    ", "\n\nprint(area(2, 3))\n"
        listening.infill(prefix, suffix, order=order, max_tokens=1)
        asked = fim.prompt(encode(prefix), encode(suffix), tokens, order)
        # In SPM order the prefix's last token is written again.
        assert heard(listening) == (asked if order == "psm" else asked[:-1])

    def test_line_breaks_are_the_texts_own(self, writing: Callable[..., Model]) -> None:
        """It is asked with LF, as training wrote, and answers with CRLF."""
        model = writing("a = 1\n    return a")
        texts = ("def area(w, h):\n    ", "\n\nprint(area(2, 3))\n")
        crlf = [text.replace("\n", "\r\n") for text in texts]
        assert model.infill_ids(*crlf, 8) == model.infill_ids(*texts, 8)
        assert model.infill(*texts).text == "a = 1\n    return a"
        assert model.infill(*crlf).text == "a = 1\r\n    return a"

    def test_texts_are_plain(self, listening: Model) -> None:
        listening.infill("<|endoftext|>", "<fim_middle>", max_tokens=1)
        specials = [i for i in heard(listening) if i in listening.tokenizer.special_ids]
        assert specials == [1, 3, 2]

    def test_one_side_may_be_empty(self, model: Model) -> None:
        assert model.infill("", "x = 1\n", max_tokens=3).tokens
        assert model.infill("x = ", "", max_tokens=3).tokens
        assert model.infill("", "", max_tokens=3).tokens

    def test_the_far_ends_are_cut(self, listening: Model) -> None:
        encode = listening.tokenizer.encode
        prefix, suffix = "x = 1\n" * 100, "y = 2\n" * 100
        # 128 positions, 8 for the answer, 3 sentinels: 117, a quarter to the suffix.
        with pytest.warns(UserWarning, match="cut to 88 and 29 tokens"):
            listening.infill(prefix, suffix, order="psm", max_tokens=8)
        assert heard(listening)[:120] == [1, *encode(prefix)[-88:], 3, *encode(suffix)[:29], 2]

    @given(before=st.integers(0, 60), after=st.integers(0, 60), room=st.integers(0, 80))
    def test_the_room_is_shared(self, before: int, after: int, room: int) -> None:
        left, right = list(range(before)), list(range(100, 100 + after))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            kept_left, kept_right = fit_around(left, right, room)
        assert bool(caught) == (before + after > room)
        assert len(kept_left) + len(kept_right) == min(room, before + after)
        assert kept_left == left[before - len(kept_left) :]
        assert kept_right == right[: len(kept_right)]
        # Neither side loses anything while it stays within its share.
        assert len(kept_right) >= min(after, room // 4)
        assert len(kept_left) >= min(before, room - room // 4)

    def test_no_room_at_all(self, model: Model) -> None:
        with pytest.raises(RequestError, match="leaves no room"):
            model.infill("", "", max_tokens=126)
        assert model.infill("a", "b", max_tokens=123).tokens

    def test_an_unknown_order(self, model: Model) -> None:
        with pytest.raises(RequestError, match="order 'mps': must be one of psm, spm"):
            model.infill("a", "b", order="mps")  # type: ignore[arg-type]

    def test_a_model_without_fim_tokens(self, model: Model, tokenizer: Tokenizer) -> None:
        text = tokenizer._raw.to_str().replace("<fim_", "<gap_")
        bare = Model(model.decoder, Tokenizer(tokenizers.Tokenizer.from_str(text)))
        with pytest.raises(RequestError, match="cannot infill: its vocabulary has no FIM tokens"):
            bare.infill("a", "b")
        assert bare.complete("a", max_tokens=2).tokens
