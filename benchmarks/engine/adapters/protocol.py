"""How an engine is driven: a process of its own that reads and writes JSON, a line each.

Each peer lives in its own virtual environment, since their pins clash, so this
file and the adapters beside it use nothing of the benchmark itself. A request is
``{"do": name, ...}``; the answer is the method's, or ``{"error": text}``.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

# One process has the machine at a time: idle threads must not spin through another's turn.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("KMP_BLOCKTIME", "0")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


class Engine:
    """What an adapter may answer; what it does not define, the report leaves empty."""

    version = ""

    def load(self, model: str, precision: str, threads: int, context: int) -> None:
        """``model`` is what the adapter's converter made, see ``models.py``."""
        raise NotImplementedError

    def decode(self, prompt: list[int], tokens: int) -> float:
        """Greedy tokens after a prompt: seconds of the passes after the first token."""
        raise NotImplementedError

    def prefill(self, prompt: list[int]) -> float:
        """Seconds from a prompt to its first token, nothing of it known before."""
        raise NotImplementedError

    def batch(self, prompts: list[list[int]], tokens: int) -> float:
        """Seconds of the passes after the first tokens, all prompts at once."""
        raise NotImplementedError


def peak_memory() -> int:
    """The most that this process ever held, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no VmHWM in /proc/self/status")


def serve(engine: Engine) -> None:
    """Answers until standard input ends. Libraries that print do so to standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        request: dict[str, Any] = json.loads(line)
        name = request.pop("do")
        answer: dict[str, Any]
        try:
            if name == "load":
                started = time.perf_counter()
                engine.load(**request)
                answer = {"seconds": time.perf_counter() - started, "version": engine.version}
            elif name == "memory":
                answer = {"bytes": peak_memory()}
            else:
                result = getattr(engine, name)(**request)
                answer = result if isinstance(result, dict) else {"seconds": result}
        except Exception as error:  # Told, so that one peer's failure spoils no other's figures.
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
