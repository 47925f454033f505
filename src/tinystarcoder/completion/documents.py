"""Only the newest request of a document is worth an answer: it cancels the one before."""

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from threading import Event, Lock

from ..generation.sequence import NEVER, Cancellation


class Documents:
    """The running request of each document. From any thread."""

    def __init__(self) -> None:
        self._newest: dict[Hashable, Event] = {}
        self._lock = Lock()

    @contextmanager
    def newest(self, name: Hashable, cancelled: Cancellation = NEVER) -> Iterator[Cancellation]:
        """For a ``with`` block: cancelled by the given cancellation, by the next request, or by
        whatever ends the block."""
        ended = Event()
        with self._lock:
            if name in self._newest:
                self._newest[name].set()
            self._newest[name] = ended
        try:
            yield _Either(cancelled, ended)
        finally:
            ended.set()
            with self._lock:
                if self._newest.get(name) is ended:
                    del self._newest[name]

    def cancel_all(self) -> None:
        """Cancels whatever runs now."""
        with self._lock:
            for running in self._newest.values():
                running.set()


class _Either:
    """Set once one of two cancellations is."""

    def __init__(self, first: Cancellation, second: Cancellation) -> None:
        self._both = (first, second)

    def is_set(self) -> bool:
        return any(one.is_set() for one in self._both)
