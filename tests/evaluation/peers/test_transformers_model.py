"""transformers as a peer: on a model of ours it says what ours says."""

from dataclasses import replace
from pathlib import Path

import pytest

from tinystarcoder.errors import EvaluationError
from tinystarcoder.evaluation.bits_per_byte import Scorer
from tinystarcoder.evaluation.generators import Ask, Generator
from tinystarcoder.evaluation.peers.transformers_model import TransformersModel
from tinystarcoder.evaluation.suite import Subject
from tinystarcoder.fim import Order
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


def texts(writer: Generator, ask: Ask) -> list[str]:
    """Without bytes at the end that are no character, which the two sides show differently."""
    (found,) = writer.generate([ask])
    return [text.text.rstrip("\ufffd") for text in found]


def test_the_same_texts(peer: TransformersModel, tiny_checkpoint: Path) -> None:
    own = load(tiny_checkpoint, precision="fp32")
    options = SamplingOptions(max_tokens=12)
    ids = own.tokenizer.encode("def area(width")  # Whose last token stays: none is healed there.
    (expected,) = sample_texts(own.decoder, own.tokenizer, ids, options, 1)
    found = texts(peer, Ask("def area(width", None, options, 2))
    assert found == [expected.text.rstrip("\ufffd")] * 2


@pytest.mark.parametrize("order", ["psm", "spm"])
def test_the_same_middles(order: Order, tiny_checkpoint: Path) -> None:
    ask = Ask("def f():\n", "    return 1\n", SamplingOptions(max_tokens=12))
    own = load(tiny_checkpoint, precision="fp32")
    ids = own.infill_ids(ask.prefix, "    return 1\n", 12, order)  # Not healed, as the peer's.
    (expected,) = sample_texts(own.decoder, own.tokenizer, ids, ask.options, 1)
    peer = TransformersModel(str(tiny_checkpoint), order)
    assert texts(peer, ask) == [expected.text.rstrip("\ufffd")]


def test_samples_differ_and_repeat(peer: TransformersModel) -> None:
    ask = Ask("def f():", None, SamplingOptions(max_tokens=12, temperature=1.0, seed=5), 3)
    assert len(set(texts(peer, ask))) == 3 and texts(peer, ask) == texts(peer, ask)


def test_whether_it_ended_by_itself(peer: TransformersModel) -> None:
    """A stop string ends a text; so does end-of-text; max_tokens cuts it off."""
    long = SamplingOptions(max_tokens=12)
    ((whole,),) = peer.generate([Ask("def area(width", None, long)])
    stop = whole.text[4:6]
    ((stopped,),) = peer.generate([Ask("def area(width", None, replace(long, stop=(stop,)))])
    assert not whole.ended and stopped.ended and stopped.text.endswith(stop)
    drawn = SamplingOptions(max_tokens=100, temperature=1.5, seed=1)
    (samples,) = peer.generate([Ask("def f():", None, drawn, 40)])
    assert {sample.ended for sample in samples} == {True, False}


def test_what_cannot_be_loaded(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="transformers cannot load it"):
        TransformersModel(str(tmp_path))
