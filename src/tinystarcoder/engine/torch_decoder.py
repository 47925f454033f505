"""The decoder in torch: a second oracle beside numpy's.

It runs ``model/gpt_bigcode.py``, the model that training has, behind the
decoder protocol, so that the tests hold both to one another. No command loads
it; in Python it decodes on a GPU, too. It gives up batching (slots of one call
run one after another, so that each gives the same bits as alone), CUDA graphs,
and small memory: a slot reserves its cache for the whole context.
"""

from collections.abc import Sequence
from itertools import count

import torch
from torch import Tensor
from torch.nn import functional as F

from ..model.checkpoint import Checkpoint
from ..model.config import ModelConfig
from ..model.gpt_bigcode import GPTBigCode, KVCache
from .decoder import Logits, check_batch, check_ids, check_length

# Tokens that pass through the network together.
CHUNK = 512


class _Cache(KVCache):
    """A slot: the cache of a batch of one."""

    def take(self, other: "_Cache") -> None:
        """Becomes a copy."""
        self.length = other.length
        filled = (..., slice(other.length), slice(None))
        self._tensor[filled] = other._tensor[filled]


class TorchDecoder:
    """A checkpoint on a device. Implements :class:`~.decoder.Decoder`.

    ``device`` and ``dtype`` are torch's: ``"cuda"``, ``torch.bfloat16``. Logits
    come back as float32 on the CPU.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.config: ModelConfig = checkpoint.config
        with torch.device("meta"):  # No weights yet, so none twice.
            self._model = GPTBigCode(self.config).eval()
        # One after another to the device: never all of them in float32.
        tensors = {
            name: torch.tensor(checkpoint.tensor(name), dtype=dtype, device=device)
            for name in checkpoint.names
        }
        self._model.load_state_dict(tensors, assign=True)
        self._like = self._model.transformer.wte.weight.detach()
        self._slots: dict[int, _Cache] = {}
        self._numbers = count()

    def allocate(self) -> int:
        number = next(self._numbers)
        self._slots[number] = _Cache(self.config, 1, self.config.n_positions, self._like)
        return number

    def release(self, slot: int) -> None:
        del self._slots[slot]

    def length(self, slot: int) -> int:
        return self._slots[slot].length

    def truncate(self, slot: int, length: int) -> None:
        check_length(self._slots[slot].length, length)
        self._slots[slot].length = length

    def copy(self, source: int, target: int) -> None:
        self._slots[target].take(self._slots[source])

    @torch.inference_mode()
    def extend(self, slot: int, ids: Sequence[int], *, all_logits: bool = False) -> Logits:
        cache = self._slots[slot]
        check_ids(self.config, cache.length, ids)
        rows: list[Tensor] = []
        for start in range(0, len(ids), CHUNK):
            chunk = torch.tensor([ids[start : start + CHUNK]], device=self._like.device)
            hidden = self._model.transformer(chunk, cache)[0]
            if all_logits:
                rows.append(F.linear(hidden, self._like).float().cpu())
        if all_logits:
            every: Logits = torch.cat(rows).numpy()
            return every
        last: Logits = F.linear(hidden[-1], self._like).float().cpu().numpy()
        return last

    def extend_batch(
        self, requests: Sequence[tuple[int, Sequence[int]]], *, all_logits: bool = False
    ) -> list[Logits]:
        check_batch(self.config, requests, self.length)
        return [self.extend(slot, ids, all_logits=all_logits) for slot, ids in requests]
