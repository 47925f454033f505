"""OpenAI's dialect: ``POST /v1/completions`` and ``GET /v1/models``.

What a client asks is what it gets, by its own options: the filters of an
editor's suggestion are not applied, not even with ``suffix``. Given up, each
with a clear 400: several prompts at once, prompts of token ids, penalties,
``logit_bias``, a ``best_of`` beyond ``n``, the logprobs of an echoed prompt.
"""

import codecs
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from ..completion.request import CompletionRequest, Cost
from ..completion.service import CompletionService, Run
from ..generation.sampling import SamplingOptions
from ..generation.sequence import Cancellation, Token
from ..tokenizer import Tokenizer
from . import tabby
from .exchange import HttpError, Reply, Server, Stream, Whole, endpoint, event, json_response
from .fields import Fields

MAX_CHOICES = 16
MAX_LOGPROBS = 5


@dataclass(frozen=True)
class _Asked:
    """One request, typed. ``logprobs``: alternatives a token; None for no logprobs at all."""

    prompt: str
    suffix: str | None
    options: SamplingOptions
    number: int
    echo: bool
    logprobs: int | None
    stream: bool
    include_usage: bool


def routes(server: Server) -> list[BaseRoute]:
    """The dialect's routes."""

    def answer(fields: Fields) -> Reply:
        return _Answer(server, _read(fields, server)).reply()

    created = int(time.time())

    def models(request: Request) -> Response:  # noqa: ARG001
        model = {"id": server.model, "object": "model", "created": created, "owned_by": "local"}
        return json_response({"object": "list", "data": [model]})

    return [
        # Tabby's clients post to the same path; only errors in a body's form are told by ours.
        Route(
            "/v1/completions",
            endpoint(server, tabby.completions(server, answer), shape),
            methods=["POST"],
        ),
        Route("/v1/models", models, methods=["GET"]),
    ]


def shape(error: HttpError) -> dict[str, Any]:
    """An error as OpenAI's clients read it."""
    kind = "server_error" if error.status >= 500 else "invalid_request_error"
    told = {"message": str(error), "type": kind}
    return {"error": {**told, "param": error.field, "code": error.code}}


def check_model(fields: Fields, server: Server) -> None:
    """Raises HttpError where another model is named than the one that is served."""
    if fields.text("model", server.model) != server.model:
        message = f"there is no such model here; this server has {server.model}"
        raise HttpError(404, message, field="model", code="model_not_found")


def _read(fields: Fields, server: Server) -> _Asked:
    check_model(fields, server)
    number = fields.integer("n", 1, 1, MAX_CHOICES)
    logprobs = fields.integer("logprobs", 0, 0, MAX_LOGPROBS) if fields.has("logprobs") else None
    echo = fields.flag("echo")
    if echo and logprobs is not None:
        raise HttpError(400, "echo with logprobs is not served: ask for one of them", field="echo")
    stream, stream_options = fields.flag("stream"), fields.inner("stream_options")
    include_usage = stream_options.flag("include_usage")
    stream_options.ignore("include_obfuscation")
    stream_options.end()
    options = SamplingOptions(
        max_tokens=fields.integer("max_tokens", 16, 1),
        temperature=fields.number("temperature", 1.0, 0, 2),
        top_p=fields.number("top_p", 1.0, 0, 1),
        seed=fields.integer("seed", 0, 0) if fields.has("seed") else None,
        stop=fields.texts("stop"),
        top_logprobs=logprobs or 0,
    )
    suffix = fields.text("suffix") if fields.has("suffix") else None
    asked = _Asked(
        fields.one_text("prompt"), suffix, options, number, echo, logprobs, stream, include_usage
    )
    fields.expect("best_of", number)
    fields.expect("frequency_penalty", 0)
    fields.expect("presence_penalty", 0)
    fields.expect("logit_bias", {})
    fields.ignore("user")
    fields.end()
    return asked


class _Answer:
    """One request's reply, whole or streamed."""

    def __init__(self, server: Server, asked: _Asked) -> None:
        self._service: CompletionService = server.service
        self._asked = asked
        self._new_run = self._prompted()
        self._new_run()  # Complains before a stream has begun.
        self._common = {
            "id": f"cmpl-{uuid.uuid4().hex}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": server.model,
        }

    def reply(self) -> Reply:
        return Stream(self._stream) if self._asked.stream else Whole(self._whole)

    def _prompted(self) -> Callable[..., Run]:
        asked, service = self._asked, self._service
        if asked.suffix is None:
            ids = service.model.tokenizer.encode(asked.prompt, special=True)
            return partial(service.run, ids, asked.options)
        request = CompletionRequest(asked.prompt, asked.suffix, sampling=asked.options)
        return partial(service.fill, request)

    def _runs(self, cancelled: Cancellation) -> list[Run]:
        """One run a choice, all queued, so that they share one prefill and its passes."""
        samples = range(self._asked.number)
        return [self._new_run(cancelled, sample=sample).start() for sample in samples]

    def _whole(self, cancelled: Cancellation) -> dict[str, Any]:
        runs = [run.whole() for run in self._runs(cancelled)]
        choices = []
        for index, run in enumerate(runs):
            logprobs = self._logprobs(run)
            if logprobs is not None:
                logprobs.add(run.tokens)
            shown = logprobs and logprobs.take(len(run.text))
            text = self._asked.prompt * self._asked.echo + run.text
            choices.append(_choice(index, text, shown, run.finish_reason))
        return {**self._common, "choices": choices, "usage": _usage([run.cost for run in runs])}

    def _stream(self, cancelled: Cancellation) -> Iterator[bytes]:
        costs = []
        for index, run in enumerate(self._runs(cancelled)):
            if self._asked.echo:
                yield self._event([_choice(index, self._asked.prompt, None, None)])
            yield from self._chunks(index, run)
            costs.append(run.cost)
        if self._asked.include_usage:
            yield event({**self._common, "choices": [], "usage": _usage(costs)})
        yield b"data: [DONE]\n\n"

    def _chunks(self, index: int, run: Run) -> Iterator[bytes]:
        logprobs = self._logprobs(run)
        with closing(run.pieces()) as pieces:
            for piece in pieces:
                if logprobs is not None:
                    logprobs.add(piece.tokens)
                if piece.text or piece.finish_reason:
                    shown = logprobs and logprobs.take(len(run.text))
                    yield self._event([_choice(index, piece.text, shown, piece.finish_reason)])
        if run.finish == "cancelled":
            yield self._event([_choice(index, "", None, run.finish_reason)])

    def _event(self, choices: list[dict[str, Any]]) -> bytes:
        usage = {"usage": None} if self._asked.include_usage else {}
        return event({**self._common, "choices": choices, **usage})

    def _logprobs(self, run: Run) -> "_Logprobs | None":
        tokenizer = self._service.model.tokenizer
        return None if self._asked.logprobs is None else _Logprobs(tokenizer, run)


class _Logprobs:
    """The tokens of one text in OpenAI's form, as far as their text is shown."""

    def __init__(self, tokenizer: Tokenizer, run: Run) -> None:
        self._tokenizer = tokenizer
        self._run = run
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")
        # The first tokens write the prompt's end again, which is not shown.
        self._written = -len(run.spelled(run.beginning))
        self._waiting: list[tuple[int, Token]] = []

    def add(self, tokens: tuple[Token, ...] | list[Token]) -> None:
        for token in tokens:
            if token.id not in self._tokenizer.special_ids:
                start = self._written
                text = self._utf8.decode(self._tokenizer.token_bytes(token.id))
                self._written += len(self._run.spelled(text))
                if start >= 0 or self._written > 0:
                    self._waiting.append((start, token))

    def take(self, shown: int) -> dict[str, list[Any]]:
        """The tokens, not taken yet, whose text begins within the first ``shown`` characters."""
        taken = [(offset, token) for offset, token in self._waiting if offset < shown]
        del self._waiting[: len(taken)]
        return {
            "tokens": [self._spelled(token.id)[max(0, -offset) :] for offset, token in taken],
            "token_logprobs": [token.logprob for _, token in taken],
            "top_logprobs": [
                {self._spelled(i): logprob for i, logprob in token.alternatives}
                for _, token in taken
            ],
            "text_offset": [max(0, offset) for offset, _ in taken],
        }

    def _spelled(self, token_id: int) -> str:
        if token_id in self._tokenizer.special_ids:
            return self._tokenizer.decode([token_id])
        raw = self._tokenizer.token_bytes(token_id)
        try:
            return raw.decode()
        except UnicodeDecodeError:  # A part of a character.
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)


def _choice(index: int, text: str, logprobs: Any, reason: str | None) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": reason}


def _usage(costs: list[Cost]) -> dict[str, Any]:
    first = costs[0]
    completion = sum(cost.completion_tokens for cost in costs)
    return {
        "prompt_tokens": first.prompt_tokens,
        "completion_tokens": completion,
        "total_tokens": first.prompt_tokens + completion,
        "prompt_tokens_details": {"cached_tokens": first.reused_tokens},
    }
