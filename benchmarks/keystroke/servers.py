"""The servers that are asked, each a process of its own on a free port of this machine."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

HOST = "127.0.0.1"
START_SECONDS = 60.0

OURS = (sys.executable, "-c", "from tinystarcoder.cli.main import main; main()", "serve")


class AbsentError(Exception):
    """A server that cannot be started here, and why."""


@dataclass(frozen=True)
class Server:
    """A command that takes ``--port``; ``extra``: what its ``/infill`` is sent beside the rest."""

    name: str
    command: tuple[str, ...]
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """``seconds`` from the key to the whole reply, and what the server tells of its work."""

    status: int
    seconds: float
    computed: int = 0
    written: int = 0
    text: str = ""


class Client:
    """One connection that is kept, as editors keep it."""

    def __init__(self, port: int) -> None:
        self._connection = HTTPConnection(HOST, port, timeout=60)

    def suggest(self, before: str, after: str, tokens: int, extra: dict[str, Any]) -> Answer:
        """What ``/infill`` says at a place; asked as llama.vim asks, but for greedy sampling."""
        head, newline, line = before.rpartition("\n")
        asked = {
            "input_prefix": head + newline,
            "input_suffix": after,
            "prompt": line,
            "n_predict": tokens,
            "temperature": 0,
            "stream": False,
            "cache_prompt": True,
            "response_fields": ["content", "timings/prompt_n", "timings/predicted_n"],
            **extra,
        }
        body = json.dumps(asked)
        begun = time.perf_counter()
        self._connection.request("POST", "/infill", body, {"content-type": "application/json"})
        response = self._connection.getresponse()
        read = response.read()
        seconds = time.perf_counter() - begun
        if response.status != 200:
            return Answer(response.status, seconds)
        told = json.loads(read)
        computed, written = told["timings/prompt_n"], told["timings/predicted_n"]
        return Answer(200, seconds, computed, written, told["content"])

    def close(self) -> None:
        self._connection.close()


class Running:
    """A server's process, and what the kernel knows of it."""

    def __init__(self, server: Server, process: subprocess.Popen[bytes], port: int) -> None:
        self.server = server
        self.port = port
        self._process = process

    @property
    def folder(self) -> Path:
        return Path(f"/proc/{self._process.pid}")

    def status(self, name: str) -> int:
        """A number of ``/proc``'s status: ``VmRSS`` is in kB, ``Threads`` a count."""
        for line in (self.folder / "status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1])
        raise RuntimeError(f"no {name} in {self.folder}/status")

    def metrics(self) -> dict[str, float]:
        """Our own server's ``/metrics``, labels left in the names."""
        connection = HTTPConnection(HOST, self.port, timeout=60)
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        connection.close()
        lines = (line.rsplit(" ", 1) for line in text.splitlines() if line[:1] not in ("", "#"))
        return {name: float(value) for name, value in lines}


@contextmanager
def started(server: Server, log: Path) -> Iterator[Running]:
    """The server for a ``with`` block; what it prints goes to ``log``."""
    if not Path(server.command[0]).exists():
        raise AbsentError(f"{server.command[0]} is absent; benchmarks/peers makes it")
    port = _free_port()
    command = [*server.command, "--host", HOST, "--port", str(port)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, env={**os.environ, "HF_HUB_OFFLINE": "1"}
        )
        try:
            _wait_until_healthy(process, port, log)
            yield Running(server, process, port)
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _free_port() -> int:
    with socket.create_server((HOST, 0)) as bound:
        port: int = bound.getsockname()[1]
        return port


def _wait_until_healthy(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        if process.poll() is not None:
            break
        try:
            connection = HTTPConnection(HOST, port, timeout=5)
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        finally:
            connection.close()
        time.sleep(0.1)
    last = log.read_text(errors="replace").splitlines()[-3:]
    raise AbsentError(f"it does not answer; it said last: {' / '.join(last)}")
