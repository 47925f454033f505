"""Samples a second of ``evaluate``'s generation beside a plain loop over transformers' generate.

    python benchmarks/evaluate.py HumanEval.jsonl.gz TOKENIZER --preset tiny --problems 32

Random weights of the preset (tiny: 164,144,128 parameters) in float32 and the vocabulary
in the folder TOKENIZER, of the preset's size, written to a temporary folder that both
sides load; greedy, a fixed number of tokens each, since random weights never end.
transformers runs the checkpoint's float32; ours its precisions in turn, over the same
problems. The first sample of each side warms up and is not counted. Of ours, the texts
of a few problems asked alone must be those of the batch.
"""

import argparse
import os
import platform
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import transformers

from tinystarcoder.evaluation.generators import Ask
from tinystarcoder.evaluation.problems import read_task
from tinystarcoder.evaluation.suite import Subject
from tinystarcoder.generation.sampling import SamplingOptions
from tinystarcoder.model import checkpoint
from tinystarcoder.model.config import PRESETS
from tinystarcoder.tokenizer import Tokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--problems", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--precision", nargs="+", default=["fp32", "int8"])
    options = parser.parse_args()
    torch.set_num_threads(os.cpu_count() or 1)
    prompts = [p.prefix for p in read_task("human-eval", options.file).problems]
    prompts = prompts[: options.problems + 1]
    asked = [Ask(p, None, SamplingOptions(max_tokens=options.tokens)) for p in prompts]
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), options.preset, options.tokenizer)
        sides = [("transformers fp32", Subject(f"transformers:{folder}"))]
        sides += [(f"evaluate {p}", Subject(folder, p)) for p in options.precision]
        rates = [(name, rate(subject, asked)) for name, subject in sides]
    print(
        f"{options.preset}, {options.problems} samples of {options.tokens} tokens, "
        f"{platform.machine()}, {os.cpu_count()} cores, transformers {transformers.__version__}"
    )
    for name, found in rates:
        print(f"{name:20} {found:7.3f} samples/s  {found / rates[0][1]:5.2f}x")


def write(folder: Path, preset: str, tokenizer: Path) -> None:
    rng, config = np.random.default_rng(0), PRESETS[preset]
    tensors = {
        name: rng.normal(0, config.initializer_range, shape).astype(np.float32)
        for name, shape in config.shapes().items()
    }
    checkpoint.write(folder, config, tensors)
    Tokenizer.from_folder(tokenizer).save(folder)


def rate(subject: Subject, asked: list[Ask]) -> float:
    first, *counted = asked
    list(subject.generator.generate([first]))
    start = time.perf_counter()
    written = list(subject.generator.generate(counted))
    seconds = time.perf_counter() - start
    if not subject.name.startswith("transformers:"):
        for ask, texts in list(zip(counted, written, strict=True))[::16]:
            assert list(subject.generator.generate([ask])) == [texts], "another text alone"
    return len(counted) / seconds


if __name__ == "__main__":
    main()
