"""CTranslate2's generator in int8. It has no slots: decoding is what more tokens cost."""

import json
import time
from pathlib import Path

import ctranslate2
from protocol import Engine, serve


class CTranslate2(Engine):
    version = ctranslate2.__version__

    def load(self, model: str, precision: str, threads: int, context: int) -> None:  # noqa: ARG002
        self.generator = ctranslate2.Generator(
            model, device="cpu", compute_type=precision, inter_threads=1, intra_threads=threads
        )
        self.vocabulary = json.loads((Path(model) / "vocabulary.json").read_text())

    def _generate(self, prompts: list[list[int]], tokens: int) -> float:
        texts = [[self.vocabulary[token] for token in prompt] for prompt in prompts]
        started = time.perf_counter()
        self.generator.generate_batch(
            texts,
            max_length=tokens,
            min_length=tokens,
            sampling_topk=1,
            include_prompt_in_result=False,
        )
        return time.perf_counter() - started

    def decode(self, prompt: list[int], tokens: int) -> float:
        return self._generate([prompt], tokens) - self._generate([prompt], 1)

    def prefill(self, prompt: list[int]) -> float:
        return self._generate([prompt], 1)

    def batch(self, prompts: list[list[int]], tokens: int) -> float:
        return self._generate(prompts, tokens) - self._generate(prompts, 1)


if __name__ == "__main__":
    serve(CTranslate2())
