"""What tests of several rooms share: a small tokenizer, random checkpoints, the shared data."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import settings

from tinystarcoder.model import checkpoint
from tinystarcoder.model.config import ModelConfig
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
