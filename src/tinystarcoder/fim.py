"""Fill-in-the-middle: the one format that training writes and completion reads.

A document is cut at two characters into prefix, middle and suffix; the parts
are tokenized apart (a cursor rarely stands at a token boundary, so the model
must learn cuts inside tokens) and put in one of two orders, BigCode's:

    PSM   <fim_prefix> prefix <fim_suffix> suffix <fim_middle> middle
    SPM   <fim_prefix> <fim_suffix> suffix <fim_middle> prefix middle

A prompt is the same sequence without its middle. SPM gives up the boundary
between prefix and middle, and buys that a keystroke only appends. Lines end in
LF, whatever they end in on disk: so corpora are read, and so a prompt must be.
Source: bigcode Megatron-LM, ``megatron/data/gpt_dataset.py``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal

Order = Literal["psm", "spm"]


@dataclass(frozen=True)
class FimTokens:
    """Ids of the four sentinels in one vocabulary."""

    prefix: int
    middle: int
    suffix: int
    pad: int


# StarCoder spells the sentinels with underscores, SantaCoder with hyphens.
SPELLINGS = (
    ("<fim_prefix>", "<fim_middle>", "<fim_suffix>", "<fim_pad>"),
    ("<fim-prefix>", "<fim-middle>", "<fim-suffix>", "<fim-pad>"),
)

# Sentinels that one permuted document adds to its own tokens.
SENTINELS = 3


def with_lf(text: str) -> str:
    """The text as training reads it: CRLF, and a CR alone, are LF."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def line_break(prefix: str, suffix: str) -> str:
    """What ends a line at a cursor, CRLF or LF: of a mixed document, as the line above does.

    Where no line stands above, as the cursor's own does.
    """
    text, at = (prefix, prefix.rfind("\n")) if "\n" in prefix else (suffix, suffix.find("\n"))
    return "\r\n" if at > 0 and text[at - 1] == "\r" else "\n"


def draw_cuts(length: int, rng: Random) -> tuple[int, int]:
    """Two ordered cut points, uniform over the ``length + 1`` places between characters."""
    first, second = rng.randint(0, length), rng.randint(0, length)
    return min(first, second), max(first, second)


def draw_line_cuts(text: str, rng: Random) -> tuple[int, int]:
    """A cut anywhere, and one at a line's end: of the same line, half as often of each next.

    The holes that an editor asks to fill; where all middles end anywhere, at no
    character is their end what a model expects most.
    """
    start = rng.randint(0, len(text))
    end = _line_end(text, start)
    while end < len(text) and rng.random() < 0.5:
        end = _line_end(text, end + 1)
    return start, end


def _line_end(text: str, at: int) -> int:
    """Where the line that ``at`` lies in has its newline, or the text its end."""
    found = text.find("\n", at)
    return len(text) if found < 0 else found


def prompt(
    prefix: Sequence[int], suffix: Sequence[int], tokens: FimTokens, order: Order = "spm"
) -> list[int]:
    """The ids after which the model writes the middle."""
    if order == "psm":
        return [tokens.prefix, *prefix, tokens.suffix, *suffix, tokens.middle]
    return [tokens.prefix, tokens.suffix, *suffix, tokens.middle, *prefix]


def permute(
    text: str,
    cuts: tuple[int, int],
    encode: Callable[[str], list[int]],
    tokens: FimTokens,
    order: Order = "spm",
) -> list[int]:
    """Ids of ``text`` with the characters between ``cuts`` moved to the end."""
    start, end = cuts
    return [
        *prompt(encode(text[:start]), encode(text[end:]), tokens, order),
        *encode(text[start:end]),
    ]


def unpermute(ids: Sequence[int], decode: Callable[[Sequence[int]], str], tokens: FimTokens) -> str:
    """The document that :func:`permute` took apart. The inverse, for either order.

    Raises ValueError where the sentinels are missing or out of order.
    """
    ids = list(ids)
    if tokens.prefix not in ids[:1]:
        raise ValueError("a FIM sequence begins with the prefix sentinel")
    suffix_at, middle_at = ids.index(tokens.suffix), ids.index(tokens.middle)
    if suffix_at > middle_at:
        raise ValueError("the suffix sentinel must stand before the middle sentinel")
    prefix, suffix = ids[1:suffix_at], ids[suffix_at + 1 : middle_at]
    # In SPM order the prefix part is empty here: it stands with the middle.
    return decode(prefix) + decode(ids[middle_at + 1 :]) + decode(suffix)
