"""A cache of n-grams: what followed the last few characters where they stood before.

A small model knows Python better than it knows this file. So its distribution
is mixed with others, of the open file and of its snippets: of the tokens that
follow the last 2 characters there, the last 4, and so on. A context counts by its
length, the model as one of 60 characters; where nothing stood before, the model
alone decides.

Contexts are characters, not tokens, since a cursor inside a word tears tokens.
It gives up whatever is further away than a few dozen places, and exact texts:
only suggestions are mixed.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from itertools import islice

import numpy as np

from ..engine.decoder import Logits
from ..generation.sampling import log_normalizer
from ..tokenizer import Tokenizer
from .request import CompletionRequest

# Characters of context. How they and the weight were chosen, and how little hangs on it:
# docs/log.md.
LENGTHS = (2, 4, 8, 16, 32)
# A context of so many characters weighs as much as the model.
MODEL = 60
# Places of one length that are looked at in one text, the nearest first.
PLACES = 32
# Characters that a follower is read from; it is one token, which is seldom longer.
_AHEAD = 24
# Characters of a long file on either side of the cursor.
_REACH = 20_000


class NgramCache:
    """What one request's texts say of its next tokens: a Mixture."""

    def __init__(
        self, tokenizer: Tokenizer, request: CompletionRequest, beginning: str = ""
    ) -> None:
        """``beginning``: the end of the prefix that is written again, see healing."""
        self._before = request.prefix[-_REACH:]
        others = (snippet.text for snippet in request.snippets)
        self._after = (request.suffix[:_REACH], *others)
        self._tail = self._before.removesuffix(beginning)[-LENGTHS[-1] :]
        self._written = tokenizer.stream()
        self._known: int | None = None  # Ids that the tail has seen.
        self._first = partial(_first, tokenizer)

    def mix(self, logits: Logits, ids: Sequence[int]) -> Logits:
        """The ``[V]`` logits behind ``ids``, mixed. To be called for each token in turn."""
        for id_ in ids[len(ids) if self._known is None else self._known :]:
            self._tail = (self._tail + self._written.feed(id_))[-LENGTHS[-1] :]
        self._known = len(ids)
        votes = self.votes()
        if not votes:
            return logits
        chosen = np.fromiter(votes, np.intp, len(votes))
        worth = np.log(np.fromiter(votes.values(), np.float32, len(votes)))
        mixed = logits.copy()
        mixed[chosen] = np.logaddexp(logits[chosen], worth + np.float32(log_normalizer(logits)))
        return mixed

    def votes(self) -> dict[int, float]:
        """Ids that followed, each with its weight; the model's is 1."""
        found: dict[int, float] = {}
        for length in LENGTHS:
            if len(self._tail) < length:
                break
            followers = Counter(self._followers(self._tail[-length:]))
            for id_, count in followers.items():
                share = count / followers.total()
                found[id_] = found.get(id_, 0.0) + share * length / MODEL
            if not followers:
                break  # What a short context has not, a longer one has not either.
        return found

    def _followers(self, context: str) -> Iterator[int]:
        for text, places in (
            (self._before, _backwards(self._before, context)),
            *((text, _forwards(text, context)) for text in self._after),
        ):
            for place in islice(places, PLACES):
                if place + _AHEAD <= len(text):  # Else what follows may be torn.
                    yield self._first(text[place : place + _AHEAD])


@lru_cache(maxsize=1 << 14)  # From key to key, the same texts follow: encoding them is most of it.
def _first(tokenizer: Tokenizer, text: str) -> int:
    return tokenizer.encode(text)[0]


def _backwards(text: str, context: str) -> Iterator[int]:
    """The ends of the context's places, the last first."""
    end = len(text)
    while (at := text.rfind(context, 0, end)) >= 0:
        yield at + len(context)
        end = at + len(context) - 1


def _forwards(text: str, context: str) -> Iterator[int]:
    """The ends of the context's places, the first first."""
    at = -1
    while (at := text.find(context, at + 1)) >= 0:
        yield at + len(context)
