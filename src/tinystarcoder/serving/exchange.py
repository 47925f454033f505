"""What every dialect's exchange is made of: a bounded body, a worker thread, a reply.

The event loop never generates: work is done in a thread, which is told to stop
as soon as the client has gone or its time is over, and does within one token.
Where too many wait for the engine, the answer is 503 with ``Retry-After``. A
body that comes too slowly is 408. It gives up a time limit for a client that
reads slowly: it holds a connection of its own, but neither a thread nor the engine.
"""

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, field
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ..completion.service import CompletionService
from ..corpus.attribution import CompactIndex, FullIndex
from ..errors import BusyError, TinyStarcoderError
from ..generation.sequence import Cancellation
from .fields import FieldError, Fields

T = TypeVar("T")
Json = Mapping[str, Any] | list[Any]

MAX_BODY = 4 << 20
MAX_SECONDS = 300.0
MAX_THREADS = 256  # More than run and wait at the engine, so that who comes then is told so.
RETRY_AFTER = {"retry-after": "1"}


@dataclass(frozen=True)
class Server:
    """What dialects serve: one service, by one name.

    ``max_body`` is in bytes; a body has ``max_seconds`` to come, and after as
    many more an answer ends as it is. ``attribution``: an index of what the
    model was trained on, if there is one. ``threads`` do what takes time.
    """

    service: CompletionService
    model: str
    max_body: int = MAX_BODY
    max_seconds: float = MAX_SECONDS
    attribution: FullIndex | CompactIndex | None = None
    threads: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(MAX_THREADS, "exchange")
    )


class HttpError(Exception):
    """An answer other than 200, in words; the dialect gives it its shape."""

    def __init__(
        self, status: int, message: str, *, field: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.field = field
        self.code = code


ErrorShape = Callable[[HttpError], Json]
Answer = Callable[[Fields], "Reply"]


def compact(value: Json) -> bytes:
    """JSON without a space, which some clients' patterns rely on; ASCII, so any text fits."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()


def event(value: Json) -> bytes:
    """One server-sent event."""
    return b"data: " + compact(value) + b"\n\n"


def json_response(value: Json, status: int = 200) -> Response:
    """A whole reply."""
    return Response(compact(value), status, media_type="application/json")


@dataclass(frozen=True)
class Whole:
    """A reply that is made in one piece, in a thread."""

    make: Callable[[Cancellation], Json]


@dataclass(frozen=True)
class Stream:
    """A reply of events, made one after another in a thread; ``frame`` makes one of an object."""

    make: Callable[[Cancellation], Iterator[bytes]]
    frame: Callable[[Json], bytes] = event
    media_type: str = "text/event-stream"


Reply = Whole | Stream


def endpoint(
    server: Server, answer: Answer, shape: ErrorShape
) -> Callable[[Request], Awaitable[Response]]:
    """A route's function: body to fields, ``answer`` to a reply, errors by ``shape``."""

    async def serve(request: Request) -> Response:
        try:
            body = await _body(request, server)
            # Tokenizing a long text takes its time too.
            reply = await _in_thread(server, lambda: answer(Fields.parse(body)))
            if isinstance(reply, Stream):
                return _EventStream(server, reply, shape)
            made = await _while_wanted(server, request.receive, reply.make)
            return json_response(made)
        except (HttpError, FieldError, TinyStarcoderError) as error:
            told = _as_http(error)
            response = json_response(shape(told), told.status)
            if told.status == 503:
                response.headers.update(RETRY_AFTER)
            return response
        except ClientDisconnect:
            return Response(status_code=400)  # Half a request: nobody reads this.

    return serve


def _as_http(error: HttpError | FieldError | TinyStarcoderError) -> HttpError:
    if isinstance(error, HttpError):
        return error
    if isinstance(error, BusyError):
        return HttpError(503, str(error), code="overloaded")
    return HttpError(400, str(error), field=getattr(error, "field", None))


async def _body(request: Request, server: Server) -> bytes:
    """The body. Raises HttpError once it is longer than the limit, unread, or takes too long."""
    body, seconds = bytearray(), server.max_seconds
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.stream():
                body += chunk
                if len(body) > server.max_body:
                    raise HttpError(413, f"the body is larger than {server.max_body} bytes")
    except TimeoutError as error:
        raise HttpError(408, f"the body did not come within {seconds:g} seconds") from error
    return bytes(body)


async def _in_thread(server: Server, work: Callable[[], T]) -> T:
    """Runs ``work`` in a thread that knows what this task knows: who asks."""
    loop, context = asyncio.get_running_loop(), copy_context()
    return await loop.run_in_executor(server.threads, context.run, work)


async def _while_wanted(server: Server, receive: Receive, work: Callable[[Cancellation], T]) -> T:
    """Runs ``work`` in a thread, until the client goes or time is up; ends what it has begun."""
    gone = threading.Event()

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        gone.set()

    watcher = asyncio.create_task(watch())
    alarm = asyncio.get_running_loop().call_later(server.max_seconds, gone.set)
    try:
        return await _in_thread(server, lambda: work(gone))
    finally:
        gone.set()
        alarm.cancel()
        watcher.cancel()


class _EventStream(Response):
    """Sends events as a thread makes them; a slow client never holds the engine."""

    def __init__(self, server: Server, reply: Stream, shape: ErrorShape) -> None:
        super().__init__(headers={"cache-control": "no-cache"}, media_type=reply.media_type)
        del self.headers["content-length"]
        self._server = server
        self._reply = reply
        self._shape = shape

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        loop, events = asyncio.get_running_loop(), asyncio.Queue[bytes | None]()

        def work(cancelled: Cancellation) -> None:
            for made in self._reply.make(cancelled):
                loop.call_soon_threadsafe(events.put_nowait, made)

        async def produce() -> None:
            try:
                await _while_wanted(self._server, receive, work)
            except TinyStarcoderError as error:
                events.put_nowait(self._reply.frame(self._shape(_as_http(error))))
            finally:
                events.put_nowait(None)

        producer = asyncio.create_task(produce())
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        try:
            await send(start)
            while (made := await events.get()) is not None:
                await send({"type": "http.response.body", "body": made, "more_body": True})
                await asyncio.sleep(0)  # Neither line waits while there is more: let others run.
            await producer
            await send({"type": "http.response.body", "body": b""})
        finally:
            producer.cancel()
