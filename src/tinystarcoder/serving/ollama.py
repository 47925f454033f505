"""Ollama's dialect: ``POST /api/generate`` (NDJSON) and what its clients ask before it.

A prompt is continued as it stands: there is no chat template, and ``raw`` is
always true. With ``suffix`` it is infilling, which clients look for in the
``template`` that ``/api/show`` gives. A model ``nano`` is known as
``nano:latest`` too. Options that say how to compute, never what, are ignored;
those that would change the text and are not served get a clear 400.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from .. import __version__
from ..completion.request import CompletionRequest
from ..completion.service import CompletionService, Run
from ..generation.sampling import SamplingOptions
from ..generation.sequence import Cancellation, room_for_answer
from .exchange import (
    HttpError,
    Json,
    Reply,
    Server,
    Stream,
    Whole,
    compact,
    endpoint,
    json_response,
)
from .fields import Fields

MEDIA_TYPE = "application/x-ndjson"
TEMPLATE = "{{ .Prompt }}{{ if .Suffix }}{{ .Suffix }}{{ end }}"

_WITHOUT_EFFECT = (
    *("num_ctx", "num_keep", "num_batch", "num_gpu", "main_gpu", "num_thread", "numa"),
    *("use_mmap", "use_mlock", "low_vram", "repeat_last_n"),
)


def routes(server: Server) -> list[BaseRoute]:
    """The dialect's routes."""
    started = datetime.now(UTC).isoformat()

    def generate(fields: Fields) -> Reply:
        return _generate(fields, server)

    def show(fields: Fields) -> Reply:
        name = fields.text("name", "")
        _check_model(fields.text("model", name or None) or name, server)
        fields.refuse("system", "template", "options")
        fields.ignore("verbose")
        fields.end()
        return Whole(lambda _: _shown(server))

    def tags(request: Request) -> Response:  # noqa: ARG001
        return json_response({"models": [_listed(server, started)]})

    def version(request: Request) -> Response:  # noqa: ARG001
        return json_response({"version": __version__})

    def post(path: str, answer: Callable[[Fields], Reply]) -> Route:
        return Route(path, endpoint(server, answer, shape), methods=["POST"])

    return [
        post("/api/generate", generate),
        post("/api/show", show),
        Route("/api/tags", tags, methods=["GET"]),
        Route("/api/version", version, methods=["GET"]),
    ]


def shape(error: HttpError) -> dict[str, Any]:
    """An error as Ollama gives it."""
    return {"error": str(error)}


def line(value: Json) -> bytes:
    """One line of NDJSON."""
    return compact(value) + b"\n"


@dataclass(frozen=True)
class _Asked:
    """One request, typed. ``limit``: num_predict, negative for as many as fit."""

    prompt: str
    suffix: str
    limit: int
    options: SamplingOptions
    stream: bool


def _read(fields: Fields, server: Server) -> _Asked:
    _check_model(fields.text("model"), server)
    inner = fields.inner("options")
    limit = inner.integer("num_predict", -1, -2)
    options = SamplingOptions(
        temperature=inner.number("temperature", 0.8, 0),
        top_k=max(0, inner.integer("top_k", 40, -1)),
        top_p=inner.number("top_p", 0.9, 0, 1),
        min_p=inner.number("min_p", 0.0, 0, 1),
        repetition_penalty=inner.number("repeat_penalty", 1.0, 1e-3),
        seed=inner.integer("seed", 0, 0) if inner.has("seed") else None,
        stop=inner.texts("stop"),
    )
    inner.expect_neutral()
    inner.ignore(*_WITHOUT_EFFECT)
    inner.end()
    asked = _Asked(
        fields.text("prompt", ""),
        fields.text("suffix", ""),
        limit,
        options,
        fields.flag("stream", True),
    )
    fields.expect("system", "")
    fields.expect("template", "")
    fields.expect("format", "")
    fields.expect("think", False)
    fields.ignore("raw", "keep_alive")
    fields.refuse("context", "images")
    fields.end()
    return asked


def _generate(fields: Fields, server: Server) -> Reply:
    asked, service = _read(fields, server), server.service
    if not asked.prompt and not asked.suffix:  # How clients load a model.
        return Whole(lambda _: {**_head(server), "response": "", **_done("load")})
    new_run = _prompted(asked, service)
    new_run()  # Complains before a stream has begun.

    def whole(cancelled: Cancellation) -> dict[str, Any]:
        begun = time.monotonic()
        run = new_run(cancelled).whole()
        return {**_head(server), "response": run.text, **_final(run, begun)}

    def stream(cancelled: Cancellation) -> Iterator[bytes]:
        begun, run = time.monotonic(), new_run(cancelled)
        with closing(run.pieces()) as pieces:
            for piece in pieces:
                if piece.text:
                    yield line({**_head(server), "response": piece.text, "done": False})
        yield line({**_head(server), "response": "", **_final(run, begun)})

    return Stream(stream, line, MEDIA_TYPE) if asked.stream else Whole(whole)


def _prompted(asked: _Asked, service: CompletionService) -> Callable[..., Run]:
    """Makes runs of what was asked, with as many tokens as ``num_predict`` comes to."""
    if asked.suffix:
        most = service.most_tokens
        limit = min(asked.limit, most) if asked.limit > 0 else most
        sampling = replace(asked.options, max_tokens=limit)
        request = CompletionRequest(asked.prompt, asked.suffix, sampling=sampling)
        return partial(service.fill, request)
    ids = service.model.tokenizer.encode(asked.prompt, special=True)
    room = room_for_answer(service.model.config, len(ids))
    limit = min(asked.limit, room) if asked.limit > 0 else room
    return partial(service.run, ids, replace(asked.options, max_tokens=limit))


def _check_model(name: str, server: Server) -> None:
    if name.removesuffix(":latest") != server.model:
        raise HttpError(404, f"model '{name}' not found; this server has {server.model}")


def _head(server: Server) -> dict[str, Any]:
    return {"model": server.model, "created_at": datetime.now(UTC).isoformat()}


def _done(reason: str) -> dict[str, Any]:
    return {"done": True, "done_reason": reason}


def _final(run: Run, begun: float) -> dict[str, Any]:
    """The last object's account of the work; durations in nanoseconds."""
    cost = run.cost
    return {
        **_done(run.finish_reason),
        "total_duration": _nanoseconds(time.monotonic() - begun),
        "load_duration": 0,
        "prompt_eval_count": cost.prompt_tokens,
        "prompt_eval_duration": _nanoseconds(cost.prompt_seconds),
        "eval_count": cost.completion_tokens,
        "eval_duration": _nanoseconds(cost.completion_seconds),
    }


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)


def _details(server: Server) -> dict[str, Any]:
    millions = server.service.model.config.num_parameters() / 1e6
    return {
        "format": "safetensors",
        "family": "gpt_bigcode",
        "families": ["gpt_bigcode"],
        "parameter_size": f"{millions:.1f}M",
        "quantization_level": "",
    }


def _listed(server: Server, started: str) -> dict[str, Any]:
    return {
        "name": f"{server.model}:latest",
        "model": f"{server.model}:latest",
        "modified_at": started,
        "size": 0,
        "digest": "",
        "details": _details(server),
    }


def _shown(server: Server) -> dict[str, Any]:
    config, can_infill = server.service.model.config, server.service.model.tokenizer.fim
    architecture = "gpt_bigcode"
    return {
        "modelfile": "",
        "template": TEMPLATE if can_infill else "{{ .Prompt }}",
        "details": _details(server),
        "model_info": {
            "general.architecture": architecture,
            f"{architecture}.context_length": config.n_positions,
            f"{architecture}.embedding_length": config.n_embd,
            f"{architecture}.block_count": config.n_layer,
        },
        "capabilities": ["completion", "insert"] if can_infill else ["completion"],
    }
