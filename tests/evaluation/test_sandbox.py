"""Verdicts, and that nothing gets out of the sandbox: 40 hostile programs, in the full tier."""

import contextlib
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinystarcoder.errors import SandboxError
from tinystarcoder.evaluation import sandbox as sandbox_module
from tinystarcoder.evaluation.execution import Limits, Program, run_tests
from tinystarcoder.evaluation.inside.channel import decode, encode
from tinystarcoder.evaluation.sandbox import Sandbox

from .hostile import HOSTILE

TESTS = "got = add(2, 3)\nassert got == 5, repr(got)\nassert add(-1, 1) == 0\n"
GOOD = "def add(a, b):\n    return a + b\n"
SECRET = "canary-4711"


@pytest.fixture(scope="module")
def plain() -> Sandbox:
    """No sandbox: for programs written here, which do no harm."""
    return Sandbox(unsafe=True)


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    if shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed: apt-get install bubblewrap")
    try:
        return Sandbox()
    except SandboxError as error:
        pytest.skip(str(error))


def verdict(sandbox: Sandbox, solution: str, tests: str = TESTS, **fields: Any) -> str:
    return run_tests(sandbox, Program(solution, tests, **{"entry_point": "add"} | fields))


@pytest.mark.parametrize(
    ("solution", "reason"),
    [
        (GOOD, ""),
        ("def add(a, b):\n    return a - b\n", "AssertionError: -1"),
        ("def add(a, b):\n    return [a + b]\n", "AssertionError: [5]"),
        ("def add(a, b):\n    raise ValueError('no')\n", "ValueError: no"),
        ("def add(a, b) return", "SyntaxError: expected ':'"),
        ("x = 1\n", "defines no add"),
        (HOSTILE["os._exit"], "Gone: the program ended before the tests did"),
        (HOSTILE["exits 0 early"], "CandidateError: SystemExit: 0"),
        (HOSTILE["patches the asserts"], "AssertionError: 0"),
        (HOSTILE["equals everything"], "AssertionError: 0"),
    ],
)
def test_verdicts(plain: Sandbox, solution: str, reason: str) -> None:
    given = verdict(plain, solution)
    assert given.startswith(reason) and bool(given) == bool(reason)


def test_what_a_test_needs_of_the_solution(plain: Sandbox) -> None:
    """Classes, helpers and iterators: the ways in which a benchmark's tests touch a solution."""
    solution = (
        "from dataclasses import dataclass\n"
        "@dataclass\nclass Pair:\n    a: int\n    b: int\n"
        "def add(pair):\n    return pair.a + pair.b\n"
        "def evens():\n    yield from (0, 2)\n"
        "LIMIT = (1, {'x': {2.5}})\n"
    )
    tests = (
        "assert add(Pair(2, b=3)) == 5\nassert list(evens()) == [0, 2]\nassert Pair(1, 1) != 2\n"
    )
    assert verdict(plain, solution, tests + "assert LIMIT == (1, {'x': {2.5}})\n") == ""


def test_a_problems_own_helper_cannot_be_replaced(plain: Sandbox) -> None:
    tests = "assert double(add(1, 1)) == 4 and abs(add(1, 1)) == 2\n"
    cheat = (
        "def add(a, b):\n    return -2\ndef double(x):\n    return 4\ndef abs(x):\n    return 2\n"
    )
    helpers = "def double(x):\n    return 2 * x\n"
    assert verdict(plain, GOOD, tests, helpers=helpers) == ""
    assert verdict(plain, cheat, tests, helpers=helpers) == "AssertionError"


def test_refuses_without_a_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox_module.shutil, "which", lambda name: None)
    with pytest.raises(SandboxError, match=r"install bubblewrap, or say --unsafe-no-sandbox"):
        Sandbox()


def test_refuses_a_sandbox_that_does_not_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox_module.shutil, "which", lambda name: "/bin/false")
    with pytest.raises(SandboxError, match="does not work here"):
        Sandbox()


_ATOMS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.complex_numbers(allow_nan=False)
    | st.text(st.characters(codec=None))
    | st.binary()
)
_HASHABLE = st.recursive(_ATOMS, lambda inner: st.lists(inner, max_size=3).map(tuple), max_leaves=5)
_DATA = st.recursive(
    _HASHABLE,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.sets(_HASHABLE, max_size=3)
        | st.dictionaries(_HASHABLE, inner, max_size=3)
    ),
    max_leaves=10,
)


@given(_DATA)
def test_plain_data_goes_there_and_back(value: object) -> None:
    def fail(_: Any) -> Any:
        raise AssertionError("no plain data")

    there = decode(encode(value, fail), fail)
    assert there == value and type(there) is type(value)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, int, list[object]]]:
    """A folder with a secret, and a port that counts who comes and tells them the secret."""
    folder = tmp_path_factory.mktemp("canary")
    (folder / "secret").write_text(SECRET)
    came: list[object] = []

    def serve(listener: socket.socket) -> None:
        while True:
            try:
                connection, address = listener.accept()
            except OSError:
                return
            came.append(address)
            connection.sendall(SECRET.encode())
            connection.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        yield folder, listener.getsockname()[1], came
        listener.shutdown(socket.SHUT_RDWR)


def command_lines() -> str:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # Ended meanwhile.
            found.append(path.read_text(errors="replace"))
    return "\n".join(found)


@pytest.mark.full
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_programs_are_contained(
    name: str,
    sandbox: Sandbox,
    host: tuple[Path, int, list[object]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, port, came = host
    monkeypatch.setenv("CANARY_SECRET", SECRET)
    solution = HOSTILE[name].replace("CANARY", str(folder)).replace("PORT", str(port))
    # A limit that no other run has: its processes can be told from all others.
    limits = Limits(cpu_seconds=1, seconds=6, memory=(1 << 30) + hash(name) % (1 << 20))
    reason = run_tests(sandbox, Program(solution, TESTS, "add"), limits)
    assert reason and SECRET not in reason
    assert "wrote" not in reason and "changed" not in reason and "mounted" not in reason
    assert not came
    assert [path.name for path in folder.iterdir()] == ["secret"]
    assert (folder / "secret").read_text() == SECRET
    assert str(limits.memory) not in command_lines()


@pytest.mark.full
def test_the_sandbox_lets_good_programs_pass(sandbox: Sandbox) -> None:
    assert verdict(sandbox, GOOD) == ""
    assert verdict(sandbox, "import math, re, numpy\n" + GOOD) == ""
    # Each has its own, empty: nothing of the program before is left.
    leaves = "import os\nassert not os.path.exists('left')\nopen('left', 'w').close()\n" + GOOD
    assert [verdict(sandbox, leaves) for _ in range(2)] == ["", ""]


@pytest.mark.full
@pytest.mark.parametrize("milliseconds", range(0, 40, 2))
def test_a_sandbox_that_is_killed_while_it_starts_is_gone(
    milliseconds: int, sandbox: Sandbox
) -> None:
    """bubblewrap alone would leave its child behind: its tie to the parent comes late."""
    limits = Limits(seconds=milliseconds / 1000, memory=(1 << 30) + (1 << 21) + milliseconds)
    assert run_tests(sandbox, Program(HOSTILE["sleeps"], TESTS, "add"), limits) == "timed out"
    assert str(limits.memory) not in command_lines()
