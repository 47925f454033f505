"""Suggestions already made: typing into one, and taking that back, needs no model."""

from collections import OrderedDict
from dataclasses import replace
from threading import Lock

from .request import CompletionRequest, Cost, Suggestion

CAPACITY = 64


class SuggestionCache:
    """The last suggestions, by their requests. Safe to share between threads.

    Every place inside a suggestion has the rest of it for a suggestion, as
    long as the text behind the cursor and the options are the same. The end of
    one has none: there the model is asked for what comes next. Who types into
    one keeps it, whatever other files have come to say meanwhile; at its first
    place, other snippets ask anew.
    """

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._known: OrderedDict[CompletionRequest, Suggestion] = OrderedDict()
        self._lock = Lock()

    def store(self, request: CompletionRequest, suggestion: Suggestion) -> None:
        """Keeps a suggestion, and forgets the one unused for longest beyond the capacity."""
        with self._lock:
            self._known[request] = replace(suggestion, cost=Cost())
            self._known.move_to_end(request)
            if len(self._known) > self._capacity:
                self._known.popitem(last=False)

    def find(self, request: CompletionRequest) -> Suggestion | None:
        """The rest of a known suggestion that the request's cursor stands in; the latest."""
        with self._lock:
            for known, suggestion in reversed(self._known.items()):
                typed = _typed(known, suggestion.text, request)
                if typed is not None:
                    self._known.move_to_end(known)
                    return suggestion.after(typed)
        return None


def _typed(known: CompletionRequest, text: str, request: CompletionRequest) -> int | None:
    """How much of a known text the request's prefix holds; None where it is another place."""
    typed = len(request.prefix) - len(known.prefix)
    if not 0 <= typed <= len(text) or (typed == 0 and known.snippets != request.snippets):
        return None
    if replace(known, prefix=request.prefix, snippets=request.snippets) != request:
        return None
    if request.prefix != known.prefix + text[:typed]:
        return None
    return typed if typed < len(text) or typed == 0 else None
