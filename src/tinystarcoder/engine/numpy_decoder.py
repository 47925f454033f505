"""The decoder in plain numpy, float32: the portable path, and the oracle to read.

It follows transformers' ``modeling_gpt_bigcode.py`` and gives up what numpy
cannot: narrow weights (bfloat16 and float16 are widened when loaded, so a
model takes four bytes a parameter) and threads beyond those of numpy's BLAS.
Every product is one BLAS call on contiguous operands. A long prompt runs
through the network in chunks and through attention in blocks, so that memory
grows with the context, never with its square.

Shapes: T new tokens, S tokens seen, D width, H heads, K key and value heads
(1 with multi-query, H without), G = H / K query heads to each of them, C head
width, V vocabulary, L layers.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
import numpy.typing as npt

from ..model.checkpoint import Checkpoint
from ..model.config import ModelConfig
from .decoder import Logits, check_batch, check_ids, check_length

Floats = npt.NDArray[np.float32]

# Tokens that pass through a layer together, and attention scores held at a
# time: activations and scores that stay in a core's cache.
CHUNK = 512
SCORES = 1 << 19


@dataclass
class _Slot:
    """Keys and values of one sequence, ``[L, 2, K, capacity, C]``, and how many are filled."""

    cache: Floats
    length: int = 0


class NumpyDecoder:
    """A checkpoint's forward pass. Implements :class:`~.decoder.Decoder`."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.config: ModelConfig = checkpoint.config
        self._weights = {name: checkpoint.tensor(name) for name in checkpoint.names}
        self._activation = _ACTIVATIONS[self.config.activation_function]
        self._slots: dict[int, _Slot] = {}
        self._numbers = count()

    def allocate(self) -> int:
        number = next(self._numbers)
        self._slots[number] = _Slot(self._empty_cache(0))
        return number

    def release(self, slot: int) -> None:
        del self._slots[slot]

    def length(self, slot: int) -> int:
        return self._slots[slot].length

    def truncate(self, slot: int, length: int) -> None:
        check_length(self._slots[slot].length, length)
        self._slots[slot].length = length

    def copy(self, source: int, target: int) -> None:
        origin = self._slots[source]
        filled = origin.cache[..., : origin.length, :].copy()
        self._slots[target] = _Slot(filled, origin.length)

    def extend(self, slot: int, ids: Sequence[int], *, all_logits: bool = False) -> Logits:
        state = self._slots[slot]
        check_ids(self.config, state.length, ids)
        self._reserve(state, state.length + len(ids))
        wte = self._weights["transformer.wte.weight"]
        every = np.empty((len(ids) if all_logits else 0, len(wte)), np.float32)
        for start in range(0, len(ids), CHUNK):
            hidden = self._forward(state, np.asarray(ids[start : start + CHUNK]))
            if all_logits:
                every[start : start + len(hidden)] = self._norm(hidden, "transformer.ln_f") @ wte.T
        if all_logits:
            return every
        last: Logits = (self._norm(hidden[-1:], "transformer.ln_f") @ wte.T)[0]
        return last

    def extend_batch(
        self, requests: Sequence[tuple[int, Sequence[int]]], *, all_logits: bool = False
    ) -> list[Logits]:
        # One after another: BLAS sums in another order for other shapes, so a
        # common product would not give the same bits.
        check_batch(self.config, requests, self.length)
        return [self.extend(slot, ids, all_logits=all_logits) for slot, ids in requests]

    def _forward(self, state: _Slot, ids: npt.NDArray[np.int_]) -> Floats:
        """Appends ``[T]`` ids and returns the residual stream behind the last layer, ``[T, D]``."""
        past, seen = state.length, state.length + len(ids)
        hidden: Floats = self._weights["transformer.wte.weight"][ids]
        hidden += self._weights["transformer.wpe.weight"][past:seen]
        for layer in range(self.config.n_layer):
            block = f"transformer.h.{layer}"
            qkv = self._linear(self._norm(hidden, f"{block}.ln_1"), f"{block}.attn.c_attn")
            query, key, value = self._split(qkv)
            cache = state.cache[layer]
            cache[0, :, past:seen], cache[1, :, past:seen] = key, value
            mixed = _attend(query, cache[0], cache[1], past)
            hidden += self._linear(mixed, f"{block}.attn.c_proj")
            inner = self._linear(self._norm(hidden, f"{block}.ln_2"), f"{block}.mlp.c_fc")
            hidden += self._linear(self._activation(inner), f"{block}.mlp.c_proj")
        state.length = seen
        return hidden

    def _split(self, qkv: Floats) -> tuple[Floats, Floats, Floats]:
        """The rows of c_attn: query ``[T, K, G, C]``; key and value ``[K, T, C]``."""
        heads, width = self.config.n_head, self.config.head_dim
        if self.config.multi_query:  # All queries, then the one key and value.
            parts = qkv.reshape(len(qkv), 1, heads + 2, width)
        else:  # Query, key and value of each head in turn.
            parts = qkv.reshape(len(qkv), heads, 3, width)
        key, value = parts[:, :, -2].swapaxes(0, 1), parts[:, :, -1].swapaxes(0, 1)
        return parts[:, :, :-2], key, value

    def _linear(self, x: Floats, name: str) -> Floats:
        out: Floats = x @ self._weights[f"{name}.weight"].T
        out += self._weights[f"{name}.bias"]
        return out

    def _norm(self, x: Floats, name: str) -> Floats:
        out: Floats = x - x.mean(axis=-1, keepdims=True)
        variance = np.square(out).mean(axis=-1, keepdims=True)
        out /= np.sqrt(variance + np.float32(self.config.layer_norm_epsilon))
        out *= self._weights[f"{name}.weight"]
        out += self._weights[f"{name}.bias"]
        return out

    def _empty_cache(self, capacity: int) -> Floats:
        c = self.config
        return np.empty((c.n_layer, 2, c.n_kv_head, capacity, c.head_dim), np.float32)

    def _reserve(self, state: _Slot, needed: int) -> None:
        """Room for ``needed`` tokens; doubling, so that growing costs little a token."""
        capacity = state.cache.shape[3]
        if needed > capacity:
            grown = self._empty_cache(max(needed, min(2 * capacity, self.config.n_positions)))
            grown[..., : state.length, :] = state.cache[..., : state.length, :]
            state.cache = grown


def _attend(query: Floats, keys: Floats, values: Floats, past: int) -> Floats:
    """Causal attention of ``[T, K, G, C]`` queries over ``[K, capacity, C]``; ``[T, D]``."""
    time, kv_heads, group, width = query.shape
    # Queries of one key head are rows of one matrix, so that each product is one call.
    rows = query.swapaxes(0, 1).reshape(kv_heads, time * group, width)
    rows = rows * np.float32(1 / math.sqrt(width))
    out = np.empty_like(rows)
    block = max(1, SCORES // (kv_heads * group * (past + time)))
    for start in range(0, time, block):
        stop = min(start + block, time)
        chosen, seen = slice(start * group, stop * group), past + stop
        scores = rows[:, chosen] @ keys[:, :seen].swapaxes(1, 2)
        future = np.triu(np.full((stop - start, stop - start), -np.inf, np.float32), 1)
        newest = scores.reshape(kv_heads, stop - start, group, seen)[..., past + start :]
        newest += future[:, None]
        scores -= scores.max(axis=-1, keepdims=True)
        np.exp(scores, out=scores)
        out[:, chosen] = scores @ values[:, :seen]
        out[:, chosen] /= scores.sum(axis=-1, keepdims=True)
    return out.reshape(kv_heads, time, -1).swapaxes(0, 1).reshape(time, -1)


def gelu_tanh(x: Floats) -> Floats:
    """GELU by its tanh approximation: ``gelu_pytorch_tanh``."""
    inner = x * x
    inner *= np.float32(0.044715)
    inner += 1
    inner *= x
    inner *= np.float32(math.sqrt(2 / math.pi))
    np.tanh(inner, out=inner)
    inner += 1
    inner *= x
    inner *= np.float32(0.5)
    return inner


def gelu(x: Floats) -> Floats:
    """The exact GELU, ``x * Phi(x)``."""
    return (x * (0.5 + 0.5 * erf(x * math.sqrt(0.5)))).astype(np.float32)


# Rational approximation x P(x²) / Q(x²) on [-4, 4], beyond which erf is ±1 to
# within 2e-8: the coefficients of Eigen's and XLA's float erf, highest power
# first. In float64 its error is below 7e-8; in float32 rounding makes it 4e-7.
_ERF_P = (
    *(-2.72614225801306e-10, 2.77068142495902e-08, -2.10102402082508e-06),
    *(-5.69250639462346e-05, -7.34990630326855e-04, -2.95459980854025e-03),
    -1.60960333262415e-02,
)
_ERF_Q = (
    *(-1.45660718464996e-05, -2.13374055278905e-04, -1.68282697438203e-03),
    *(-7.37332916720468e-03, -1.42647390514189e-02),
)


def erf(x: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """The error function to 1e-7, which numpy does not have."""
    bounded: npt.NDArray[np.float64] = np.clip(x, -4.0, 4.0).astype(np.float64)
    square = bounded * bounded
    bounded *= np.polyval(_ERF_P, square)
    bounded /= np.polyval(_ERF_Q, square)
    return bounded


_ACTIVATIONS: dict[str, Callable[[Floats], Floats]] = {
    "gelu_pytorch_tanh": gelu_tanh,
    "gelu": gelu,
}
