"""From what the model wrote to what is shown: a chain of small filters.

Each takes a suggestion and its request and returns a suggestion, so that the
list ``FILTERS``, at the end, is all there is to read. Special tokens are no
subject here: generation never lets one out. It gives up mending: text is only
ever cut.
"""

from collections.abc import Callable
from dataclasses import replace
from itertools import accumulate

from .doubt import certain_part
from .request import CompletionRequest, Suggestion
from .syntax import scan, scan_prefix

Filter = Callable[[Suggestion, CompletionRequest], Suggestion]

# A circle is what stands so many times in a row, over so many characters.
_TURNS = 3
_CIRCLE = 12
# Blocks of so many lines are found to be repeated.
_REPEATED = range(2, 9)
# How far behind the cursor brackets are looked for, in characters.
_AHEAD = 2000

# What is less likely to be right is withheld. Chosen on data: docs/log.md.
MIN_PROBABILITY = 0.1


def circle(suggestion: Suggestion, _: CompletionRequest) -> Suggestion:
    """Where a limit ended a text that went round in a circle, one turn is kept."""
    text = suggestion.text
    if _was_cut_off(suggestion):
        for size in range(1, len(text) // _TURNS + 1):
            kept = text
            while kept.endswith(text[-size:]):
                kept = kept[:-size]
            if len(text) - len(kept) >= max(_CIRCLE, _TURNS * size):
                return replace(suggestion, text=text[: len(kept) + size])
    return suggestion


def incomplete_last_line(suggestion: Suggestion, _: CompletionRequest) -> Suggestion:
    """Where a limit ended the text, whole lines are kept; a first line is, as far as it got."""
    lines, newline, _last = suggestion.text.rpartition("\n")
    if _was_cut_off(suggestion) and newline:
        return replace(suggestion, text=lines)
    return suggestion


def repeated_lines(suggestion: Suggestion, request: CompletionRequest) -> Suggestion:
    """A block of lines that follows itself is kept once."""
    head = request.prefix[request.prefix.rfind("\n") + 1 :]
    lines = (head + suggestion.text).splitlines(keepends=True)
    offsets = [0, *accumulate(map(len, lines))]
    for end in range(2 * _REPEATED.start, len(lines) + 1):
        for size in _REPEATED:
            block = lines[end - size : end]
            repeats = size * 2 <= end and _same(block, lines[end - 2 * size : end - size])
            if repeats and _has_word("".join(block)):
                return replace(suggestion, text=suggestion.text[: offsets[end - size] - len(head)])
    return suggestion


def _same(block: list[str], above: list[str]) -> bool:
    return [line.rstrip() for line in block] == [line.rstrip() for line in above]


def suffix_overlap(suggestion: Suggestion, request: CompletionRequest) -> Suggestion:
    """What already stands behind the cursor is not written again.

    That is the rest of the cursor's line, or its beginning, at the end of the
    text; and the next line with text, from where the suggestion arrives at it.
    """
    text = suggestion.text
    rest, _, below = request.suffix.partition("\n")
    next_line, offset = _first_line(below), 0
    for number, line in enumerate(text.splitlines(keepends=True)):
        if number and _has_word(line) and line.rstrip() == next_line:
            return replace(suggestion, text=text[:offset].rstrip())
        offset += len(line)
    rest = rest.rstrip()
    for size in range(min(len(rest), len(text)), 0, -1):
        if text.endswith(rest[:size]) and _has_word(rest[:size]):
            return replace(suggestion, text=text[:-size])
    return suggestion


def closing_quote(suggestion: Suggestion, request: CompletionRequest) -> Suggestion:
    """Inside a string that is closed behind the cursor, the text ends before its own quote."""
    head = _statement(request.prefix)
    around = scan(head + suggestion.text).string_at(len(head))
    if around is None or not around.closed or not request.suffix.startswith(around.quote):
        return suggestion
    inner = around.stop - len(around.quote) - len(head)
    return replace(suggestion, text=suggestion.text[:inner])


def closing_brackets(suggestion: Suggestion, request: CompletionRequest) -> Suggestion:
    """Brackets that are closed behind the cursor are not closed twice.

    The text ends before the first closing bracket that would be one too many.
    """
    head = _statement(request.prefix)
    to_close = len(scan(head).open)
    spare = max(0, to_close - len(scan(request.suffix[:_AHEAD]).unmatched))
    pairs = scan(head + suggestion.text).pairs
    closing = [stop - len(head) for start, stop in pairs if start < len(head) <= stop]
    if to_close == spare or len(closing) <= spare:
        return suggestion
    return replace(suggestion, text=suggestion.text[: closing[spare]])


def trailing_whitespace(suggestion: Suggestion, request: CompletionRequest) -> Suggestion:
    """Nothing invisible at the end, where the line behind the cursor has no more text."""
    if request.suffix.partition("\n")[0].strip():
        return suggestion
    return replace(suggestion, text=suggestion.text.rstrip())


def _was_cut_off(suggestion: Suggestion) -> bool:
    return suggestion.finish in ("length", "deadline")


def _has_word(text: str) -> bool:
    return any(map(str.isalnum, text))


def _first_line(text: str) -> str:
    """The first line with text in it."""
    return text.lstrip("\r\n").partition("\n")[0].rstrip()


def _statement(prefix: str) -> str:
    """The logical line up to the cursor."""
    return prefix[scan_prefix(prefix).lines[-1] :]


FILTERS: tuple[Filter, ...] = (
    circle,
    incomplete_last_line,
    repeated_lines,
    suffix_overlap,
    closing_quote,
    closing_brackets,
    trailing_whitespace,
)


def postprocess(
    suggestion: Suggestion, request: CompletionRequest, min_probability: float = MIN_PROBABILITY
) -> Suggestion:
    """What is shown of a written text: :func:`filtered`, then :func:`shown`."""
    return shown(filtered(suggestion, request), min_probability)


def filtered(suggestion: Suggestion, request: CompletionRequest) -> Suggestion:
    """The suggestion after all filters."""
    for chosen in FILTERS:
        suggestion = chosen(suggestion, request)
    return suggestion


def shown(suggestion: Suggestion, min_probability: float = MIN_PROBABILITY) -> Suggestion:
    """Its part before the point of doubt; without text where it is hardly right."""
    part = certain_part(suggestion)
    return part if part.probability >= min_probability else replace(part, text="")
