"""``POST /fim/completions``: fill-in-the-middle as Mistral's API has it, which Continue speaks.

Answers have a chat's form around plain code: ``choices[0].message.content``, or
``choices[0].delta.content`` in a stream. As in OpenAI's dialect, the text is
what the options ask for, without an editor's filters.
"""

import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from typing import Any

from starlette.routing import BaseRoute, Route

from ..completion.request import CompletionRequest
from ..completion.service import Run
from ..generation.sampling import SamplingOptions
from .exchange import Reply, Server, Stream, Whole, endpoint, event
from .fields import Fields
from .openai import check_model, shape

MAX_TOKENS = 256


def routes(server: Server) -> list[BaseRoute]:
    """The dialect's routes."""

    def answer(fields: Fields) -> Reply:
        return _answer(fields, server)

    function = endpoint(server, answer, shape)
    paths = ("/fim/completions", "/v1/fim/completions")
    return [Route(path, function, methods=["POST"]) for path in paths]


def _answer(fields: Fields, server: Server) -> Reply:
    check_model(fields, server)
    options = SamplingOptions(
        max_tokens=fields.integer("max_tokens", MAX_TOKENS, 1),
        temperature=fields.number("temperature", 0.0, 0, 2),
        top_p=fields.number("top_p", 1.0, 0, 1),
        seed=fields.integer("random_seed", 0, 0) if fields.has("random_seed") else None,
        stop=fields.texts("stop"),
    )
    prefix, suffix = fields.text("prompt"), fields.text("suffix", "")
    streams = fields.flag("stream")
    fields.expect("min_tokens", 0)
    fields.expect("frequency_penalty", 0)
    fields.expect("presence_penalty", 0)
    fields.end()
    request = CompletionRequest(prefix, suffix, sampling=options)
    fill = partial(server.service.fill, request)
    fill()  # Complains before a stream has begun.
    common = {"id": uuid.uuid4().hex, "created": int(time.time()), "model": server.model}
    if streams:
        return Stream(lambda cancelled: _stream(fill(cancelled), common))
    return Whole(lambda cancelled: _whole(fill(cancelled).whole(), common))


def _whole(run: Run, common: dict[str, Any]) -> dict[str, Any]:
    message = {"role": "assistant", "content": run.text}
    choice = {"index": 0, "message": message, "finish_reason": run.finish_reason}
    used, made = run.cost.prompt_tokens, run.cost.completion_tokens
    usage = {"prompt_tokens": used, "completion_tokens": made, "total_tokens": used + made}
    return {**common, "object": "chat.completion", "choices": [choice], "usage": usage}


def _stream(run: Run, common: dict[str, Any]) -> Iterator[bytes]:
    def chunk(text: str, *, is_last: bool) -> bytes:
        delta = {"role": "assistant", "content": text}
        reason = run.finish_reason if is_last else None
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        return event({**common, "object": "chat.completion.chunk", "choices": [choice]})

    with closing(run.pieces()) as pieces:
        for piece in pieces:
            yield chunk(piece.text, is_last=piece.finish_reason is not None)
    if run.finish == "cancelled":
        yield chunk("", is_last=True)
    yield b"data: [DONE]\n\n"
