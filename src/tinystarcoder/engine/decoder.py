"""What every decoder offers: slots that token ids are appended to, and logits.

A slot is one sequence and its KV cache. Generation, speculation and the prefix
cache are written against this protocol alone, so that numpy, torch and native
decoders are exchanged without a change above. One call extends one slot, or
several in one pass.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ..errors import RequestError
from ..model.config import ModelConfig

Logits = npt.NDArray[np.float32]


class Decoder(Protocol):
    """One loaded model and its slots. Not thread-safe: one thread owns it."""

    @property
    def config(self) -> ModelConfig: ...

    def allocate(self) -> int:
        """A new, empty slot."""
        ...

    def release(self, slot: int) -> None:
        """Frees a slot; its number may be given out again."""
        ...

    def length(self, slot: int) -> int:
        """Tokens that the slot holds."""
        ...

    def extend(self, slot: int, ids: Sequence[int], *, all_logits: bool = False) -> Logits:
        """Appends ids and returns what follows them, before any softmax.

        ``[V]`` for the last position, or ``[len(ids), V]`` with ``all_logits``.
        Raises RequestError, the slot unchanged, where :func:`check_ids` does.
        """
        ...

    def extend_batch(
        self, requests: Sequence[tuple[int, Sequence[int]]], *, all_logits: bool = False
    ) -> list[Logits]:
        """Extends several slots in one pass; each result is, bit for bit, :meth:`extend`'s.

        ``requests`` are pairs of a slot and its ids, of any lengths. Raises
        RequestError, every slot unchanged, where :func:`check_batch` does.
        """
        ...

    def truncate(self, slot: int, length: int) -> None:
        """Forgets all but the first ``length`` tokens. RequestError if the slot has fewer."""
        ...

    def copy(self, source: int, target: int) -> None:
        """Makes ``target`` hold what ``source`` holds; from then on they part."""
        ...


def check_ids(config: ModelConfig, length: int, ids: Sequence[int]) -> None:
    """Raises RequestError for ids that a slot of ``length`` tokens cannot be extended by.

    That is none at all, an id outside the vocabulary, or more than the context holds.
    """
    if not ids:
        raise RequestError("no tokens: a sequence needs at least one id to be continued")
    if length + len(ids) > config.n_positions:
        raise RequestError(
            f"{length + len(ids)} tokens do not fit this model's context of "
            f"{config.n_positions}; shorten the prompt or ask for fewer tokens"
        )
    for token_id in (min(ids), max(ids)):
        if not 0 <= token_id < config.vocab_size:
            raise RequestError(
                f"token id {token_id} is outside the vocabulary of {config.vocab_size} ids"
            )


def check_batch(
    config: ModelConfig,
    requests: Sequence[tuple[int, Sequence[int]]],
    length_of: Callable[[int], int],
) -> None:
    """Raises RequestError for a slot named twice, or ids that one cannot be extended by."""
    if len({slot for slot, _ in requests}) < len(requests):
        raise RequestError("a slot is named twice in one pass: join its ids")
    for slot, ids in requests:
        check_ids(config, length_of(slot), ids)


def check_length(current: int, length: int) -> None:
    """Raises RequestError where a slot of ``current`` tokens cannot be cut to ``length``."""
    if not 0 <= length <= current:
        raise RequestError(f"a slot of {current} tokens cannot be truncated to {length}")
