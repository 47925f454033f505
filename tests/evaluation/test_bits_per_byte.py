"""The protocol, against transformers and against a decoder that watches how it is asked."""

import math
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from transformers import GPTBigCodeConfig, GPTBigCodeForCausalLM

from tinystarcoder.engine.numpy_decoder import NumpyDecoder
from tinystarcoder.errors import CorpusError, RequestError
from tinystarcoder.evaluation.bits_per_byte import (
    STRETCH,
    Score,
    Scorer,
    cross_entropy,
    stretches,
)
from tinystarcoder.evaluation.held_out import read_sources
from tinystarcoder.fim import draw_cuts, prompt
from tinystarcoder.model.checkpoint import Checkpoint
from tinystarcoder.model.config import ModelConfig
from tinystarcoder.tokenizer import Tokenizer

CODE = '''def area(width, height):
    """The area of a rectangle, naïve: ☃."""
    return width * height


class Stack:
    def __init__(self):
        self.items = [1, 22, 333]
'''


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train([CODE] * 4, 400)


@pytest.fixture(scope="module")
def reference(tokenizer: Tokenizer) -> Any:
    """A random model whose guesses are far from uniform, so that an error shows."""
    torch.manual_seed(0)
    config = GPTBigCodeConfig(
        vocab_size=tokenizer.vocab_size,
        n_positions=1024,
        n_embd=32,
        n_layer=2,
        n_head=4,
        initializer_range=0.5,
        bos_token_id=0,
        eos_token_id=0,
    )
    return GPTBigCodeForCausalLM(config).eval()


@pytest.fixture(scope="module")
def decoder(reference: Any, tmp_path_factory: pytest.TempPathFactory) -> NumpyDecoder:
    folder = tmp_path_factory.mktemp("model")
    reference.save_pretrained(folder)
    return NumpyDecoder(Checkpoint.open(folder))


def text_of(tokens: int, tokenizer: Tokenizer) -> str:
    """Varied code of at least that many tokens."""
    rng = random.Random(tokens)
    words = CODE.split(" ")
    text = ""
    while len(tokenizer.encode(text)) < tokens:
        text += " ".join(rng.choices(words, k=20))
    return text


@torch.no_grad()
def strided_nats(reference: Any, ids: list[int], window: int, stride: int) -> float:
    """Windows and masked labels, as transformers' own page on perplexity computes it."""
    total, scored_to = 0.0, 1
    for begin in range(0, len(ids), stride):
        end = min(begin + window, len(ids))
        inputs = torch.tensor([ids[begin:end]])
        labels = inputs.clone()
        labels[:, : scored_to - begin] = -100
        logits = reference(inputs).logits.double()
        total += float(F.cross_entropy(logits[0, :-1], labels[0, 1:], reduction="sum"))
        scored_to = end
        if end == len(ids):
            break
    return total


@pytest.mark.parametrize("tokens", [0, 1, 30, 1023, 1024, 1500, 2600])
def test_equals_transformers(
    tokens: int, tokenizer: Tokenizer, reference: Any, decoder: NumpyDecoder
) -> None:
    text = text_of(tokens, tokenizer)
    ids = tokenizer.encode(text)
    score = Scorer(decoder, tokenizer).text(text)
    assert (score.tokens, score.bytes) == (len(ids), len(text.encode()))
    if ids:
        expected = strided_nats(reference, [0, *ids], 1024, 512) / math.log(2) / score.bytes
        assert score.bits_per_byte == pytest.approx(expected, abs=1e-4)
    else:
        assert score.nats == 0 and math.isnan(score.bits_per_byte)


@torch.no_grad()
def test_middles_equal_transformers(
    tokenizer: Tokenizer, reference: Any, decoder: NumpyDecoder
) -> None:
    text = text_of(800, tokenizer)
    scores = Scorer(decoder, tokenizer).middles(text, random.Random("7"))
    tokens = tokenizer.fim
    assert tokens is not None

    rng, nats, size = random.Random("7"), [0.0, 0.0, 0.0], 0
    for stretch in stretches(text):
        start, end = draw_cuts(len(stretch), rng)
        prefix, middle, suffix = (
            tokenizer.encode(part) for part in (stretch[:start], stretch[start:end], stretch[end:])
        )
        size += len(stretch[start:end].encode())
        for place, context in enumerate(
            (prefix, prompt(prefix, suffix, tokens, "psm"), prompt(prefix, suffix, tokens, "spm"))
        ):
            ids = torch.tensor([[0, *context, *middle]])
            logits = reference(ids).logits[0, len(context) : -1].double()
            targets = torch.tensor(middle, dtype=torch.long)
            nats[place] += float(F.cross_entropy(logits, targets, reduction="sum"))
    for score, expected in zip(scores, nats, strict=True):
        assert (score.bytes, score.skipped) == (size, 0)
        assert score.bits_per_byte == pytest.approx(expected / math.log(2) / size, abs=1e-4)
    assert len({round(value, 6) for value in nats}) == 3


class Witness:
    """A decoder without weights: every guess is uniform, and every guess is written down."""

    def __init__(self, n_positions: int, vocab_size: int) -> None:
        self.config = ModelConfig(n_positions=n_positions, vocab_size=vocab_size)
        self.held: list[int] = []
        self.guesses: list[list[int]] = []

    def allocate(self) -> int:
        return 0

    def truncate(self, slot: int, length: int) -> None:
        del self.held[length:]

    def extend(self, slot: int, ids: Sequence[int], *, all_logits: bool = False) -> Any:
        start = len(self.held)
        self.held += ids
        assert len(self.held) <= self.config.n_positions
        if all_logits:
            self.guesses += [self.held[: i + 1] for i in range(start, len(self.held))]
        return np.zeros((len(ids), self.config.vocab_size), np.float32)


@given(tokens=st.integers(0, 200), stride=st.integers(1, 20), more=st.integers(0, 20))
@settings(deadline=None)
def test_every_token_once_and_never_short_of_context(tokens: int, stride: int, more: int) -> None:
    tokenizer = _Numbers()
    window = stride + max(more, 1)
    witness = Witness(window, 256)
    scorer = Scorer(witness, tokenizer, window=window, stride=stride)  # type: ignore[arg-type]
    score = scorer.text("".join(chr(1 + i) for i in range(tokens)))
    whole = [0, *range(1, tokens + 1)]
    assert score.tokens == tokens
    assert score.nats == pytest.approx(tokens * math.log(256))
    assert len(witness.guesses) == tokens
    for place, context in enumerate(witness.guesses, 1):
        assert context == whole[place - len(context) : place]
        assert len(context) >= min(place, window - stride)


class _Numbers:
    """A tokenizer whose ids are the characters' numbers, so that a place is its id."""

    eos_id = 0

    def encode(self, text: str) -> list[int]:
        return [ord(character) for character in text]


def test_cross_entropy_of_extreme_logits() -> None:
    logits = np.array([[1e4, 0.0], [-1e4, -1e4]], np.float32)
    assert cross_entropy(logits, [1, 0]) == pytest.approx(1e4 + math.log(2))


@given(st.text("ab\n", max_size=60), st.integers(1, 9))
def test_stretches_are_the_text(text: str, length: int) -> None:
    parts = list(stretches(text, length))
    assert "".join(parts) == text
    assert all(0 < len(part) <= length for part in parts)
    for part in parts[:-1]:
        assert part.endswith("\n") or (len(part) == length and "\n" not in part)


def test_a_stretch_that_does_not_fit_is_counted(tokenizer: Tokenizer) -> None:
    witness = Witness(64, tokenizer.vocab_size)
    scorer = Scorer(witness, tokenizer, window=64, stride=32)  # type: ignore[arg-type]
    stretch = "x = 1\n" * (STRETCH // 6)
    assert scorer.middles(2 * stretch, random.Random("0")) == (Score(skipped=2),) * 3


def test_a_short_context_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(RequestError, match="windows of 1024 tokens"):
        Scorer(Witness(512, 400), tokenizer)  # type: ignore[arg-type]


def test_scores_add_up() -> None:
    total = Score(3, 2, math.log(2)) + Score(5, 4, 3 * math.log(2))
    assert (total.bytes, total.tokens, total.bits_per_byte) == (8, 6, 0.5)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    root = tmp_path / "package"
    for name, data in {
        "b.py": CODE.encode(),
        "a/deep.py": b"x = 1\r\ny = 2\r\n",
        "a/_vendor/six.py": b"",
        "broken.py": b"\xff\xfe\0",
        "notes.txt": b"no Python",
    }.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    yield root


def test_a_folder_is_read_in_the_order_of_its_paths(folder: Path) -> None:
    (source,) = read_sources([folder])
    assert [name for name, _ in source.files] == ["a/_vendor/six.py", "a/deep.py", "b.py"]
    assert source.files[1][1] == "x = 1\ny = 2\n"
    assert source.unreadable == ("broken.py: NUL bytes",)


def test_a_single_file_is_a_source(folder: Path) -> None:
    (source,) = read_sources([folder / "b.py"])
    assert source.name == "b.py" and source.files == (("b.py", CODE),)


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("missing.py", "No such file"),
        ("missing.whl", "no such source"),
        ("broken.py", "NUL bytes"),
        ("notes.txt", "neither a wheel"),
        ("empty", "no readable Python file"),
        ("nothing.py", "no readable Python file in it, or empty ones alone"),
    ],
)
def test_bad_sources_are_named(folder: Path, name: str, cause: str) -> None:
    (folder / "empty").mkdir()
    (folder / "nothing.py").write_text("")
    with pytest.raises(CorpusError, match=cause) as caught:
        list(read_sources([folder / name]))
    assert name in str(caught.value)
