"""The application: every dialect's routes behind one guard.

The guard keeps web pages out: a page's host name can be made to resolve to this
machine (DNS rebinding), so a request must name an address, ``localhost`` or
the host that was asked for; and a request that some page sends carries the
page's origin. It gives up keys and limits a client: who can reach the address
may ask.
"""

from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from . import fim, llama_cpp, ollama, openai, tabby
from .exchange import Server, json_response

DIALECTS = (openai, fim, llama_cpp, ollama, tabby)


def create_app(server: Server, host: str = "127.0.0.1") -> Starlette:
    """The ASGI application for a server that was asked to listen on ``host``."""
    return Starlette(
        routes=[route for dialect in DIALECTS for route in dialect.routes(server)],
        middleware=[Middleware(Guard, host=host)],
        exception_handlers={HTTPException: _unserved, Exception: _failed},
    )


class Guard:
    """Lets through what names this machine by address or known name, and no page's requests."""

    def __init__(self, app: ASGIApp, host: str) -> None:
        self._app = app
        self._names = {"localhost", host.lower()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        problem = self._problem(Request(scope)) if scope["type"] == "http" else None
        if problem is None:
            await self._app(scope, receive, send)
        else:
            await _error(403, problem)(scope, receive, send)

    def _problem(self, request: Request) -> str | None:
        host, origin = request.headers.get("host", ""), request.headers.get("origin")
        if not self._is_ours(host):
            return "the Host header names another machine; use an address, or localhost"
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            return "the Origin header names another site: web pages are not served"
        return None

    def _is_ours(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
            return name in self._names or bool(ip_address(name))
        except ValueError:
            return False


def _error(status: int, message: str) -> Response:
    """For what belongs to no dialect: OpenAI's clients and llama.cpp's both read this."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    return json_response({"error": {"message": message, "type": kind, "code": status}}, status)


def _unserved(request: Request, error: Exception) -> Response:  # noqa: ARG001
    assert isinstance(error, HTTPException)
    told = {404: "nothing is served here", 405: "this method is not served here"}
    response = _error(error.status_code, told.get(error.status_code, error.detail))
    response.headers.update(error.headers or {})
    return response


def _failed(request: Request, error: Exception) -> Response:  # noqa: ARG001
    return _error(500, f"the server failed: {type(error).__name__}")
