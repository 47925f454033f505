"""GPTBigCode in torch: GPT-2 with multi-query attention.

Module names are the checkpoint's keys, so nothing is mapped: ``load_state_dict``
takes the tensors of a Hugging Face folder as they are (lm_head is wte, stored
once). Follows transformers' ``modeling_gpt_bigcode.py``; gives up padding masks
and cross-attention: rows of a batch have one length, and causal, within a document
or across all of a row, is all there is.

Attention is the device's: scaled-dot-product attention (flash on a GPU), and for a
mask of documents on a GPU FlexAttention, which computes only blocks that have places
to see. Either reads the one K and V head for all query heads; nothing is expanded.

Shapes: B batch, T new tokens, S tokens in the cache, D width, H heads, K key
and value heads (1 with multi-query), C head width, V vocabulary.
"""

import math
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention
from torch.utils.checkpoint import checkpoint

from ..errors import RequestError
from . import multi_query
from .config import ModelConfig


class KVCache:
    """Keys and values of one batch, ``[L, 2, B, K, capacity, C]``, and how many are filled."""

    def __init__(self, config: ModelConfig, batch: int, capacity: int, like: Tensor) -> None:
        self.length = 0
        self.capacity = capacity
        self._tensor = like.new_empty(
            config.n_layer, 2, batch, config.n_kv_head, capacity, config.head_dim
        )

    def append(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Stores ``[B, K, T, C]`` after the filled part; returns all S + T of both.

        ``length`` is left to the caller: every layer appends at the same place. No
        gradient passes through a cache: it is for inference.
        """
        end = self.length + key.shape[2]
        keys, values = self._tensor[layer, 0, :, :, :end], self._tensor[layer, 1, :, :, :end]
        keys[:, :, self.length :] = key.detach()
        values[:, :, self.length :] = value.detach()
        return keys, values

    def repeat(self, times: int) -> None:
        """Each text of the batch becomes ``times`` texts, one beside the other."""
        self._tensor = self._tensor.repeat_interleave(times, dim=2)


Mask = Tensor | BlockMask

# Of GELU's tanh approximation: twice sqrt(2 / pi), and that times 0.044715.
_GELU_FIRST = 2 * math.sqrt(2 / math.pi)
_GELU_THIRD = 0.044715 * _GELU_FIRST


@lru_cache
def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """FlexAttention's functions hold all scores, or a whole mask, if they are not compiled."""
    return torch.compile(function, dynamic=False)


def document_mask(documents: Tensor) -> Mask:
    """Which places of ``[B, T]`` each one sees: those up to itself with its number.

    A boolean mask ``[B, 1, T, T]`` on a CPU, on a GPU the blocks of one.
    """
    if documents.device.type == "cpu":
        return (documents[:, None, :, None] == documents[:, None, None, :]).tril()
    return block_mask(documents, _compiled(create_block_mask))


def block_mask(documents: Tensor, create: Callable[..., BlockMask]) -> BlockMask:
    """The mask of :func:`document_mask` for FlexAttention."""

    def sees(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:  # noqa: ARG001
        return (documents[batch, query] == documents[batch, key]) & (key <= query)

    rows, time = documents.shape
    return create(sees, rows, None, time, time, device=str(documents.device))


class Linear(nn.Linear):
    """A linear layer whose bias a compiler adds where the result is read.

    torch's own, on a CPU, copies the bias into the result's place before the product.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not torch.compiler.is_compiling():
            return super().forward(x)
        product = F.linear(x, self.weight)
        return (product.float() + self.bias).to(product.dtype)


class Attention(nn.Module):
    """Causal self-attention; with multi-query, K and V are one head wide."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.config, self.layer = config, layer
        self.c_attn = Linear(config.n_embd, config.n_embd + 2 * config.kv_dim)
        self.c_proj = Linear(config.n_embd, config.n_embd)

    def forward(self, x: Tensor, cache: KVCache | None = None, mask: Mask | None = None) -> Tensor:
        batch, time, width = x.shape
        query, key, value = self._heads(self.c_attn(x))
        past = 0
        if cache is not None:
            past = cache.length
            key, value = cache.append(self.layer, key, value)
        if past and time > 1:
            mask = torch.ones(time, past + time, dtype=torch.bool, device=x.device).tril(past)
        out = self._attend(query, key, value, mask, causal=not past)
        projected: Tensor = self.c_proj(out.transpose(1, 2).reshape(batch, time, width))
        return projected

    def _attend(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Mask | None, *, causal: bool
    ) -> Tensor:
        """``[B, H, T, C]``; without a mask, ``causal`` or all that is there."""
        # enable_gqa lets every query head read the one K and V head: nothing is expanded.
        if isinstance(mask, BlockMask):
            attend: Callable[..., Any] = flex_attention
            if not torch.compiler.is_compiling():
                attend = _compiled(flex_attention)
            out: Tensor = attend(
                query, key, value, block_mask=mask, enable_gqa=self.config.multi_query
            )
            return out
        dropout = self.config.attn_pdrop if self.training else 0.0
        if causal and mask is None and not dropout and multi_query.is_faster(query, key):
            return multi_query.attend(query, key, value)
        return F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=mask,
            # It aligns its triangle to the top left: right only where nothing came before.
            is_causal=causal and mask is None,
            dropout_p=dropout,
            enable_gqa=self.config.multi_query,
        )

    def _heads(self, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``[B, T, D + 2 K C]`` to Q ``[B, H, T, C]`` and K, V ``[B, K, T, C]``."""
        batch, time, _ = qkv.shape
        heads, head_dim = self.config.n_head, self.config.head_dim
        if self.config.multi_query:
            query, key, value = torch.split(qkv, [heads * head_dim, head_dim, head_dim], dim=-1)
            query = query.reshape(batch, time, heads, head_dim).transpose(1, 2)
            return query, key.unsqueeze(1), value.unsqueeze(1)
        # Without multi-query the rows of c_attn interleave: q, k, v of each head in turn.
        interleaved = qkv.reshape(batch, time, heads, 3 * head_dim).transpose(1, 2)
        query, key, value = torch.split(interleaved, head_dim, dim=-1)
        return query, key, value


def _gelu_tanh(x: Tensor) -> Tensor:
    """GELU by its tanh approximation, through the exponential alone.

    (1 + tanh y) / 2 is the logistic function of 2y, and a compiler for a CPU has a fast
    exponential, but a tanh that takes several times as long.
    """
    y = x.float()
    return (y * torch.sigmoid(y * (_GELU_FIRST + _GELU_THIRD * y * y))).to(x.dtype)


class MLP(nn.Module):
    """Two linear layers around a GELU, exact or by its tanh approximation."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.c_fc = Linear(config.n_embd, config.n_inner)
        self.c_proj = Linear(config.n_inner, config.n_embd)
        self.approximate = "none" if config.activation_function == "gelu" else "tanh"

    def forward(self, x: Tensor) -> Tensor:
        inner = self.c_fc(x)
        if self.approximate == "tanh" and torch.compiler.is_compiling():
            inner = _gelu_tanh(inner)
        else:
            inner = F.gelu(inner, approximate=self.approximate)
        projected: Tensor = self.c_proj(inner)
        return projected


class Block(nn.Module):
    """One pre-norm layer: ``x += attn(ln_1 x); x += mlp(ln_2 x)``.

    With ``recompute`` the backward pass computes it again from its input, which is then
    all that is kept of it.
    """

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
        self.attn = Attention(config, layer)
        self.ln_2 = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
        self.mlp = MLP(config)
        self.dropout = config.resid_pdrop
        self.recompute = False

    def forward(self, x: Tensor, cache: KVCache | None = None, mask: Mask | None = None) -> Tensor:
        if self.recompute and torch.is_grad_enabled():
            out: Tensor = checkpoint(self._layer, x, cache, mask, use_reentrant=False)
            return out
        return self._layer(x, cache, mask)

    def _layer(self, x: Tensor, cache: KVCache | None, mask: Mask | None) -> Tensor:
        x = x + F.dropout(self.attn(self.ln_1(x), cache, mask), self.dropout, self.training)
        return x + F.dropout(self.mlp(self.ln_2(x)), self.dropout, self.training)


class Transformer(nn.Module):
    """Embeddings, blocks and the last norm: everything but the logits."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.wpe = nn.Embedding(config.n_positions, config.n_embd)
        self.h = nn.ModuleList(Block(config, layer) for layer in range(config.n_layer))
        self.ln_f = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)

    def forward(
        self,
        ids: Tensor,
        cache: KVCache | None = None,
        documents: Tensor | None = None,
        first: int = 0,
    ) -> Tensor:
        """Hidden states ``[B, T, D]``; with ``documents [B, T]`` attention stays within one.

        Without a cache the ids stand at positions from ``first`` on.
        """
        past = first if cache is None else cache.length
        end = past + ids.shape[1]
        limit = self.config.n_positions if cache is None else cache.capacity
        if end > limit:
            raise RequestError(f"{end} tokens do not fit in {limit} positions")
        x = self.wte(ids) + self.wpe.weight[past:end]
        x = F.dropout(x, self.config.embd_pdrop, self.training)
        mask = None if documents is None else document_mask(documents)
        for block in self.h:
            x = block(x, cache, mask)
        if cache is not None:
            cache.length = end
        out: Tensor = self.ln_f(x)
        return out


class GPTBigCode(nn.Module):
    """The language model. ``forward`` maps ids ``[B, T]`` to logits ``[B, T, V]``."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.transformer = Transformer(config)

    def forward(self, ids: Tensor, cache: KVCache | None = None) -> Tensor:
        """Logits after each of ``ids``; with a cache, ids continue what it holds.

        Raises RequestError past the model's (or the cache's) last position.
        """
        return F.linear(self.transformer(ids, cache), self.transformer.wte.weight)

    def new_cache(self, batch: int = 1, capacity: int | None = None) -> KVCache:
        """An empty cache in the weights' dtype and device, for up to ``capacity`` positions."""
        limit = self.config.n_positions
        like = self.transformer.wte.weight
        return KVCache(self.config, batch, min(capacity or limit, limit), like)

    def initialize(self, seed: int, *, std: float) -> None:
        """Takes :meth:`initial_tensors` as weights."""
        self.load_state_dict(dict(self.initial_tensors(seed, std=std)))

    def initial_tensors(self, seed: int, *, std: float) -> Iterator[tuple[str, Tensor]]:
        """Draws weights N(0, std), biases 0, norms 1: one whole tensor after the other, on the CPU.

        The two projections into the residual stream are scaled by 1/√(2·n_layer)
        as GPT-2's.
        """
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in self.named_parameters():
            tensor = torch.zeros(parameter.shape)
            if "ln_" in name:
                tensor.fill_(1.0 if name.endswith("weight") else 0.0)
            elif not name.endswith("bias"):
                scale = 1 / math.sqrt(2 * self.config.n_layer) if "c_proj" in name else 1.0
                tensor.normal_(0.0, std * scale, generator=generator)
            yield name, tensor

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Every tensor as float32 on the CPU, by its checkpoint key."""
        return {k: v.detach().float().cpu().numpy() for k, v in self.state_dict().items()}
