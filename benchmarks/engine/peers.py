"""The engines that are measured, each a process, and what one of them is asked."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import models

ADAPTERS = Path(__file__).parent / "adapters"


@dataclass(frozen=True)
class Peer:
    """One engine at one precision. ``venv`` is the folder's name under the peers' home."""

    name: str
    adapter: str
    precision: str
    venv: str | None
    model: Callable[[Path, Path], Path]  # From the models' and the peer's folders.


OURS = "tinystarcoder"


def _hugging_face(folder: Path, _: Path) -> Path:
    return models.huggingface(folder)


def _gguf(weights: str) -> Callable[[Path, Path], Path]:
    return lambda folder, _: models.gguf(folder, weights)


PEERS = (
    *(
        Peer(f"{OURS} {precision}", "run_ours.py", precision, None, _hugging_face)
        for precision in ("int8", "int4", "bf16")
    ),
    Peer("llama.cpp Q8_0", "run_llama_cpp.py", "q8_0", "llama", _gguf("q8_0")),
    Peer(
        "llama.cpp Q8_0, no flash attention",
        "run_llama_cpp.py",
        "q8_0 without flash attention",
        "llama",
        _gguf("q8_0"),
    ),
    Peer("llama.cpp Q4_0", "run_llama_cpp.py", "q4_0", "llama", _gguf("q4_0")),
    Peer("OpenVINO int8", "run_openvino.py", "int8", "openvino", models.openvino),
    Peer("CTranslate2 int8", "run_ctranslate2.py", "int8", "ct2", models.ctranslate2),
    Peer("transformers bf16", "run_transformers.py", "bf16", "transformers", _hugging_face),
)


class AbsentError(Exception):
    """A peer that cannot be measured here, and why."""


class Running:
    """A peer's process. One request at a time."""

    def __init__(self, peer: Peer, home: Path, folder: Path) -> None:
        venv = home / f"venv-{peer.venv}" if peer.venv else None
        python = venv / "bin/python" if venv else Path(sys.executable)
        if not python.exists():
            raise AbsentError(f"{python} is absent; benchmarks/peers makes it")
        try:
            self.model = peer.model(folder, venv or home)
        except (RuntimeError, OSError) as error:
            raise AbsentError(str(error)) from error
        self.peer = peer
        self.version = ""
        environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
        self._process = subprocess.Popen(
            [python, ADAPTERS / peer.adapter],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )

    def ask(self, what: str, **arguments: object) -> dict[str, Any]:
        """The answer to a request. Raises AbsentError where the peer cannot give one."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"do": what, **arguments}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise AbsentError(f"its process ended at {what} (exit code {self._process.wait()})")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise AbsentError(f"{what}: {answer['error']}")
        return answer

    def load(self, threads: int, context: int) -> float:
        precision = self.peer.precision
        answer = self.ask(
            "load", model=str(self.model), precision=precision, threads=threads, context=context
        )
        self.version = answer["version"]
        seconds: float = answer["seconds"]
        return seconds

    def close(self) -> None:
        """Ends the process, which stops where its input does, if it has not ended already."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()


@contextmanager
def started(peer: Peer, home: Path, folder: Path) -> Iterator[Running]:
    """A peer's process for a ``with`` block."""
    running = Running(peer, home, folder)
    try:
        yield running
    finally:
        running.close()


def first_token(peer: Peer, home: Path, folder: Path, prompt: list[int], threads: int) -> float:
    """Seconds from a new process's start, loading included, to a prompt's first token."""
    begun = time.perf_counter()
    with started(peer, home, folder) as running:
        running.load(threads, 2048)
        running.ask("prefill", prompt=prompt)
        return time.perf_counter() - begun
