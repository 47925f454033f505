"""Any causal model of Hugging Face's, run by transformers: the peer that users would compare with.

For bits-per-byte it is a decoder like ours, its KV cache cropped where a slot is
truncated. It gives up speed: one sequence at a time, in the checkpoint's dtype.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache

from ... import fim
from ...engine.decoder import Logits, check_length
from ...errors import EvaluationError, RequestError
from ...model.config import ModelConfig
from ..generators import Ask, Written

# Prefix, middle, suffix and pad of the families that infill.
_SPELLINGS = (
    *fim.SPELLINGS,
    ("<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>"),
)


class TransformersModel:
    """A folder or hub id. Raises EvaluationError where transformers cannot load it."""

    def __init__(self, name: str, order: fim.Order = "spm") -> None:
        self._order = order
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(name)
            model: Any = AutoModelForCausalLM.from_pretrained(name, dtype="auto")
        # Whatever its many loaders raise.
        except Exception as error:
            raise EvaluationError(f"{name}: transformers cannot load it: {error}") from error
        self._model = model.eval()
        self.tokenizer = PeerTokenizer(self._tokenizer)
        self.decoder = TransformersDecoder(self._model)
        # Any special token ends a text, as here: what it would begin is no continuation.
        added = self._tokenizer.added_tokens_decoder.items()
        special = {token_id for token_id, token in added if token.special}
        self._ends = sorted({self.tokenizer.eos_id} | special)

    def generate(self, asked: Iterable[Ask]) -> Iterator[list[Written]]:
        return map(self._write, asked)

    @torch.inference_mode()
    def _write(self, ask: Ask) -> list[Written]:
        options = ask.options
        ids = self._prompt(ask)[-(self.decoder.positions - options.max_tokens) :]
        settings: dict[str, Any] = {"do_sample": False}
        if options.temperature:
            torch.manual_seed(options.seed or 0)
            settings = {
                "do_sample": True,
                "temperature": options.temperature,
                "top_p": options.top_p,
                "num_return_sequences": ask.number,
            }
        if options.stop:
            settings |= {"stop_strings": list(options.stop), "tokenizer": self._tokenizer}
        prompt = torch.tensor([ids])
        written = self._model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=options.max_tokens,
            eos_token_id=self._ends,
            pad_token_id=self.tokenizer.eos_id,
            **settings,
        )[:, len(ids) :].tolist()
        ends = set(self._ends)
        texts = [
            # What is shorter than the longest is filled up with ends.
            Written(text, len(found) < options.max_tokens or not ends.isdisjoint(found))
            for text, found in zip(self._decode(written), written, strict=True)
        ]
        return texts if options.temperature else texts * ask.number

    def _decode(self, written: list[list[int]]) -> list[str]:
        texts: list[str] = self._tokenizer.batch_decode(written, skip_special_tokens=True)
        return texts

    def _prompt(self, ask: Ask) -> list[int]:
        if ask.suffix is None:
            return self.tokenizer.encode(ask.prefix) or [self.tokenizer.eos_id]
        tokens = self.tokenizer.fim
        if tokens is None:
            raise RequestError("this model cannot infill: its vocabulary has no FIM tokens")
        before, after = self.tokenizer.encode(ask.prefix), self.tokenizer.encode(ask.suffix)
        return fim.prompt(before, after, tokens, self._order)


class PeerTokenizer:
    """As much of :class:`~tinystarcoder.tokenizer.Tokenizer` as scoring needs."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self.eos_id: int = backend.eos_token_id
        vocabulary = backend.get_vocab()
        found = [[vocabulary.get(token) for token in spelling] for spelling in _SPELLINGS]
        whole = [ids for ids in found if None not in ids]
        self.fim = fim.FimTokens(**_named(whole[0])) if whole else None

    def encode(self, text: str) -> list[int]:
        """Ids of a text; special tokens in it are not parsed."""
        ids: list[int] = self._backend.encode(
            text, add_special_tokens=False, split_special_tokens=True
        )
        return ids


def _named(ids: Sequence[int]) -> dict[str, int]:
    return dict(zip(("prefix", "middle", "suffix", "pad"), ids, strict=True))


class TransformersDecoder:
    """The part of the decoder protocol that scoring uses, over a model's own cache."""

    def __init__(self, model: Any) -> None:
        self._model = model
        config = model.config
        self.positions: int = getattr(config, "max_position_embeddings", None) or config.n_positions
        self.config = ModelConfig(vocab_size=config.vocab_size, n_positions=self.positions)
        self._caches: dict[int, Any] = {}

    def allocate(self) -> int:
        slot = len(self._caches)
        self._caches[slot] = DynamicCache(config=self._model.config)
        return slot

    def length(self, slot: int) -> int:
        return int(self._caches[slot].get_seq_length())

    def truncate(self, slot: int, length: int) -> None:
        check_length(self.length(slot), length)
        if length:
            self._caches[slot].crop(length)
        else:
            self._caches[slot] = DynamicCache(config=self._model.config)

    @torch.inference_mode()
    def extend(self, slot: int, ids: Sequence[int], *, all_logits: bool = False) -> Logits:
        done = self._model(
            torch.tensor([list(ids)]), past_key_values=self._caches[slot], use_cache=True
        )
        logits: Logits = done.logits[0].float().numpy()
        return logits if all_logits else logits[-1]
