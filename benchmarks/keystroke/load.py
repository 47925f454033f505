"""Many clients at once, and clients that go away: no error but the promised ones, nothing left.

Each client types at its own pace, whatever others do, and asks for the place
that it has got to: one that waits for an answer skips places, as an editor does.
"""

import json
import math
import random
import socket
import time
from collections import Counter
from pathlib import Path
from threading import Thread

from .bench import Bench, quantile
from .servers import HOST, OURS, Client, Running, Server, started
from .sessions import Session, sample

CONTEXT = 1500
PERIOD = 0.2  # Seconds between two keys of one client: 60 words a minute.
KEYS = 100  # Of one place in one file, before the client goes to another.
WARM_UP = 10.0
TOKENS = 64


def load(bench: Bench) -> None:
    """All clients type for a minute at nano."""
    # As many slots as cursors, so that a key finds what the one before it computed.
    slots = ("--slots", str(bench.clients))
    server = Server("nano", (*OURS, "--threads", str(bench.threads), "--no-log", *slots))
    sessions = sample(bench.wheels, bench.tokenizer, 2 * bench.clients, KEYS, CONTEXT, seed=2)
    with started(server, Path(bench.folder) / "load.log") as running:
        _type_all(running, sessions, bench.clients, WARM_UP)
        before, begun = running.status("VmRSS"), time.monotonic()
        seen = _type_all(running, sessions, bench.clients, bench.seconds)
        seconds = time.monotonic() - begun
        after = running.status("VmRSS")
    times = [ms for of_one in seen for ms in of_one.milliseconds]
    statuses = sum((of_one.statuses for of_one in seen), Counter[int]())
    bench.rows["load"] = {
        "clients": bench.clients,
        "seconds": round(seconds, 1),
        "answers": len(times),
        "statuses": {str(status): count for status, count in sorted(statuses.items())},
        "answers a second": round(len(times) / seconds, 1),
        "keys typed": sum(of_one.typed for of_one in seen),
        "p50 ms": round(quantile(times, 0.5), 1),
        "p95 ms": round(quantile(times, 0.95), 1),
        "memory before, MB": round(before / 1024, 1),
        "memory after, MB": round(after / 1024, 1),
    }


class _Seen:
    """What one client has seen."""

    def __init__(self) -> None:
        self.milliseconds: list[float] = []
        self.statuses: Counter[int] = Counter()
        self.typed = 0


def _type_all(
    running: Running, sessions: list[Session], clients: int, seconds: float
) -> list[_Seen]:
    seen = [_Seen() for _ in range(clients)]
    until = time.monotonic() + seconds
    threads = [
        Thread(target=_type, args=(running.port, sessions[number::clients], until, number, one))
        for number, one in enumerate(seen)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return seen


def _type(port: int, sessions: list[Session], until: float, number: int, seen: _Seen) -> None:
    """One client's work. An error of the connection ends it, and is counted as status 0."""
    client = Client(port)
    time.sleep(random.Random(number).random() * PERIOD)
    begun, at = time.monotonic(), 0
    try:
        while time.monotonic() < until:
            session = sessions[at // KEYS % len(sessions)]
            answer = client.suggest(
                session.before + session.keys[: at % KEYS], session.after, TOKENS, {}
            )
            seen.statuses[answer.status] += 1
            if answer.status == 200:
                seen.milliseconds.append(answer.seconds * 1000)
            at = max(at + 1, math.ceil((time.monotonic() - begun) / PERIOD))
            time.sleep(max(0.0, begun + at * PERIOD - time.monotonic()))
    except OSError:
        seen.statuses[0] += 1
    finally:
        seen.typed = at
        client.close()


def leave(bench: Bench) -> None:
    """Clients that begin to read a stream and go away, one after another."""
    server = Server("nano", (*OURS, "--threads", str(bench.threads), "--no-log"))
    with started(server, Path(bench.folder) / "leave.log") as running:
        _go_away(running.port, bench.leaving // 10)
        before = _held(running)
        _go_away(running.port, bench.leaving)
        after = _held(running)
    bench.rows["leave"] = {
        "disconnects": bench.leaving,
        **{f"{name} before": value for name, value in before.items()},
        **{f"{name} after": value for name, value in after.items()},
    }


def _held(running: Running) -> dict[str, float]:
    """What the server holds once nothing is open any more but the question itself."""
    until = time.monotonic() + 30
    while (found := running.metrics())["tinystarcoder:http_requests_open"] > 1:
        if time.monotonic() > until:
            break
    return {
        "texts": found["tinystarcoder:requests_processing"]
        + found["tinystarcoder:requests_deferred"],
        "open requests": found["tinystarcoder:http_requests_open"] - 1,
        "threads": running.status("Threads"),
        "open files": len(list((running.folder / "fd").iterdir())),
        "memory, MB": round(running.status("VmRSS") / 1024, 1),
    }


def _go_away(port: int, times: int) -> None:
    asked = {"prompt": "def f(x):\n", "stream": True, "temperature": 1.0}
    for number in range(times):
        path = ("/completion", "/v1/completions")[number % 2]
        most = ("n_predict", "max_tokens")[number % 2]
        body = json.dumps({**asked, most: 1500, "seed": number}).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {len(body)}\r\n\r\n"
        with socket.create_connection((HOST, port)) as connection:
            connection.sendall(head.encode() + body)
            received = b""
            while b"data: " not in received:
                more = connection.recv(4096)
                if not more:
                    raise RuntimeError(f"the server ended a stream: {received[:200]!r}")
                received += more
