"""``GET /openapi.json``: what may be posted where, for tools that read such a document.

A table by hand, since a dialect takes its fields one by one: a body's fields,
their kinds and bounds. A test posts each field with a wrong value, so that none
stands here that is not read. It gives up answers: their form is each dialect's
own documentation.
"""

from collections.abc import Iterable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from .. import __version__
from .exchange import json_response

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
FLAG: Schema = {"type": "boolean"}
TEXTS: Schema = {"oneOf": [TEXT, {"type": "array", "items": TEXT}]}
ONE_TEXT: Schema = {"oneOf": [TEXT, {"type": "array", "items": TEXT, "minItems": 1, "maxItems": 1}]}


def _integer(low: int, high: int | None = None) -> Schema:
    return {"type": "integer", **_bounds(low, high)}


def _number(low: float, high: float | None = None) -> Schema:
    return {"type": "number", **_bounds(low, high)}


def _bounds(low: float, high: float | None) -> Schema:
    return {"minimum": low} if high is None else {"minimum": low, "maximum": high}


def _object(fields: Schema, *required: str) -> Schema:
    needed = {"required": list(required)} if required else {}
    return {"type": "object", "properties": fields, **needed}


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


_PLAIN = {"prompt": TEXT, "stop": TEXTS, "stream": FLAG}
_LLAMA = {
    "model": TEXT,
    "n_predict": _integer(-1),
    "seed": _integer(-1),
    "stop": TEXTS,
    "temperature": _number(0),
    "top_k": _integer(-1),
    "top_p": _number(0, 1),
    "min_p": _number(0, 1),
    "repeat_penalty": _number(1e-3),
    "stream": FLAG,
    "response_fields": TEXTS,
}
_SNIPPETS = _list(_object({"filepath": TEXT, "body": TEXT}, "body"))
_FIM = _object(
    {
        **_PLAIN,
        "model": TEXT,
        "suffix": TEXT,
        "max_tokens": _integer(1),
        "random_seed": _integer(0),
        "temperature": _number(0, 2),
        "top_p": _number(0, 1),
    },
    "prompt",
)
_TABBY = _object(
    {
        "segments": _object(
            {
                "prefix": TEXT,
                "suffix": TEXT,
                "filepath": TEXT,
                "declarations": _SNIPPETS,
                "relevant_snippets_from_changed_files": _SNIPPETS,
                "relevant_snippets_from_recently_opened_files": _SNIPPETS,
            },
            "prefix",
        ),
        "temperature": _number(0),
        "seed": _integer(0),
    },
    "segments",
)
_OPENAI = _object(
    {
        **_PLAIN,
        "prompt": ONE_TEXT,
        "model": TEXT,
        "suffix": TEXT,
        "max_tokens": _integer(1),
        "seed": _integer(0),
        "temperature": _number(0, 2),
        "top_p": _number(0, 1),
        "n": _integer(1, 16),
        "echo": FLAG,
        "logprobs": _integer(0, 5),
        "stream_options": _object({"include_usage": FLAG}),
    },
    "prompt",
)
_OLLAMA_OPTIONS = {
    "num_predict": _integer(-2),
    "temperature": _number(0),
    "top_k": _integer(-1),
    "top_p": _number(0, 1),
    "min_p": _number(0, 1),
    "repeat_penalty": _number(1e-3),
    "seed": _integer(0),
    "stop": TEXTS,
}

# Path -> what may be posted to it.
BODIES: dict[str, Schema] = {
    "/v1/completions": {"anyOf": [_OPENAI, _TABBY]},
    "/fim/completions": _FIM,
    "/v1/fim/completions": _FIM,
    "/infill": _object(
        {
            **_LLAMA,
            "prompt": TEXT,
            "input_prefix": TEXT,
            "input_suffix": TEXT,
            "input_extra": _list(_object({"text": TEXT, "filename": TEXT}, "text")),
            "n_cmpl": _integer(1, 16),
            "t_max_predict_ms": _number(-1),
        }
    ),
    "/completion": _object({**_LLAMA, "prompt": TEXT}, "prompt"),
    "/tokenize": _object(
        {"content": TEXT, "parse_special": FLAG, "with_pieces": FLAG, "add_special": FLAG},
        "content",
    ),
    "/detokenize": _object({"tokens": _list(_integer(0))}, "tokens"),
    "/api/generate": _object(
        {
            "model": TEXT,
            "prompt": TEXT,
            "suffix": TEXT,
            "stream": FLAG,
            "options": _object(_OLLAMA_OPTIONS),
        },
        "model",
    ),
    "/api/show": _object({"model": TEXT}, "model"),
    "/v1/health": {},
    "/v1/events": _object({"type": TEXT}, "type"),
    "/playground/suggest": _object(
        {
            "prefix": TEXT,
            "suffix": TEXT,
            "mode": {"enum": ["auto", "line", "block"]},
            "max_tokens": _integer(1),
            "temperature": _number(0, 2),
            "top_p": _number(0, 1),
            "top_k": _integer(0),
            "seed": _integer(0),
        },
        "prefix",
    ),
}


def route(others: Iterable[BaseRoute]) -> Route:
    """The document's own route, over the application's others."""
    document = _document([one for one in others if isinstance(one, Route)])

    def respond(request: Request) -> Response:  # noqa: ARG001
        return json_response(document)

    return Route("/openapi.json", respond, methods=["GET"])


def _document(routes: Iterable[Route]) -> Schema:
    paths: Schema = {}
    for one in routes:
        for method in sorted((one.methods or set()) - {"HEAD"}):
            paths.setdefault(one.path, {})[method.lower()] = _operation(one.path, method)
    return {
        "openapi": "3.1.0",
        "info": {"title": "tinystarcoder", "version": __version__},
        "paths": paths,
    }


def _operation(path: str, method: str) -> Schema:
    told = {"200": {"description": "the answer"}, "4XX": {"description": "what is wrong with it"}}
    if method != "POST" or not (schema := BODIES[path]):
        return {"responses": told}
    content = {"application/json": {"schema": schema}}
    return {"requestBody": {"required": True, "content": content}, "responses": told}
