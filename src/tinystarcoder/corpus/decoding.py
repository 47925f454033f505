"""Bytes of a file to text that every later stage can take; or the reason why not."""

import io
import re
import tokenize

from ..fim import with_lf

_SURROGATE = re.compile("[\ud800-\udfff]")


class SetAside(Exception):  # noqa: N818 - a verdict, not an error
    """One file cannot be used; the message is the reason that is counted."""


def decode(data: bytes) -> str:
    """The text of a Python file by its coding cookie (PEP 263), line ends as ``\\n``.

    Raises SetAside for NUL bytes, an unknown encoding, and bytes that it cannot read.
    """
    if b"\0" in data:
        raise SetAside("NUL bytes")
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
        text = data.decode(encoding)
    except (SyntaxError, LookupError, ValueError) as error:
        raise SetAside("wrong encoding") from error
    return normalized(text)


def mended(name: str) -> str:
    """A name with U+FFFD for lone surrogates: bytes that were no UTF-8, or JSON's escapes."""
    return _SURROGATE.sub("\ufffd", name)


def normalized(text: str) -> str:
    """The text with ``\\n`` line ends.

    Raises SetAside for NUL, which some codecs make of other bytes and JSON can
    spell, and for lone surrogates, which no UTF-8 file can hold.
    """
    if "\0" in text:
        raise SetAside("NUL bytes")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise SetAside("wrong encoding") from error
    return with_lf(text)
