"""Tabby's dialect: ``POST /v1/completions`` with ``segments``, as its agent for editors sends it.

The path is OpenAI's; a body that has ``segments`` is Tabby's. What it gets is
an editor's suggestion, ended and filtered, with the snippets of other files that
a client adds. The clipboard is not read; neither are its events, which are
thanked for.
"""

import os
import platform
import uuid
from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from .. import __version__
from ..completion.request import CompletionRequest, Snippet
from ..generation.sampling import SamplingOptions
from ..generation.sequence import Cancellation
from .exchange import HttpError, Reply, Server, Whole, endpoint, json_response
from .fields import Fields

MAX_TOKENS = 128  # The agent names no limit.
SNIPPETS = (  # The most telling first.
    "declarations",
    "relevant_snippets_from_changed_files",
    "relevant_snippets_from_recently_opened_files",
)


def routes(server: Server) -> list[BaseRoute]:
    """The dialect's routes, but for ``/v1/completions`` itself."""

    def health(request: Request) -> Response:  # noqa: ARG001
        version = {"build_date": "", "build_timestamp": "", "git_sha": ""}
        version["git_describe"] = f"tinystarcoder {__version__}"
        return json_response(
            {
                "model": server.model,
                "device": "cpu",
                "arch": platform.machine(),
                "cpu_info": platform.processor(),
                "cpu_count": os.cpu_count() or 1,
                "cuda_devices": [],
                "version": version,
            }
        )

    def setting(request: Request) -> Response:  # noqa: ARG001
        return json_response({"disable_client_side_telemetry": True})

    return [
        Route("/v1/health", health, methods=["GET", "POST"]),
        Route("/v1/events", endpoint(server, _event, shape), methods=["POST"]),
        Route("/v1beta/server_setting", setting, methods=["GET"]),
    ]


def completions(server: Server, others: Callable[[Fields], Reply]) -> Callable[[Fields], Reply]:
    """The answer of ``/v1/completions``: Tabby's with ``segments``, else that of ``others``."""

    def answer(fields: Fields) -> Reply:
        return _suggestion(fields, server) if fields.has("segments") else others(fields)

    return answer


def shape(error: HttpError) -> dict[str, Any]:
    """An error in words."""
    return {"error": str(error)}


def _event(fields: Fields) -> Reply:
    fields.text("type")
    return Whole(lambda _: {})


def _suggestion(fields: Fields, server: Server) -> Reply:
    segments = fields.inner("segments")
    prefix, suffix = segments.text("prefix"), segments.text("suffix", "")
    path = segments.text("filepath", "") or None
    sampling = SamplingOptions(
        max_tokens=min(MAX_TOKENS, server.service.most_tokens),
        temperature=fields.number("temperature", 0.0, 0),
        seed=fields.integer("seed", 0, 0) if fields.has("seed") else None,
    )
    snippets = tuple(
        Snippet(one.text("filepath", ""), one.text("body"))
        for name in SNIPPETS
        for one in segments.inners(name)
    )
    request = CompletionRequest(prefix, suffix, path, sampling=sampling, snippets=snippets)
    fields.ignore("language", "user", "mode", "debug_options")
    fields.end()

    def make(cancelled: Cancellation) -> dict[str, Any]:
        text = server.service.suggest(request, cancelled).text
        return {"id": f"cmpl-{uuid.uuid4().hex}", "choices": [{"index": 0, "text": text}]}

    return Whole(make)
