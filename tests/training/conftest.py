"""Toy documents, a toy vocabulary and their token shards: a training run in a second."""

import importlib
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

import tinystarcoder
from tinystarcoder.corpus.document import Document
from tinystarcoder.corpus.token_shards import TokenShards, build_token_shards
from tinystarcoder.tokenizer import Tokenizer


def toy_text(number: int) -> str:
    """Python of varying length, with characters of several bytes."""
    lines = [
        f"def é{number}_{i}(x):\n    return x + {i * number}  # 日本\n" for i in range(number % 9)
    ]
    return f"# file {number}\n" + "\n".join(lines)


@pytest.fixture(scope="session")
def toy_tokenizer() -> Tokenizer:
    return Tokenizer.train((toy_text(n) for n in range(40)), 320)


@pytest.fixture(scope="session")
def toy_shards(toy_tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> TokenShards:
    documents = (Document(toy_text(n), f"p/{n}.py", "toy", "1", "MIT") for n in range(60))
    return build_token_shards(documents, toy_tokenizer, tmp_path_factory.mktemp("toy") / "tokens")


@pytest.fixture(scope="session")
def toy_recipe_text(toy_shards: TokenShards) -> str:
    """A recipe over the toy shards, with two phases, micro-batches and validation."""
    return f"""
name = "toy"
[model.overrides]
vocab_size = 320
n_layer = 2
n_embd = 32
n_head = 2
n_inner = 64
n_positions = 64
[data]
train = "{toy_shards.folder}"
validation = "{toy_shards.folder}"
tokenizer = "{toy_shards.folder}"
[schedule]
steps = 12
warmup = 2
[[phases]]
until = 0.5
context = 32
rows = 4
micro_rows = 2
[[phases]]
until = 1.0
context = 64
rows = 2
[validation]
every = 6
tokens = 500
[checkpoint]
every = 3
[hardware]
compile = false
threads = 1
"""


@pytest.fixture
def toy_recipe(toy_recipe_text: str, tmp_path: Path) -> Path:
    path = tmp_path / "toy.toml"
    path.write_text(toy_recipe_text, encoding="utf-8")
    return path


@pytest.fixture
def reward_recipe(tmp_path: Path) -> Path:
    """nano goes on with a file of this package, and is rewarded: a toy model writes no Python."""
    package = Path(tinystarcoder.__file__).parent
    (tmp_path / "code").mkdir()
    shutil.copy(package / "files.py", tmp_path / "code")
    text = f"""
name = "rewarded"
seed = 7
[model]
weights = "{package / "weights" / "nano"}"
[data]
train = "{tmp_path / "code"}"
tokenizer = "{package / "weights" / "nano"}"
fim_rate = 0.0
[optimizer]
lr = 1e-4
muon_lr = 1e-4
[reward]
weight = 1.0
every = 2
prompts = 2
tokens = 20
[schedule]
steps = 4
[[phases]]
until = 1.0
context = 128
rows = 2
[validation]
every = 0
[checkpoint]
every = 1
[hardware]
compile = false
threads = 1
"""
    path = tmp_path / "rewarded.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """A script of benchmarks/training as a module, by its name."""
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[2] / "benchmarks" / "training")
    return importlib.import_module
