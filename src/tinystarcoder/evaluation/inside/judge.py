"""The sandbox of the tests: runs them over stand-ins for what the other sandbox defines.

A stand-in sends a call and returns the plain data that comes back. So the code
under test can neither patch an assertion, nor end the tests early, nor claim
that they passed: the verdict is written by this process, which that code
cannot reach, when the last line of the tests has run.

Names in the tests are, in this order: what the tests define, what the problem
itself defines (so a solution cannot replace a problem's helper), built-ins,
what the solution defines. The entry point is always the solution's.
"""

import builtins
import json
import os
import sys
from collections.abc import Iterator
from types import CodeType
from typing import Any

from . import limits
from .channel import Channel, decode, encode


class CandidateError(Exception):
    """The code under test raised something that is no built-in exception."""


class Gone(BaseException):
    """The code under test ended, or answers no more. No test can catch it by accident."""


def main() -> None:
    """``judge CPU_SECONDS MEMORY READ WRITE``: the channel's file descriptors.

    Takes the problem as JSON on standard input; writes the verdict as JSON on
    standard output.
    """
    cpu_seconds, memory, reading, writing = map(int, sys.argv[1:])
    verdicts = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    problem = json.load(sys.stdin)
    limits.apply(cpu_seconds, memory)
    solution = _Solution(Channel(os.fdopen(reading, "rb"), os.fdopen(writing, "wb")))
    json.dump({"reason": judge(problem, solution)}, verdicts)
    verdicts.close()


def judge(problem: dict[str, str], solution: "_Solution") -> str:
    """Why it failed; empty where it passed."""
    try:
        names: dict[str, Any] = {"__name__": "tests"}
        _define_helpers(problem["helpers"], names)
        tests = compile(problem["tests"], "<tests>", "exec")
        solution.ask(load=problem["solution"])
        for name in sorted(_names_in(tests) - set(names) - set(vars(builtins))):
            stand_in = solution.get(name)
            if stand_in is not None:
                names[name] = stand_in
        if (entry_point := problem["entry_point"]) and solution.get(entry_point) is None:
            return f"defines no {entry_point}"
        if entry_point:
            names[entry_point] = solution.get(entry_point)
        exec(tests, names)
    except BaseException as error:
        return f"{type(error).__name__}: {error}"[:300].rstrip(": ")
    return ""


def _define_helpers(text: str, names: dict[str, Any]) -> None:
    """Runs the problem's own code, unless it is cut where it does not parse."""
    try:
        code = compile(text, "<problem>", "exec")
    except SyntaxError:
        return
    exec(code, names)


def _names_in(code: CodeType) -> set[str]:
    inner = [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    return set(code.co_names).union(*map(_names_in, inner))


class _Solution:
    """What the other sandbox defines, asked for through the channel."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def get(self, name: str) -> Any:
        """A stand-in or plain data; None where nothing has the name."""
        try:
            return self._decode(self.ask(get=name))
        except AttributeError:
            return None

    def call(self, number: int, arguments: Any, keywords: Any) -> Any:
        request = {"arguments": list(arguments), "keywords": keywords}
        encoded = {name: encode(value, _number) for name, value in request.items()}
        return self._decode(self.ask(object=number, **encoded))

    def iterate(self, number: int) -> Iterator[Any]:
        return iter(self._decode(self.ask(object=number)))

    def ask(self, **request: Any) -> Any:
        """The other side's answer; what it raised is raised here."""
        try:
            self._channel.send(request)
            reply = self._channel.receive()
            if "error" not in reply:
                return reply["value"]
            name, message = map(str, reply["error"])
        except (EOFError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise Gone("the program ended before the tests did") from error
        kind = getattr(builtins, name, None)
        if isinstance(kind, type) and issubclass(kind, Exception):
            try:
                raised = kind(message)
            except TypeError:  # UnicodeDecodeError and its like take five arguments.
                raise CandidateError(f"{name}: {message}") from None
            raise raised
        raise CandidateError(f"{name}: {message}")

    def _decode(self, value: Any) -> Any:
        try:
            return decode(value, lambda number: _StandIn(self, number))
        except Exception as error:
            raise Gone("the program answered with what is no data") from error


class _StandIn:
    """An object of the other sandbox. Equal to nothing but itself."""

    def __init__(self, solution: _Solution, number: int) -> None:
        self._solution, self._number = solution, number

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        return self._solution.call(self._number, arguments, keywords)

    def __iter__(self) -> Iterator[Any]:
        return self._solution.iterate(self._number)


def _number(value: Any) -> int:
    if not isinstance(value, _StandIn):
        raise TypeError(f"tests cannot hand over {type(value).__name__}: it is no plain data")
    return value._number
