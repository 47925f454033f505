"""Whether a file is Python 3; and if not, whether it is Python 2, broken, or no Python at all.

``ast`` judges first. What it rejects, tree-sitter reads: its grammar knows the
statements of Python 2 and goes on after an error, so the share that it could
not read tells a damaged file from something else under the name.

Both run in a process of their own, with bounded memory and processor time. A
file that crashes a parser or makes it grow costs that one file; the next file
gets a new process.

What it gives up: the bounds need a system that has them (not Windows); a file in
a newer Python than the one that runs here is "broken".
"""

import ast
import os
import re
import struct
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from typing import IO

from ..errors import MissingExtraError
from .document import Document
from .notebooks import code_of

try:
    import tree_sitter
    import tree_sitter_python
except ModuleNotFoundError as error:
    raise MissingExtraError("telling Python 2 from Python 3", "corpus") from error

MEMORY_BYTES = 1 << 30
PROCESSOR_SECONDS = 20
MAX_ERROR_SHARE = 0.25  # of the bytes; more is no Python.

CRASH = "crashes the parser"

_LENGTH = struct.Struct("<Q")
_OLD_INTEGER = re.compile(rb"0\d*[1-9]\d*|\d.*[lL]", re.DOTALL)
_OLD_STRING = re.compile(rb"`|[uU][rR]")


def reason_of(text: str) -> str | None:
    """Why a text is not Python 3, judged in this process; None where it is."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse(text)
    except (SyntaxError, ValueError):
        return _other(text.encode(errors="replace"))
    except (RecursionError, MemoryError):
        return "too nested to parse"
    return None


class SyntaxJudge:
    """A filter that asks a process of its own. Not to be shared between threads."""

    def __init__(self, memory: int = MEMORY_BYTES, command: tuple[str, ...] = ()) -> None:
        # -P: nothing in the working folder is imported.
        module = (sys.executable, "-P", "-m", __name__, str(memory))
        self._command = command or module
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(self, document: Document) -> str | None:
        """The reason to set a document aside; of a notebook, its code cells are judged."""
        text = document.text
        return self.reason(code_of(text) if document.path.endswith(".ipynb") else text)

    def reason(self, text: str) -> str | None:
        """What :func:`reason_of` says of a text, or that its process died of it."""
        data = text.encode(errors="surrogatepass")
        process = self._process = self._process or self._start()
        with suppress(OSError):
            answer = _ask(process, data)
            if answer.endswith(b"\n"):
                return answer[:-1].decode() or None
        self.close()
        return CRASH

    def close(self) -> None:
        """Ends the process; the next question starts another."""
        if self._process is not None:
            self._process.kill()
            with suppress(OSError):
                self._process.communicate()
            self._process = None

    def _start(self) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )


@cache
def shared_judge() -> SyntaxJudge:
    """The one of this process: starting a parser takes longer than most files."""
    return SyntaxJudge()


def _ask(process: "subprocess.Popen[bytes]", data: bytes) -> bytes:
    if process.stdin is None or process.stdout is None:
        return b""
    process.stdin.write(_LENGTH.pack(len(data)) + data)
    process.stdin.flush()
    return process.stdout.readline()


def _other(data: bytes) -> str:
    """What a text is that ``ast`` rejects."""
    parser = tree_sitter.Parser(tree_sitter.Language(tree_sitter_python.language()))
    errors, old = 0, False
    for node in _nodes(parser.parse(data)):
        old = old or _is_python2(node)
        if node.type == "ERROR" and not (node.parent and node.parent.type == "ERROR"):
            errors += node.end_byte - node.start_byte
    if errors > MAX_ERROR_SHARE * len(data):
        return "not Python"
    return "Python 2" if old else "broken Python"


def _nodes(tree: tree_sitter.Tree) -> Iterator[tree_sitter.Node]:
    """All nodes, without recursion: a hostile file nests as deep as it likes."""
    cursor = tree.walk()
    while True:
        if cursor.node is not None:
            yield cursor.node
        if cursor.goto_first_child():
            continue
        while not cursor.goto_next_sibling():
            if not cursor.goto_parent():
                return


def _is_python2(node: tree_sitter.Node) -> bool:
    match node.type:
        case "print_statement" | "exec_statement" | "<>":
            return True
        case "except_clause":
            return any(child.type == "," for child in node.children)
        case "tuple_pattern":
            return node.parent is not None and "parameters" in node.parent.type
        case "raise_statement":
            return any(child.type == "expression_list" for child in node.children)
        case "integer":
            return bool(_OLD_INTEGER.fullmatch(node.text or b""))
        case "string_start":
            return bool(_OLD_STRING.match(node.text or b""))
    return False


def _serve(questions: IO[bytes], answers: IO[bytes]) -> None:
    """The process's loop: a length and a text in, a line out."""
    while header := questions.read(_LENGTH.size):
        text = questions.read(*_LENGTH.unpack(header)).decode(errors="surrogatepass")
        _allow_seconds(PROCESSOR_SECONDS)
        try:
            reason = reason_of(text)
        except MemoryError:
            reason = "too nested to parse"
        _allow_seconds(0)
        answers.write((reason or "").encode() + b"\n")
        answers.flush()


def _allow_seconds(seconds: float) -> None:
    """Processor time from here on, after which the system ends this process; 0 for any."""
    if sys.platform != "win32":
        import signal

        signal.setitimer(signal.ITIMER_PROF, seconds)


def _bound_memory(limit: int) -> None:
    if sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    _bound_memory(int(sys.argv[1]))
    with suppress(BrokenPipeError, KeyboardInterrupt):
        _serve(os.fdopen(0, "rb"), os.fdopen(1, "wb"))
