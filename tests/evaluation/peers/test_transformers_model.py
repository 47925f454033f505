"""transformers as a peer: on a model of ours it says what ours says."""

from pathlib import Path

import pytest

from tinystarcoder.errors import EvaluationError
from tinystarcoder.evaluation.bits_per_byte import Scorer
from tinystarcoder.evaluation.generators import FamilyModel
from tinystarcoder.evaluation.peers.transformers_model import TransformersModel
from tinystarcoder.evaluation.suite import Subject
from tinystarcoder.generation.generate import sample_texts
from tinystarcoder.generation.sampling import SamplingOptions
from tinystarcoder.pretrained import load

TEXT = "def area(width, height):\n    return width * height\n" * 4


@pytest.fixture(scope="module")
def peer(tiny_checkpoint: Path) -> TransformersModel:
    model = Subject(f"transformers:{tiny_checkpoint}").generator
    assert isinstance(model, TransformersModel)
    return model


def test_the_same_bits(peer: TransformersModel, tiny_checkpoint: Path) -> None:
    own = load(tiny_checkpoint, precision="fp32")
    scores = [
        Scorer(decoder, tokenizer, window=64, stride=32).text(TEXT)
        for decoder, tokenizer in ((peer.decoder, peer.tokenizer), (own.decoder, own.tokenizer))
    ]
    assert scores[0].tokens == scores[1].tokens
    assert scores[0].bits_per_byte == pytest.approx(scores[1].bits_per_byte, abs=1e-4)


def test_the_same_texts(peer: TransformersModel, tiny_checkpoint: Path) -> None:
    own = load(tiny_checkpoint, precision="fp32")
    options = SamplingOptions(max_tokens=12)
    ids = own.tokenizer.encode("def area(width")  # Whose last token stays: none is healed there.
    (expected,) = sample_texts(own.decoder, own.tokenizer, ids, options, 1)
    assert _whole(peer.generate("def area(width", None, options, 2)) == _whole([expected.text] * 2)
    infilled = FamilyModel(own).generate("def f():\n", "    return 1\n", options, 1)
    assert _whole(peer.generate("def f():\n", "    return 1\n", options, 1)) == _whole(infilled)


def _whole(texts: list[str]) -> list[str]:
    """Without bytes at the end that are no character, which the two sides show differently."""
    return [text.rstrip("\ufffd") for text in texts]


def test_samples_differ_and_repeat(peer: TransformersModel) -> None:
    options = SamplingOptions(max_tokens=12, temperature=1.0, seed=5)
    texts = peer.generate("def f():", None, options, 3)
    assert len(set(texts)) == 3 and texts == peer.generate("def f():", None, options, 3)


def test_what_cannot_be_loaded(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="transformers cannot load it"):
        TransformersModel(str(tmp_path))
