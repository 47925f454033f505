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
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

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
    processes = candidate, judge = _start_both(sandbox, limits)
    with candidate, judge:
        try:
            output, _ = judge.communicate(json.dumps(asdict(program)).encode(), limits.seconds)
            reason = _reason(output, judge.returncode)
            return _ended_by_limit(candidate) or reason if reason else ""
        except subprocess.TimeoutExpired:
            return "timed out"
        finally:
            for process in processes:
                _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kills a sandbox and waits until nothing of it is left, some milliseconds.

    bubblewrap may end before its child, the first process of the PID namespace, which is
    in the same process group. Once that is a zombie all others are gone, and it may be
    one for long where few orphans are reaped.
    """
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for _ in range(1000):
        if not _is_left(process.pid):
            return
        time.sleep(0.001)


def _is_left(group: int) -> bool:
    """Does a process of the group still run?"""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return any(map(partial(_runs_in, group), Path("/proc").glob("[0-9]*/stat")))


def _runs_in(group: int, stat: Path) -> bool:
    try:
        state, _, found = stat.read_text().rpartition(")")[2].split()[:3]
    except (OSError, ValueError):  # Ended meanwhile.
        return False
    return int(found) == group and state not in ("Z", "X")


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
    sandbox: Sandbox, limits: Limits
) -> tuple[subprocess.Popen[bytes], subprocess.Popen[bytes]]:
    arguments = (limits.cpu_seconds, limits.memory)
    (asked, asks), (answers, answered) = os.pipe(), os.pipe()
    try:
        command = sandbox.command("candidate", *arguments)
        candidate = _start(command, asked, answered)
        command = sandbox.command("judge", *arguments, answers, asks)
        return candidate, _start(command, subprocess.PIPE, subprocess.PIPE, (answers, asks))
    finally:
        for descriptor in (asked, asks, answers, answered):
            os.close(descriptor)


def _start(
    command: list[str], reading: int, writing: int, inherited: tuple[int, ...] = ()
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command,
        stdin=reading,
        stdout=writing,
        stderr=subprocess.DEVNULL,
        pass_fds=inherited,
        start_new_session=True,
        env=environment(),
    )
