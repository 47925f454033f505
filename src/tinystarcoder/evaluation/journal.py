"""JSON lines that a killed run goes on from: the first line says what the others are of.

Each item is one line, written whole and at once; half a line at the end, from a
kill, is dropped. A file of other settings is an error, never overwritten.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from ..errors import EvaluationError
from ..files import write_atomically

Record = dict[str, Any]
T = TypeVar("T")


class Journal:
    """The records so far, by their ``id``, and a way to add to them."""

    def __init__(self, path: Path, header: Record) -> None:
        """Raises EvaluationError where ``path`` holds something of another header."""
        self.path, self.header = path, header
        self.records: dict[str, Record] = {}
        if path.exists():
            self._resume()
        else:
            write_atomically(path, _line(header))

    def _resume(self) -> None:
        found, self.records, whole = read(self.path)
        for name in sorted({*found, *self.header}):
            if found.get(name) != self.header.get(name):
                raise EvaluationError(
                    f"{self.path}: is of {name} {found.get(name)!r}, not "
                    f"{self.header.get(name)!r}; give another --output"
                )
        with self.path.open("r+b") as file:
            file.truncate(whole)

    def append(self, record: Record) -> None:
        """Adds one item. Not for two processes at a time."""
        self.records[record["id"]] = record
        with self.path.open("ab") as file:
            file.write(_line(record))

    def fill(
        self, items: Sequence[tuple[str, T]], make: Callable[[T], Record], at_once: int = 1
    ) -> Iterator[Record]:
        """Makes what is lacking, so many at once in threads; yields all, in the items' order.

        An item is its id and what ``make`` takes.
        """
        todo = [item for id_, item in items if id_ not in self.records]
        pool = ThreadPoolExecutor(at_once)
        made = pool.map(make, todo)
        try:
            for id_, _ in items:
                if id_ not in self.records:
                    self.append(next(made))
                yield self.records[id_]
        finally:
            pool.shutdown(cancel_futures=True)

    def need(self, ids: Sequence[str]) -> None:
        """Raises EvaluationError where any of these was not written yet."""
        missing = [id_ for id_ in ids if id_ not in self.records]
        if missing:
            raise EvaluationError(
                f"{self.path}: no samples of {len(missing)} problems, {missing[0]} the first: "
                "generate them first"
            )


def read(path: Path) -> tuple[Record, dict[str, Record], int]:
    """Header, records by id, and the bytes that whole lines take."""
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    try:
        header, *records = map(json.loads, data[:whole].splitlines())
        return header, {record["id"]: record for record in records}, whole
    except (ValueError, KeyError, TypeError) as error:
        raise EvaluationError(f"{path}: is no file of samples or scores: {error}") from error


def _line(record: Record) -> bytes:
    return json.dumps(record).encode() + b"\n"
