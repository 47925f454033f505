"""What an operator sees: a log line a request, and ``GET /metrics`` for Prometheus.

A line is a JSON object with times, path and status. The text that people write
is not in it, unless the server was asked to log that too. Metrics have the
names of llama.cpp's server where they mean the same.
"""

import json
import logging
from collections import Counter, defaultdict
from collections.abc import Container, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import perf_counter

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..completion.service import CompletionService

LOGGER = logging.getLogger("tinystarcoder.serving")

_PREFIX = "tinystarcoder:"
_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_LOGGED_BYTES = 1 << 20


@dataclass
class Seen:
    """Requests by path and status, the seconds they took, and how many are open."""

    requests: Counter[tuple[str, int]] = field(default_factory=Counter)
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    processing: int = 0


class Observed:
    """Counts and logs every request, by its path if it is one of ``paths``.

    ``log_text``: with the bodies that clients send.
    """

    def __init__(
        self, app: ASGIApp, seen: Seen, paths: Container[str], log_text: bool = False
    ) -> None:
        self._app = app
        self._seen = seen
        self._paths = paths
        self._log_text = log_text

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, begun, body = 500, perf_counter(), bytearray()

        async def watched_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        async def watched_receive() -> Message:
            message = await receive()
            if len(body) < _LOGGED_BYTES:
                body.extend(message.get("body", b""))
            return message

        self._seen.processing += 1
        try:
            await self._app(scope, watched_receive if self._log_text else receive, watched_send)
        finally:
            self._seen.processing -= 1
            self._note(scope, status, perf_counter() - begun, bytes(body))

    def _note(self, scope: Scope, status: int, seconds: float, body: bytes) -> None:
        # A path that nobody serves could be anything, and as many as a client likes.
        path = scope["path"] if scope["path"] in self._paths else "(unserved)"
        self._seen.requests[path, status] += 1
        self._seen.seconds[path] += seconds
        line = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "client": (scope.get("client") or ("",))[0],
            "method": scope["method"],
            "path": path,
            "status": status,
            "ms": round(seconds * 1000, 2),
        }
        if self._log_text:
            line["body"] = body.decode(errors="replace")
        LOGGER.info(json.dumps(line))


class Metrics(Collector):
    """Reads all counts when they are asked for."""

    def __init__(self, service: CompletionService, seen: Seen) -> None:
        self._service = service
        self._seen = seen
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def collect(self) -> Iterator[Metric]:
        counts, scheduler = self._service.counts.total, self._service.scheduler
        running, waiting = scheduler.load
        for name, value, told in (
            ("prompt_tokens", counts.prompt_tokens, "Tokens of prompts."),
            ("prompt_tokens_cached", counts.reused_tokens, "Those that were not computed again."),
            ("tokens_predicted", counts.completion_tokens, "Tokens written."),
            ("prompt_seconds", counts.prompt_seconds, "Seconds up to first tokens."),
            ("tokens_predicted_seconds", counts.completion_seconds, "Seconds after first tokens."),
            ("spec_decode_num_draft_tokens", scheduler.drafted, "Tokens guessed."),
            ("spec_decode_num_accepted_tokens", scheduler.accepted, "Tokens guessed right."),
        ):
            yield CounterMetricFamily(_PREFIX + name, told, value)
        for name, number, told in (
            ("requests_processing", running, "Texts being written."),
            ("requests_deferred", waiting, "Texts that wait for the engine."),
            ("http_requests_open", self._seen.processing, "HTTP requests not answered yet."),
        ):
            yield GaugeMetricFamily(_PREFIX + name, told, number)
        requests = CounterMetricFamily(
            f"{_PREFIX}http_requests", "HTTP requests.", labels=("path", "status")
        )
        for (path, status), count in sorted(self._seen.requests.items()):
            requests.add_metric((path, str(status)), count)
        yield requests
        seconds = CounterMetricFamily(
            f"{_PREFIX}http_seconds", "Seconds to the end of the answer.", labels=("path",)
        )
        for path, taken in sorted(self._seen.seconds.items()):
            seconds.add_metric((path,), taken)
        yield seconds

    def respond(self, request: Request) -> Response:  # noqa: ARG002
        """The page that Prometheus reads."""
        return Response(generate_latest(self._registry), media_type=_CONTENT_TYPE)


def log_to_stderr() -> None:
    """Sends the log lines to standard error, each as it is."""
    handler: logging.Handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False
