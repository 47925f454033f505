"""How much of a suggestion is shown: what is likely to be right, up to the point of doubt.

A suggestion that is right saves its characters less the key that accepts it; one
that is wrong at its end saves nothing, however right its beginning was. What
is left out is not lost: once the first part is accepted, it is the next
suggestion. So a text is cut into parts, each accepted by one key, for which the
model's own probabilities promise the most saved keys; the first part is shown.
Where the model is sure, that is the whole text.

Parts end where words end, since half a name is worse to read than none. It gives
up what a reader's time is worth: a part that is probably wrong is shown like any
other, unless ``min_probability`` withholds it.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

from .request import Suggestion

# What accepting costs, in keys.
_KEY = 1
# Ends less likely to be reached than this are not looked at.
_LEAST = 0.01

# Where a part may end, and the natural log-probability that all of the text up to there is right.
End = tuple[int, float]


def certain_part(suggestion: Suggestion) -> Suggestion:
    """The suggestion, cut where it promises to save most keys; whole where nothing doubts."""
    found = ends(suggestion)
    return replace(suggestion, text=suggestion.text[: first_part(found)]) if found else suggestion


def ends(suggestion: Suggestion, *, torn: bool = False) -> list[End]:
    """The ends of the text's words that are ends of tokens too, and its own end.

    ``torn``: the ends of all tokens, inside of words too.
    """
    text, total, found = suggestion.text, 0.0, list[End]()
    for score in suggestion.shown_scores:
        total += score.logprob
        stop = min(score.stop, len(text))
        if found and found[-1][0] == stop:
            found.pop()  # Half a character showed nothing; the next token made it whole.
        if stop == len(text) or _ends_word(text, stop, torn=torn):
            found.append((stop, total))
    return found


def _ends_word(text: str, stop: int, *, torn: bool) -> bool:
    """Whether a reader would see nothing torn before ``stop``, nor blanks at the end."""
    if not stop or text[stop - 1].isspace():
        return False
    return torn or not (_is_of_name(text[stop - 1]) and _is_of_name(text[stop]))


def _is_of_name(character: str) -> bool:
    return character.isalnum() or character == "_"


def first_part(ends: Sequence[End]) -> int:
    """Where the first of the best parts ends, in characters."""
    places = [(0, 0.0), *ends]
    # Backwards: what each place promises from there on, and which end is the best one then.
    promised, best = [0.0] * len(places), [len(places) - 1] * len(places)
    for here in range(len(places) - 2, -1, -1):
        start, known = places[here]
        for there in range(here + 1, len(places)):
            stop, logprob = places[there]
            probability = math.exp(logprob - known)
            if probability < _LEAST and there > here + 1:
                break
            value = probability * (stop - start - _KEY + promised[there])
            if value >= promised[here]:
                promised[here], best[here] = value, there
    return places[best[0]][0]
