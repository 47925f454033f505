"""Many clients at once, and clients that go away: what is promised, and nothing left behind.

``benchmarks/keystroke load leave`` is the same at full size, with times.
"""

import gc
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from http.client import HTTPConnection
from pathlib import Path

import pytest
from starlette.applications import Starlette

from tinystarcoder.completion.service import CompletionService, Run
from tinystarcoder.generation.scheduler import Generation
from tinystarcoder.pretrained import Model
from tinystarcoder.serving.exchange import Server
from tinystarcoder.serving.http import create_app

Serve = Callable[[Starlette], AbstractContextManager[int]]

CLIENTS, KEYS, LEAVING = 16, 12, 100


def until(holds: Callable[[], bool]) -> bool:
    """Waits for it, far longer than it can take."""
    end = time.monotonic() + 60
    while not (held := holds()) and time.monotonic() < end:
        pass
    return held


def texts() -> int:
    """Those that anything in this process still holds."""
    gc.collect()
    return sum(type(thing) in (Generation, Run) for thing in gc.get_objects())


def threads() -> set[str]:
    """All but the pool's, which stay for the next request."""
    return {one.name for one in threading.enumerate() if not one.name.startswith("exchange")}


def sockets() -> int:
    """Those that this process has open."""
    found = 0
    for entry in list(Path("/proc/self/fd").iterdir()):
        with suppress(OSError):
            found += str(entry.readlink()).startswith("socket:")
    return found


@pytest.mark.full
@pytest.mark.parametrize("waiting", [64, 2])
def test_clients_type_at_once(model: Model, serve: Serve, waiting: int) -> None:
    """All are answered; where few may wait, some are told to come back, and how soon."""
    before = texts()
    service = CompletionService(model, slots=2, waiting=waiting, prefetch=True)
    seen: Counter[tuple[int, str | None]] = Counter()
    lock = threading.Lock()

    def type_a_line(port: int, number: int) -> None:
        connection = HTTPConnection("127.0.0.1", port)
        for at in range(KEYS):
            text = f"def function_{number}("
            asked = {"prompt": text[:at], "input_suffix": f"\n# {number}\n", "n_predict": 8}
            connection.request("POST", "/infill", json.dumps(asked))
            response = connection.getresponse()
            response.read()
            with lock:
                seen[response.status, response.headers["retry-after"]] += 1
        connection.close()

    with serve(create_app(Server(service, "tiny"))) as port:
        threads = [
            threading.Thread(target=type_a_line, args=(port, number)) for number in range(CLIENTS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert until(lambda: service.scheduler.load == (0, 0))
    service.close()
    assert texts() == before
    assert sum(seen.values()) == CLIENTS * KEYS
    assert seen[200, None] > 0
    assert set(seen) <= {(200, None), (503, "1")}
    if waiting == 64:
        assert set(seen) == {(200, None)}


@pytest.mark.full
@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="open files are counted in /proc")
def test_who_goes_away_leaves_nothing(endless: Model, serve: Serve) -> None:
    """In the middle of a stream that would take minutes: neither texts, files nor threads."""
    service, before = CompletionService(endless), texts()
    with serve(create_app(Server(service, "endless"))) as port:
        go_away(port, 10)
        assert until(lambda: service.scheduler.load == (0, 0))
        before_threads, files = threads(), sockets()
        go_away(port, LEAVING)
        assert until(lambda: service.scheduler.load == (0, 0))
        assert until(lambda: sockets() <= files)
        assert threads() == before_threads
    service.close()
    assert texts() == before


def go_away(port: int, times: int) -> None:
    """Clients that read the first event of a stream, and leave."""
    body = json.dumps({"prompt": "x", "temperature": 0, "stream": True}).encode()
    head = f"POST /completion HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    for _ in range(times):
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(head.encode() + body)
            received = b""
            while b"data: " not in received:
                received += connection.recv(4096)
