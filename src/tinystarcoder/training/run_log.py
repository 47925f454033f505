"""What is seen of a run: a record a step in ``log.jsonl``, and a bar on the terminal.

Where ``tensorboard`` is installed, the same numbers are written for it too; where ``rich``
is not, there are lines instead of the bar.

A record is written when its step is done, so a run that was killed may have told of
steps that no checkpoint has seen; those lines are cut before it goes on.
"""

import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any

from .. import files
from ..errors import TrainingError

LOG = "log.jsonl"

# Between two lines, where there is no bar.
_SECONDS = 10.0


class RunLog:
    """The log of the run in ``output``; with ``silent``, of a rank that writes none."""

    def __init__(self, output: Path, name: str, steps: int, *, silent: bool) -> None:
        self._path, self._silent = output / LOG, silent
        self._name, self._steps = name, steps
        self._step = 0
        self._shown: _Bar | _Lines | None = None
        self._events: _Events | None = None

    def __enter__(self) -> "RunLog":
        if not self._silent:
            self._events = _open_events(self._path.parent, self._step)
            self._shown = _show(self._name, self._step, self._steps)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._shown:
            self._shown.close()
        if self._events:
            try:
                self._events.close()
            except TrainingError:
                if not error:  # What broke the run off says more.
                    raise

    def write(self, record: dict[str, Any]) -> None:
        """Adds a step's record. Raises TrainingError where it cannot be written."""
        if self._silent:
            return
        with _writing(self._path), self._path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(record) + "\n")
        if self._events:
            self._events.write(record)
        if self._shown:
            self._shown.update(record["step"], _status(record))

    def cut(self, step: int) -> None:
        """Forgets what the log says of steps after ``step``: the run begins there."""
        self._step = step
        if self._silent or not self._path.exists():
            return
        kept = []
        with _writing(self._path):
            for line in self._path.read_text(encoding="utf-8").splitlines():
                try:
                    if json.loads(line)["step"] <= step:
                        kept.append(line + "\n")
                except (ValueError, KeyError):  # What was being written when the run was killed.
                    continue
            files.write_atomically(self._path, "".join(kept).encode())


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Makes an OSError a TrainingError that names the file: not each of them does."""
    try:
        yield
    except OSError as error:
        raise TrainingError(
            f"{path}: cannot be written: {error.strerror or error}; checkpoints are intact"
        ) from error


class _Events:
    """TensorBoard's file of a run; what other files say of steps after ``step`` is forgotten.

    torch's SummaryWriter would write in a thread of its own: a full disk would be met there,
    and told by that thread's traceback.
    """

    def __init__(self, output: Path, step: int) -> None:
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._event, self._summary = event_pb2.Event, summary_pb2.Summary
        name = f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}.{os.getpid()}"
        self._path = output / name
        with _writing(self._path):
            self._records = RecordWriter(self._path.open("ab"))
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._add(file_version="brain.Event:2")
        self._add(step=step + 1, session_log=start)

    def write(self, record: dict[str, Any]) -> None:
        scalars = {name: float(record[name]) for name in record.keys() - {"step"}}
        values = [self._summary.Value(tag=name, simple_value=scalars[name]) for name in scalars]
        self._add(step=record["step"], summary=self._summary(value=values))

    def close(self) -> None:
        with _writing(self._path):
            self._records.close()

    def _add(self, **event: Any) -> None:
        with _writing(self._path):
            self._records.write(self._event(wall_time=time.time(), **event).SerializeToString())
            self._records.flush()


def _open_events(output: Path, step: int) -> _Events | None:
    try:
        return _Events(output, step)
    except ModuleNotFoundError:
        return None


class _Bar:
    """A bar from ``step`` on. The time left is the record's: rich would guess from few steps."""

    def __init__(self, name: str, step: int, steps: int) -> None:
        from rich.progress import BarColumn, Progress, TextColumn

        texts = ("{task.description}", "{task.completed}/{task.total}", "{task.fields[status]}")
        name_column, *columns = map(TextColumn, texts)
        self._bar = Progress(name_column, BarColumn(), *columns)
        self._task = self._bar.add_task(name, completed=step, total=steps, status="")
        self._bar.start()

    def update(self, step: int, status: str) -> None:
        self._bar.update(self._task, completed=step, status=status)

    def close(self) -> None:
        self._bar.stop()


class _Lines:
    """A line at the first step, at the last, and every few seconds between."""

    def __init__(self, name: str, steps: int) -> None:
        self._name, self._steps = name, steps
        self._line, self._due = "", 0.0

    def update(self, step: int, status: str) -> None:
        self._line = f"{self._name} {step}/{self._steps}  {status}\n"
        if time.monotonic() >= self._due:
            self.close()
            self._due = time.monotonic() + _SECONDS

    def close(self) -> None:
        sys.stderr.write(self._line)
        self._line = ""


def _show(name: str, step: int, steps: int) -> _Bar | _Lines:
    try:
        return _Bar(name, step, steps)
    except ModuleNotFoundError:
        return _Lines(name, steps)


def _status(record: dict[str, Any]) -> str:
    parts = [f"{timedelta(seconds=record['seconds_left'])} left", f"loss {record['loss']:.3f}"]
    if "bits_per_byte" in record:
        parts.append(f"{record['bits_per_byte']:.3f} bits/byte")
    parts += [f"{record['tokens_per_second']:,.0f} tokens/s", f"MFU {record['mfu']:.0%}"]
    if "validation_bits_per_byte" in record:
        parts.append(f"validation {record['validation_bits_per_byte']:.3f} bits/byte")
    return "  ".join(parts)
