"""OpenVINO GenAI, its stateful pipeline on the CPU; times are its own metrics'."""

import time

import numpy as np
import openvino
import openvino_genai
from protocol import Engine, serve


class OpenVino(Engine):
    version = openvino_genai.__version__

    def load(self, model: str, precision: str, threads: int, context: int) -> None:  # noqa: ARG002
        self.pipeline = openvino_genai.LLMPipeline(
            model, "CPU", INFERENCE_NUM_THREADS=threads, PERFORMANCE_HINT="LATENCY"
        )

    def _generate(self, prompts: list[list[int]], tokens: int) -> float:
        ids = np.array(prompts, np.int64)
        inputs = openvino_genai.TokenizedInputs(
            openvino.Tensor(ids), openvino.Tensor(np.ones_like(ids))
        )
        config = openvino_genai.GenerationConfig()
        config.max_new_tokens = tokens
        config.ignore_eos = True
        started = time.perf_counter()
        result = self.pipeline.generate(inputs, config)
        seconds = time.perf_counter() - started
        self.metrics = result.perf_metrics
        assert all(len(text) == tokens for text in result.tokens)
        return seconds

    def decode(self, prompt: list[int], tokens: int) -> float:
        self._generate([prompt], tokens)
        return self.metrics.get_tpot().mean / 1000 * (tokens - 1)

    def prefill(self, prompt: list[int]) -> float:
        return self._generate([prompt], 1)

    def batch(self, prompts: list[list[int]], tokens: int) -> float:
        return self._generate(prompts, tokens) - self._generate(prompts, 1)


if __name__ == "__main__":
    serve(OpenVino())
