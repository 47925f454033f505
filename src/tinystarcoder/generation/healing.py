"""Token healing: a prompt that ends inside a token goes on as if it did not.

``def f():`` and a line break end in a token for the break alone, but in all that
the model has read, the break and the next line's indentation are one token. So
after a lone break it expects anything but an indented line. Healing takes the
prompt's last token back and lets the model write it again: its first tokens are
limited to those that spell the same characters, and may go beyond them.

So it is with a hole in SPM order, whose prompt ends in the prefix as well: training
has cut it at any character, a line's beginning not more often than another, and
nothing tells the model that there was a cut. In PSM order a sentinel stands
between, and nothing is healed.

It gives up a probability for what is written again: that of its tokens is of the
model's free choice, which the prompt has already taken.
"""

from collections.abc import Sequence

import numpy as np

from ..engine.decoder import Logits
from ..tokenizer import Tokenizer


class Healing:
    """Limits the first tokens of a text to those that spell ``beginning``."""

    def __init__(self, tokenizer: Tokenizer, beginning: str) -> None:
        self._vocabulary = tokenizer.vocabulary
        self._left = beginning.encode()

    def mask(self, logits: Logits) -> Logits:
        """The ``[V]`` logits, minus infinity for what does not fit the beginning."""
        if not self._left:
            return logits
        fitting = [
            token_id
            for token_id, spelled in enumerate(self._vocabulary[: len(logits)])
            if spelled and (spelled.startswith(self._left) or self._left.startswith(spelled))
        ]
        masked = np.full_like(logits, -np.inf)
        masked[fitting] = logits[fitting]
        return masked

    def accept(self, token_id: int) -> None:
        """Tells which token was chosen."""
        if not self._left:
            return  # Any may follow, also one of the padding that the tokenizer does not know.
        self._left = self._left[len(self._vocabulary[token_id]) :]


def take_back(tokenizer: Tokenizer, ids: Sequence[int]) -> tuple[list[int], str]:
    """A prompt without its last token, and that token's text.

    The prompt itself and no text where it is empty, or ends in a special token or
    inside a character. Of a prompt of one token, what a document begins with is
    left: end-of-text.
    """
    if not ids:
        return [], ""
    try:
        last = tokenizer.token_bytes(ids[-1]).decode()
    except UnicodeDecodeError:
        last = ""
    if not last:
        return list(ids), ""
    return list(ids[:-1]) or [tokenizer.eos_id], last
