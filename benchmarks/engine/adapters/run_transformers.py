"""transformers on torch's CPU kernels, and the limit of a prefill that they can measure."""

import time

import torch
import transformers
from protocol import Engine, serve
from torch.nn import functional as F
from transformers import AutoModelForCausalLM


class Transformers(Engine):
    version = f"{transformers.__version__}, torch {torch.__version__}"

    def load(self, model: str, precision: str, threads: int, context: int) -> None:  # noqa: ARG002
        torch.set_num_threads(threads)
        dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
        self.model = AutoModelForCausalLM.from_pretrained(model, dtype=dtype).eval()

    @torch.inference_mode()
    def decode(self, prompt: list[int], tokens: int) -> float:
        out = self.model(torch.tensor([prompt]), logits_to_keep=1)
        started = time.perf_counter()
        for _ in range(tokens - 1):
            token = out.logits[:, -1:].argmax(-1)
            out = self.model(token, past_key_values=out.past_key_values)
        return time.perf_counter() - started

    @torch.inference_mode()
    def prefill(self, prompt: list[int]) -> float:
        started = time.perf_counter()
        self.model(torch.tensor([prompt]), logits_to_keep=1).logits[0, -1].argmax().item()
        return time.perf_counter() - started

    @torch.inference_mode()
    def prefill_limit(self, tokens: int) -> dict[str, float]:
        """Seconds of the model's int8 matrix products, and of its attention in bf16, alone."""
        c = self.model.config
        width, inner = c.n_embd, c.n_inner
        products = attention = 0.0
        for out, into in (
            (width + 2 * width // c.n_head, width),
            (width, width),
            (inner, width),
            (width, inner),
        ):
            x = torch.randint(-9, 9, (tokens, into), dtype=torch.int8)
            w = torch.randint(-9, 9, (out, into), dtype=torch.int8).t()
            products += _best(lambda x=x, w=w: torch._int_mm(x, w)) * c.n_layer
        head = width // c.n_head
        q = torch.randn(1, c.n_head, tokens, head, dtype=torch.bfloat16)
        kv = torch.randn(1, 1, tokens, head, dtype=torch.bfloat16).expand(-1, c.n_head, -1, -1)
        attention = c.n_layer * _best(
            lambda: F.scaled_dot_product_attention(q, kv, kv, is_causal=True)
        )
        return {"products": products, "attention": attention}


def _best(function: object, repeats: int = 5) -> float:
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        function()  # type: ignore[operator]
        times.append(time.perf_counter() - started)
    return min(times)


if __name__ == "__main__":
    serve(Transformers())
