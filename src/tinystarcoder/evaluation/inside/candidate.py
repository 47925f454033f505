"""The sandbox of the code under test: loads it, and answers calls to what it defines.

The tests are elsewhere: this process never sees them, nor the verdict. All that
hostile code can do here is answer, and answer wrong, or fall silent.
"""

import os
import sys
from types import ModuleType
from typing import Any

from . import limits
from .channel import Channel, decode, encode


def main() -> None:
    """``candidate CPU_SECONDS MEMORY``, the channel on standard input and output."""
    channel = Channel(os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb"))
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    limits.apply(int(sys.argv[1]), int(sys.argv[2]))
    candidate = _Candidate()
    while True:
        try:
            request = channel.receive()
        except EOFError:
            return
        # Whatever it raises, SystemExit too, is an answer.
        try:
            reply = {"value": candidate.answer(request)}
        except BaseException as error:
            reply = {"error": [type(error).__name__, _message(error)]}
        channel.send(reply)


def _message(error: BaseException) -> str:
    try:
        return str(error)[:300]
    except BaseException:
        return ""


class _Candidate:
    def __init__(self) -> None:
        self._module = ModuleType("solution")
        self._kept: list[Any] = []

    def answer(self, request: dict[str, Any]) -> Any:
        if "load" in request:
            # Where dataclasses and pickle look a class's module up.
            sys.modules["solution"] = self._module
            exec(compile(request["load"], "<solution>", "exec"), vars(self._module))
            return None
        if "get" in request:
            return self._encode(getattr(self._module, request["get"]))
        target = self._kept[request["object"]]
        if "arguments" not in request:
            return self._encode(list(target))
        arguments, keywords = (decode(request[n], self._find) for n in ("arguments", "keywords"))
        return self._encode(target(*arguments, **keywords))

    def _encode(self, value: Any) -> Any:
        return encode(value, self._keep)

    def _keep(self, value: Any) -> int:
        self._kept.append(value)
        return len(self._kept) - 1

    def _find(self, number: int) -> Any:
        return self._kept[number]
