"""Plain data between two sandboxes, as lines of JSON.

JSON and not pickle, since one side runs hostile code: whatever comes in is at
worst a wrong value. None, booleans, numbers, strings, bytes, lists, tuples,
sets and dictionaries arrive as the built-in types they are or derive from. It
gives up everything else: any other object stays where it is, and a number that
stands for it is sent; the other side can call it, iterate over it and hand it
back, and it equals nothing but itself.
"""

import json
import numbers
import sys
from collections.abc import Callable
from typing import Any, BinaryIO

MAX_LINE = 32 << 20

# JSON has no limit on digits; Fibonacci numbers are plain data too.
sys.set_int_max_str_digits(0)


class Channel:
    """One end. Raises EOFError once the other end is gone, ValueError for what is no message."""

    def __init__(self, reading: BinaryIO, writing: BinaryIO) -> None:
        self._reading, self._writing = reading, writing

    def send(self, message: dict[str, Any]) -> None:
        """Writes one message; EOFError where nobody reads any more."""
        try:
            self._writing.write(json.dumps(message).encode() + b"\n")
            self._writing.flush()
        except BrokenPipeError:
            raise EOFError from None

    def receive(self) -> dict[str, Any]:
        """The next message."""
        line = self._reading.readline(MAX_LINE)
        if not line:
            raise EOFError
        if not line.endswith(b"\n"):
            raise ValueError("a message that is too long, or half of one")
        message = json.loads(line)
        if not isinstance(message, dict):
            raise ValueError("a message that is no object")
        return message


def encode(value: Any, keep: Callable[[Any], int]) -> Any:
    """``value`` as JSON; ``keep`` numbers an object that is no plain data."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, bytes | bytearray):
        return {"bytes": bytes(value).hex()}
    if isinstance(value, list):
        return [encode(item, keep) for item in value]
    for kinds, name in (((tuple,), "tuple"), ((set, frozenset), "set")):
        if isinstance(value, kinds):
            return {name: [encode(item, keep) for item in value]}
    if isinstance(value, dict):
        return {"dict": [[encode(key, keep), encode(item, keep)] for key, item in value.items()]}
    return _encode_number(value, keep)


def _encode_number(value: Any, keep: Callable[[Any], int]) -> Any:
    # Those of numpy register as such.
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, float) or type(value).__name__ in {"float16", "float32"}:
        return float(value)
    if isinstance(value, complex):
        return {"complex": [value.real, value.imag]}
    return {"object": keep(value)}


def decode(value: Any, find: Callable[[int], Any]) -> Any:
    """The inverse of :func:`encode`; ``find`` gives what stands for a numbered object."""
    if isinstance(value, list):
        return [decode(item, find) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "object":
        return find(content)
    if kind == "bytes":
        return bytes.fromhex(content)
    if kind == "complex":
        return complex(*content)
    if kind == "dict":
        return {decode(key, find): decode(item, find) for key, item in content}
    return {"tuple": tuple, "set": set}[kind](decode(item, find) for item in content)
