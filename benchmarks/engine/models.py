"""The 164M configuration with random weights, in every form that the peers read.

Made once in a folder of the benchmark's own. A peer whose converter is absent
has no model, and the report says so.
"""

import json
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tinystarcoder.model import checkpoint
from tinystarcoder.model.config import TINY, ModelConfig
from tinystarcoder.model.gguf_export import export
from tinystarcoder.pretrained import locate
from tinystarcoder.tokenizer import Tokenizer


class RandomWeights(Mapping[str, npt.NDArray[np.float32]]):
    """Tensors of a configuration, drawn when asked for: N(0, 0.02), norms 1, biases 0."""

    def __init__(self, config: ModelConfig) -> None:
        self._shapes = config.shapes()

    def __getitem__(self, name: str) -> npt.NDArray[np.float32]:
        shape = self._shapes[name]
        if len(shape) == 1:
            fill = float("ln_" in name and name.endswith("weight"))
            return np.full(shape, fill, np.float32)
        random = np.random.default_rng(list(name.encode()))
        return random.standard_normal(shape, np.float32) * np.float32(0.02)

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)


def huggingface(folder: Path) -> Path:
    """The master: a Hugging Face folder, float32, with a tokenizer of the right size."""
    target = folder / "tiny-random"
    if not (target / "config.json").exists():
        checkpoint.write(target, TINY, RandomWeights(TINY))
    if not (target / "tokenizer.json").exists():
        Tokenizer.from_folder(locate("nano")).save(target)  # Prompts are ids: any will do.
    return target


def gguf(folder: Path, weights: str) -> Path:
    """One file for llama.cpp."""
    target = folder / f"tiny-random-{weights}.gguf"
    if not target.exists():
        export(huggingface(folder), target, weights)  # type: ignore[arg-type]
    return target


def openvino(folder: Path, venv: Path) -> Path:
    """optimum-intel's export with int8 weights, as OpenVINO GenAI documents it."""

    def convert(aside: Path) -> list[str | Path]:
        program = [venv / "bin/optimum-cli", "export", "openvino", "-m", huggingface(folder)]
        return [*program, "--task", "text-generation-with-past", "--weight-format", "int8", aside]

    return _converted(folder / "tiny-random-openvino-int8", convert)


def ctranslate2(folder: Path, venv: Path) -> Path:
    """CTranslate2's own converter."""

    def convert(aside: Path) -> list[str | Path]:
        program = [venv / "bin/ct2-transformers-converter", "--model", huggingface(folder)]
        return [*program, "--quantization", "int8", "--output_dir", aside]

    target = _converted(folder / "tiny-random-ctranslate2-int8", convert)
    # It wants a text for every id, and the vocabulary here has but the first of them.
    vocabulary = target / "vocabulary.json"
    texts = json.loads(vocabulary.read_text())
    vocabulary.write_text(json.dumps([text or f"<{i}>" for i, text in enumerate(texts)]))
    return target


def _converted(target: Path, command: Callable[[Path], list[str | Path]]) -> Path:
    if not target.exists():
        aside = target.with_name(f"{target.name}.part")
        done = subprocess.run(command(aside), capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{target.name}: {done.stderr.strip().splitlines()[-1:]}")
        aside.rename(target)
    return target
