"""tinystarcoder's native engine, and what only it is asked: limits, prompt lookup."""

import time
from collections.abc import Iterator

import numpy as np
from protocol import Engine, serve

import tinystarcoder
from tinystarcoder.engine import _native
from tinystarcoder.engine.native_decoder import NativeDecoder
from tinystarcoder.generation.generate import generate_ids, new_slot
from tinystarcoder.generation.sampling import SamplingOptions
from tinystarcoder.generation.scheduler import Scheduler
from tinystarcoder.generation.sequence import Token
from tinystarcoder.generation.speculative import PromptLookup, speculative_ids
from tinystarcoder.model.checkpoint import Checkpoint


class Ours(Engine):
    version = tinystarcoder.__version__

    def load(self, model: str, precision: str, threads: int, context: int) -> None:  # noqa: ARG002
        self.decoder = NativeDecoder(Checkpoint.open(model), precision, threads)  # type: ignore[arg-type]
        self.version += f", {self.decoder.instruction_set}"
        self.slot = self.decoder.allocate()
        self.held: list[int] = []

    def decode(self, prompt: list[int], tokens: int) -> float:
        known = len(prompt) - 1 if self.held == prompt else 0
        self.decoder.truncate(self.slot, known)
        self.held = prompt
        options = SamplingOptions(max_tokens=tokens)
        return _after_first(generate_ids(self.decoder, self.slot, prompt, options))

    def prefill(self, prompt: list[int]) -> float:
        with new_slot(self.decoder) as slot:
            started = time.perf_counter()
            self.decoder.extend(slot, prompt).argmax()
            return time.perf_counter() - started

    def batch(self, prompts: list[list[int]], tokens: int) -> float:
        """Through the scheduler: its passes while all sequences write."""
        scheduler = Scheduler(self.decoder, slots=len(prompts))
        options = SamplingOptions(max_tokens=2 * tokens)
        texts = [scheduler.submit(prompt, options) for prompt in prompts]
        while min(text.text.generated for text in texts) == 0:
            scheduler.step()
        started, before = time.perf_counter(), texts[0].text.generated
        while texts[0].text.generated - before < tokens - 1:
            scheduler.step()
        seconds = time.perf_counter() - started
        for text in texts:
            text.cancel()
        scheduler.step()
        return seconds

    def stream(self, megabytes: float, threads: int) -> dict[str, float]:
        """Bytes a second of the dot-product loop over weights in one stream: the limit."""
        data = np.ones(int(megabytes * 1e6), np.uint8)
        return {"bytes_per_second": _native.stream_probe(data, threads, 30)}

    def speculate(
        self, prompt: list[int], tokens: int, temperature: float, seed: int
    ) -> dict[str, object]:
        """The same text plainly and with prompt lookup, in turns; the best seconds of each."""
        options = SamplingOptions(max_tokens=tokens, temperature=temperature, seed=seed)
        times: dict[bool, list[float]] = {False: [], True: []}
        texts: dict[bool, list[Token]] = {}
        with new_slot(self.decoder) as known:
            self.decoder.extend(known, prompt[:-1])
            for guessing in (False, True, True, False):
                with new_slot(self.decoder) as slot:
                    self.decoder.copy(known, slot)
                    started = time.perf_counter()
                    if guessing:
                        text = list(
                            speculative_ids(self.decoder, slot, prompt, options, PromptLookup)
                        )
                    else:
                        text = list(generate_ids(self.decoder, slot, prompt, options))
                    times[guessing].append(time.perf_counter() - started)
                    texts[guessing] = text
        return {
            "plain": min(times[False]),
            "lookup": min(times[True]),
            "same": texts[False] == texts[True],
        }


def _after_first(tokens: Iterator[Token]) -> float:
    next(tokens)
    started = time.perf_counter()
    for _ in tokens:
        pass
    return time.perf_counter() - started


if __name__ == "__main__":
    serve(Ours())
