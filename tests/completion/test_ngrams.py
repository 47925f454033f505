"""What followed the same characters before: its tokens, what they are worth, and who asks."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinystarcoder.completion.ngrams import LENGTHS, MODEL, NgramCache
from tinystarcoder.completion.request import CompletionRequest, Snippet
from tinystarcoder.completion.service import CompletionService
from tinystarcoder.generation.sampling import SamplingOptions
from tinystarcoder.pretrained import load
from tinystarcoder.tokenizer import Tokenizer

CODE = "def f(self):\n    self.configuration = self.read()\n    return self.configuration\n"


def votes(tokenizer: Tokenizer, request: CompletionRequest) -> dict[str, float]:
    found = NgramCache(tokenizer, request).votes()
    return {tokenizer.decode([id_]): value for id_, value in found.items()}


@pytest.mark.parametrize(
    ("prefix", "follower"),
    [
        ("\n    x = self.", "configuration = self.read()\n"),
        # A cursor inside a word: the rest of the word, as it is spelled from there.
        ("\n    x = self.conf", "iguration = self.read()\n"),
    ],
)
def test_what_followed(tokenizer: Tokenizer, prefix: str, follower: str) -> None:
    first = tokenizer.decode(tokenizer.encode(follower)[:1])
    assert first in votes(tokenizer, CompletionRequest(CODE + prefix))
    assert first in votes(tokenizer, CompletionRequest(prefix, CODE))
    beside = CompletionRequest(prefix, snippets=(Snippet("b.py", CODE),))
    assert first in votes(tokenizer, beside)


def test_long_contexts_count_for_more(tokenizer: Tokenizer) -> None:
    prefix, space = "\nalpha_alpha_beta = ", "\n" * 30
    suffix = f"{prefix}1{space}\ngamma_beta = 2{space}"
    found = votes(tokenizer, CompletionRequest(prefix, suffix))
    assert found["1"] > found["2"] > 0
    # Each context has one weight, which all that followed it share.
    assert sum(found.values()) == pytest.approx(sum(size for size in LENGTHS if size <= 16) / MODEL)


def test_nothing_stood_before(tokenizer: Tokenizer) -> None:
    logits = np.zeros(tokenizer.vocab_size, np.float32)
    cache = NgramCache(tokenizer, CompletionRequest("import os\n", "print(1)\n"))
    assert cache.mix(logits, [1, 2]) is logits


def test_the_model_is_the_prior(tokenizer: Tokenizer) -> None:
    """Each id has what the model gave it and what its places are worth, all divided by the sum."""
    logits = np.random.default_rng(0).normal(0, 3, tokenizer.vocab_size).astype(np.float32)
    cache = NgramCache(tokenizer, CompletionRequest(CODE + "\n    x = self.", CODE))
    worth = np.zeros(len(logits))
    for id_, value in cache.votes().items():
        worth[id_] = value
    assert worth.any()
    expected = softmax(logits) + worth
    mixed = softmax(cache.mix(logits, [1, 2, 3]))
    np.testing.assert_allclose(mixed, expected / expected.sum(), rtol=1e-4)


def test_what_is_written_is_context(tokenizer: Tokenizer) -> None:
    """Token by token, characters of several tokens too, as a fresh cache behind that text."""
    text, logits = "    return self.é", np.zeros(tokenizer.vocab_size, np.float32)
    request = CompletionRequest("\n", CODE + text + "configuration" * 9)
    cache, ids = NgramCache(tokenizer, request), [7]
    cache.mix(logits, ids)
    for id_ in tokenizer.encode(text):
        ids.append(id_)
        cache.mix(logits, ids)
    assert (
        cache.votes()
        == NgramCache(tokenizer, CompletionRequest("\n" + text, request.suffix)).votes()
    )


@given(prefix=st.text("ab\n ", max_size=80), suffix=st.text("ab\n ", max_size=80))
def test_any_text(tokenizer: Tokenizer, prefix: str, suffix: str) -> None:
    found = NgramCache(tokenizer, CompletionRequest(prefix, suffix)).votes()
    assert sum(found.values()) <= sum(LENGTHS) / MODEL + 1e-9
    assert all(value > 0 for value in found.values())


def test_only_suggestions_are_mixed(tiny_checkpoint: Path) -> None:
    """And guessing what comes next changes nothing of what is written."""
    # Short enough for the whole of it to be the prompt.
    options = SamplingOptions(max_tokens=16)
    request = CompletionRequest("ab = 1\n" * 7 + "ab", "\n", mode="line", sampling=options)
    with CompletionService(load(tiny_checkpoint)) as service:
        ids = service.prompt_ids(request)
        plain = service.run(ids, options).whole()
        mixed = service.write(request)
    with CompletionService(load(tiny_checkpoint), ngrams=False) as service:
        assert service.run(ids, options).whole().scores == plain.scores
        assert service.write(request).scores != mixed.scores
    model = load(tiny_checkpoint)
    model.new_drafter = None
    with CompletionService(model) as service:
        alone = service.write(request)
    assert (alone.text, alone.scores) == (mixed.text, mixed.scores)


def softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits.astype(np.float64) - logits.max())
    return weights / weights.sum()
