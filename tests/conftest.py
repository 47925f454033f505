"""What tests of several rooms share: a small tokenizer, models, the shared data."""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import settings

from tinystarcoder.engine.decoder import Logits, check_ids, check_length
from tinystarcoder.model import checkpoint
from tinystarcoder.model.config import ModelConfig
from tinystarcoder.pretrained import Model
from tinystarcoder.tokenizer import Tokenizer

ROOT = Path(__file__).resolve().parents[1]

# No test asserts a time: a busy machine is not a bug.
settings.register_profile("house", deadline=None)
settings.load_profile("house")

Tensors = dict[str, npt.NDArray[np.float32]]

TEXTS = [
    "def print_hello_world():\n    print('Hello, world!')\n",
    "import os\n\n\ndef list_files(path):\n    return [name for name in os.listdir(path)]\n",
    "class Stack:\n    def __init__(self):\n        self.items = []\n",
    "for index in range(10):\n    if index % 2 == 0:\n        continue\n    print(index)\n",
    "# Grüße, 世界 🙂 — naïve café\nx = 12345\n",
]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of golden strings and published texts, which the project does not hold."""
    folder = Path(os.environ.get("TINYSTARCODER_SHARED_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent; TINYSTARCODER_SHARED_DATA may name it")
    return folder


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Packed models of the tests, and of the commands they run, away from the user's."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TINYSTARCODER_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """A vocabulary of 400 ids, special tokens 0 to 18."""
    return Tokenizer.train(TEXTS * 4, 400)


@pytest.fixture(scope="session")
def tiny_config(tokenizer: Tokenizer) -> ModelConfig:
    """The smallest model that is one: 2 layers, 2 heads, 128 positions."""
    return ModelConfig(
        vocab_size=tokenizer.vocab_size, n_positions=128, n_embd=32, n_layer=2, n_head=2, n_inner=64
    )


@pytest.fixture(scope="session")
def random_tensors() -> Callable[..., Tensors]:
    """Weights large enough to make every tensor, biases too, matter for the logits."""

    def make(config: ModelConfig, seed: int = 0) -> Tensors:
        rng = np.random.default_rng(seed)
        tensors = {}
        for name, shape in config.shapes().items():
            center = 1.0 if "ln_" in name and name.endswith("weight") else 0.0
            tensors[name] = rng.normal(center, 0.2, shape).astype(np.float32)
        return tensors

    return make


@pytest.fixture(scope="session")
def tiny_checkpoint(
    tmp_path_factory: pytest.TempPathFactory,
    tokenizer: Tokenizer,
    tiny_config: ModelConfig,
    random_tensors: Callable[..., Tensors],
) -> Path:
    """A whole model folder with random weights and the small tokenizer. Read it only."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    checkpoint.write(folder, tiny_config, random_tensors(tiny_config))
    tokenizer.save(folder)
    return folder


class Writer:
    """A decoder that continues a hole's prompt with given ids, and counts what it computes.

    Where it must first write again what a prompt ended in, it does so byte by byte.
    """

    def __init__(self, config: ModelConfig, ids: Sequence[int], tokenizer: Tokenizer) -> None:
        assert tokenizer.fim is not None
        self.config = config
        self.ids = ids
        lengths = np.array([len(token) or 99 for token in tokenizer.vocabulary])
        self._short = np.where(lengths == 1, 0, -20).astype(np.float32)
        self.slots: dict[int, list[int]] = {}
        self.calls: list[int] = []
        self._middle = tokenizer.fim.middle

    @property
    def computed(self) -> int:
        return sum(self.calls)

    def allocate(self) -> int:
        self.slots[len(self.slots)] = []
        return len(self.slots) - 1

    def release(self, slot: int) -> None:
        del self.slots[slot]

    def length(self, slot: int) -> int:
        return len(self.slots[slot])

    def extend(self, slot: int, ids: Sequence[int], *, all_logits: bool = False) -> Logits:
        held = self.slots[slot]
        check_ids(self.config, len(held), ids)
        held += ids
        self.calls.append(len(ids))
        logits = self._short.copy()
        if self._middle in held:
            written = self._written(held[held.index(self._middle) + 1 :])
            logits[self.ids[written] if written < len(self.ids) else 0] = 20.0  # It has no doubt.
        return logits

    def _written(self, ids: Sequence[int]) -> int:
        """How much of its text stands at the end; in SPM order, a prefix stands before that."""
        written = 0
        for token in ids:
            goes_on = written < len(self.ids) and token == self.ids[written]
            written = written + 1 if goes_on else int(token in self.ids[:1])
        return written

    def extend_batch(
        self, requests: Sequence[tuple[int, Sequence[int]]], *, all_logits: bool = False
    ) -> list[Logits]:
        return [self.extend(slot, ids) for slot, ids in requests]

    def truncate(self, slot: int, length: int) -> None:
        check_length(self.length(slot), length)
        del self.slots[slot][length:]

    def copy(self, source: int, target: int) -> None:
        self.slots[target] = list(self.slots[source])


@pytest.fixture
def writing(tokenizer: Tokenizer) -> Callable[..., Model]:
    """Makes a model that writes a text and then ends the document."""

    def make(text: str, n_positions: int = 2048) -> Model:
        config = ModelConfig(
            vocab_size=tokenizer.vocab_size, n_positions=n_positions, n_embd=8, n_head=1
        )
        return Model(Writer(config, tokenizer.encode(text), tokenizer), tokenizer)

    return make
