"""The application: every dialect's routes behind one guard.

The guard keeps web pages out: a page's host name can be made to resolve to this
machine (DNS rebinding), so a request must name an address, ``localhost`` or
the host that was asked for; and a request that some page sends carries the
page's origin. With a key, it asks for that too, but for ``/health`` and the
playground's files. Who has many requests open at once is told to wait. No
answer has a CORS header, so no browser gives one to another site's page.
"""

import hmac
from collections import Counter
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from ..completion.service import CLIENT
from . import fim, llama_cpp, ollama, openai, openapi, playground, tabby
from .exchange import RETRY_AFTER, HttpError, Server, json_response
from .observe import Metrics, Observed, Seen

DIALECTS = (openai, fim, llama_cpp, ollama, tabby, playground)
OPEN_TO_ALL = ("/health", *playground.FILES)
MAX_OPEN = 32  # Requests of one client at once.


def create_app(
    server: Server, host: str = "127.0.0.1", *, api_key: str = "", log_text: bool = False
) -> Starlette:
    """The ASGI application for a server that was asked to listen on ``host``.

    ``api_key``: what clients must send as ``Authorization: Bearer``, if not
    empty. ``log_text``: log what they send, too.
    """
    seen = Seen()
    metrics = Route("/metrics", Metrics(server.service, seen).respond, methods=["GET"])
    routes = [metrics, *(route for dialect in DIALECTS for route in dialect.routes(server))]
    routes.append(openapi.route(routes))
    paths = {route.path for route in routes if isinstance(route, Route)}
    return Starlette(
        routes=routes,
        middleware=[
            Middleware(Observed, seen=seen, paths=paths, log_text=log_text),
            Middleware(Guard, host=host, api_key=api_key),
            Middleware(Limit),
        ],
        exception_handlers={HTTPException: _unserved, Exception: _failed},
    )


class Guard:
    """Lets through what names this machine, has the key, and comes from no other site's page."""

    def __init__(self, app: ASGIApp, host: str, api_key: str = "") -> None:
        self._app = app
        self._names = {"localhost", host.lower()}
        self._authorization = f"Bearer {api_key}".encode() if api_key else b""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope) if scope["type"] == "http" else None
        if request and (problem := self._problem(request)):
            await _error(scope, 403, problem)(scope, receive, send)
        elif request and not self._has_key(request):
            response = _error(scope, 401, "the API key is missing or wrong")
            response.headers["www-authenticate"] = "Bearer"
            await response(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _has_key(self, request: Request) -> bool:
        # By the path that is routed: in a URL, the Host header stands before it.
        if not self._authorization or request.scope["path"] in OPEN_TO_ALL:
            return True
        sent = request.headers.get("authorization", "").encode("latin-1")  # The bytes as they came.
        return hmac.compare_digest(sent, self._authorization)  # Takes as long for any wrong key.

    def _problem(self, request: Request) -> str | None:
        host, origin = request.headers.get("host", ""), request.headers.get("origin")
        if not self._is_ours(host):
            return "the Host header names another machine; use an address, or localhost"
        # Of an origin, the scheme is left out: a proxy before this server may speak TLS.
        if origin is not None and origin.lower().partition("://")[2] != host.lower():
            return "the Origin header names another site: web pages are not served"
        return None

    def _is_ours(self, host: str) -> bool:
        try:
            parts = urlsplit(f"//{host}")
            name = parts.hostname or ""
            is_plain = parts.netloc == host and parts.username is None
            return is_plain and (name in self._names or bool(ip_address(name)))
        except ValueError:
            return False


class Limit:
    """Bounds what one client has open, so that it cannot keep the others from being heard."""

    def __init__(self, app: ASGIApp, most: int = MAX_OPEN) -> None:
        self._app = app
        self._most = most
        self._open: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        client = (scope.get("client") or ("",))[0]
        if self._open[client] >= self._most:
            problem = f"{self._most} requests of yours are open already: ask later"
            response = _error(scope, 429, problem)
            response.headers.update(RETRY_AFTER)
            await response(scope, receive, send)
            return
        self._open[client] += 1
        CLIENT.set(client)
        try:
            await self._app(scope, receive, send)
        finally:
            self._open[client] -= 1
            if not self._open[client]:
                del self._open[client]


def _error(scope: Scope, status: int, message: str) -> Response:
    """What is told before a dialect is asked: OpenAI's clients and llama.cpp's read the same."""
    if scope["path"].startswith("/api/"):
        return json_response(ollama.shape(HttpError(status, message)), status)
    kind = "invalid_request_error" if status < 500 else "server_error"
    return json_response({"error": {"message": message, "type": kind, "code": status}}, status)


def _unserved(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    told = {404: "nothing is served here", 405: "this method is not served here"}
    message = told.get(error.status_code, error.detail)
    response = _error(request.scope, error.status_code, message)
    response.headers.update(error.headers or {})
    return response


def _failed(request: Request, error: Exception) -> Response:
    return _error(request.scope, 500, f"the server failed: {type(error).__name__}")
