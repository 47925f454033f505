"""Parts of a suggestion that a person takes: the next word, or the next line."""

import re

# Blanks and one word, or blanks and a run of signs: what Ctrl-Right steps over.
_WORD = re.compile(r"\s*(?:\w+|[^\w\s]+)|\s+")

_LINE_BREAK = re.compile(r"\r?\n")


def first_word(text: str) -> str:
    """The text up to the end of its first word; all of it is the words, joined."""
    found = _WORD.match(text)
    return found[0] if found else ""


def first_line(text: str) -> str:
    """The text up to the end of its first line with something on it, without the line break."""
    found = _LINE_BREAK.search(text, len(text) - len(text.lstrip("\r\n")))
    return text[: found.start()] if found else text
