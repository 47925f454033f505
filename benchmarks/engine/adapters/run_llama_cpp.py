"""llama.cpp by llama-cpp-python's low-level calls: its own speed, without the binding's sampler."""

import ctypes
import time

import llama_cpp
import numpy as np
from protocol import Engine, serve

BATCH = 2048  # Tokens a call; 512 of them pass together (n_ubatch): llama.cpp's defaults.


class LlamaCpp(Engine):
    version = llama_cpp.__version__

    def load(self, model: str, precision: str, threads: int, context: int) -> None:
        llama_cpp.llama_backend_init()
        self.model = llama_cpp.llama_model_load_from_file(
            model.encode(), llama_cpp.llama_model_default_params()
        )
        self.vocabulary = llama_cpp.llama_vocab_n_tokens(
            llama_cpp.llama_model_get_vocab(self.model)
        )
        self.threads = threads
        off = precision.endswith("without flash attention")
        self.flash = getattr(llama_cpp, f"LLAMA_FLASH_ATTN_TYPE_{'DISABLED' if off else 'ENABLED'}")
        self.context = self._new_context(context, 1)
        self.held: list[int] = []

    def _new_context(self, size: int, sequences: int) -> object:
        params = llama_cpp.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = size, BATCH, 512
        params.n_seq_max = sequences
        params.n_threads = params.n_threads_batch = self.threads
        params.flash_attn_type = self.flash
        return llama_cpp.llama_init_from_model(self.model, params)

    def _extend(self, ids: list[int]) -> int:
        """Computes ids behind what the context holds; the likeliest next one."""
        for start in range(0, len(ids), BATCH):
            part = ids[start : start + BATCH]
            array = (llama_cpp.llama_token * len(part))(*part)
            if llama_cpp.llama_decode(
                self.context, llama_cpp.llama_batch_get_one(array, len(part))
            ):
                raise RuntimeError("llama_decode failed")
        return self._likeliest(self.context, -1)

    def _likeliest(self, context: object, row: int) -> int:
        logits = llama_cpp.llama_get_logits_ith(context, row)
        return int(np.ctypeslib.as_array(logits, (self.vocabulary,)).argmax())

    def _forget(self, length: int) -> None:
        memory = llama_cpp.llama_get_memory(self.context)
        llama_cpp.llama_memory_seq_rm(memory, 0, length, -1)

    def decode(self, prompt: list[int], tokens: int) -> float:
        known = len(prompt) - 1 if self.held == prompt else 0
        self._forget(known)
        self.held = prompt
        token = self._extend(prompt[known:])
        started = time.perf_counter()
        for _ in range(tokens - 1):
            token = self._extend([token])
        return time.perf_counter() - started

    def prefill(self, prompt: list[int]) -> float:
        self._forget(0)
        self.held = []
        started = time.perf_counter()
        self._extend(prompt)
        return time.perf_counter() - started

    def batch(self, prompts: list[list[int]], tokens: int) -> float:
        number, longest = len(prompts), len(prompts[0]) + tokens
        context = self._new_context(number * (longest + 8), number)
        batch = llama_cpp.llama_batch_init(BATCH, 0, 1)
        for sequence, prompt in enumerate(prompts):
            self._fill(batch, [(sequence, at, token) for at, token in enumerate(prompt)])
            batch.logits[len(prompt) - 1] = 1
            llama_cpp.llama_decode(context, batch)
            prompts[sequence] = [*prompt, self._likeliest(context, len(prompt) - 1)]
        started = time.perf_counter()
        for _ in range(tokens - 1):
            self._fill(batch, [(s, len(ids) - 1, ids[-1]) for s, ids in enumerate(prompts)])
            for row in range(number):
                batch.logits[row] = 1
            llama_cpp.llama_decode(context, batch)
            for row, ids in enumerate(prompts):
                ids.append(self._likeliest(context, row))
        seconds = time.perf_counter() - started
        llama_cpp.llama_batch_free(batch)
        llama_cpp.llama_free(context)
        return seconds

    def _fill(self, batch: ctypes.Structure, places: list[tuple[int, int, int]]) -> None:
        batch.n_tokens = len(places)
        for row, (sequence, position, token) in enumerate(places):
            batch.token[row], batch.pos[row], batch.logits[row] = token, position, 0
            batch.n_seq_id[row], batch.seq_id[row][0] = 1, sequence


if __name__ == "__main__":
    serve(LlamaCpp())
