"""What is seen of a run: a record a step in ``log.jsonl``, and a line on the terminal.

Where ``tensorboard`` is installed, the same numbers are written for it too.

A record is written when its step is done, so a run that was killed may have told of
steps that no checkpoint has seen; those lines are cut before it goes on.
"""

import json
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from .. import files
from ..errors import TrainingError

LOG = "log.jsonl"


class RunLog:
    """The log of the run in ``output``; with ``silent``, of a rank that writes none."""

    def __init__(self, output: Path, name: str, steps: int, *, silent: bool) -> None:
        self._path, self._silent = output / LOG, silent
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total}"),
            TextColumn("{task.fields[status]}"),
            TimeRemainingColumn(),
            disable=silent,
        )
        self._task = self._bar.add_task(name, total=steps, status="")
        self._step = 0
        self._events: Any = None

    def __enter__(self) -> "RunLog":
        self._bar.start()
        self._events = None if self._silent else _events(self._path.parent, self._step)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()
        if self._events:
            self._events.close()

    def write(self, record: dict[str, Any]) -> None:
        """Adds a step's record. Raises TrainingError where it cannot be written."""
        if self._silent:
            return
        try:
            with self._path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(record) + "\n")
        except OSError as error:
            raise TrainingError(
                f"{self._path}: cannot be written: {error}; checkpoints are intact"
            ) from error
        if self._events:
            for name in record.keys() - {"step"}:
                self._events.add_scalar(name, record[name], record["step"])
        self._bar.update(self._task, completed=record["step"], status=_status(record))

    def cut(self, step: int) -> None:
        """Forgets what the log says of steps after ``step``."""
        self._step = step
        if self._silent or not self._path.exists():
            return
        kept = []
        for line in self._path.read_text(encoding="utf-8").splitlines():
            try:
                if json.loads(line)["step"] <= step:
                    kept.append(line + "\n")
            except (ValueError, KeyError):  # What was being written when the run was killed.
                continue
        files.write_atomically(self._path, "".join(kept).encode())


def _events(output: Path, step: int) -> Any:
    """TensorBoard's writer, which forgets steps after ``step``; None where it is missing."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(output), purge_step=step + 1)


def _status(record: dict[str, Any]) -> str:
    parts = [f"loss {record['loss']:.3f}", f"{record['tokens_per_second']:,.0f} tokens/s"]
    if "bits_per_byte" in record:
        parts.insert(1, f"{record['bits_per_byte']:.3f} bits/byte")
    parts.append(f"MFU {record['mfu']:.0%}")
    if "validation_bits_per_byte" in record:
        parts.append(f"validation {record['validation_bits_per_byte']:.3f} bits/byte")
    return "  ".join(parts)
