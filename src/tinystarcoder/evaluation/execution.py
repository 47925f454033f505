"""Whether a program passes its tests: two sandboxes, one for each, and a verdict.

The program runs in one, the tests in the other, over stand-ins
(``inside/judge.py``). What the program prints goes nowhere. Neither sandbox
outlives the verdict. It gives up tests that hand the program something that is
no plain data, other than what the program itself made.
"""

import json
import os
import signal
import subprocess
from dataclasses import asdict, dataclass

from .sandbox import Sandbox, environment


@dataclass(frozen=True)
class Program:
    """``solution``: model-written code, whole. ``tests``: code that asserts what it must do.

    ``entry_point``: the function that the solution must define; may be empty.
    ``helpers``: the problem's own code, whose names the solution cannot replace.
    """

    solution: str
    tests: str
    entry_point: str = ""
    helpers: str = ""


@dataclass(frozen=True)
class Limits:
    """``cpu_seconds`` and ``memory`` (bytes) of each sandbox; ``seconds`` of wall clock.

    CPU time is what ends a loop, so that a busy machine changes no verdict.
    """

    cpu_seconds: int = 3
    seconds: float = 15.0
    memory: int = 1 << 30


def run_tests(sandbox: Sandbox, program: Program, limits: Limits = Limits()) -> str:
    """Why ``program`` failed; empty where all its tests passed."""
    alive, lifeline = os.pipe()
    try:
        candidate, judge = _start_both(sandbox, limits, lifeline)
    finally:
        os.close(lifeline)
    with candidate, judge:
        try:
            output, _ = judge.communicate(json.dumps(asdict(program)).encode(), limits.seconds)
            reason = _reason(output, judge.returncode)
            return _ended_by_limit(candidate) or reason if reason else ""
        except subprocess.TimeoutExpired:
            return "timed out"
        finally:
            judge.kill()
            candidate.kill()
            # Every process in there holds the other end: wait until the last is gone.
            while sandbox.isolates and os.read(alive, 1 << 16):
                pass
            os.close(alive)


def _reason(verdict: bytes, status: int) -> str:
    if not verdict:
        return f"the tests ended with status {status} before their verdict"
    reason: str = json.loads(verdict)["reason"]
    return reason


def _ended_by_limit(candidate: subprocess.Popen[bytes]) -> str:
    try:
        status = candidate.wait(timeout=1)
    except subprocess.TimeoutExpired:
        return ""
    # bubblewrap tells of a signal as a shell does.
    is_limit = abs(status) % 128 in (signal.SIGXCPU, signal.SIGKILL)
    return "out of CPU time" if is_limit else ""


def _start_both(
    sandbox: Sandbox, limits: Limits, lifeline: int
) -> tuple[subprocess.Popen[bytes], subprocess.Popen[bytes]]:
    arguments = (limits.cpu_seconds, limits.memory)
    (asked, asks), (answers, answered) = os.pipe(), os.pipe()
    try:
        command = sandbox.command("candidate", *arguments)
        candidate = _start(command, asked, answered, (lifeline,))
        command = sandbox.command("judge", *arguments, answers, asks)
        inherited = (lifeline, answers, asks)
        return candidate, _start(command, subprocess.PIPE, subprocess.PIPE, inherited)
    finally:
        for descriptor in (asked, asks, answers, answered):
            os.close(descriptor)


def _start(
    command: list[str], reading: int, writing: int, inherited: tuple[int, ...]
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command,
        stdin=reading,
        stdout=writing,
        stderr=subprocess.DEVNULL,
        pass_fds=inherited,
        env=environment(),
    )
