"""llama.cpp's dialect: ``POST /infill`` and ``/completion``, and the small ones around them.

``/infill`` is what llama.vim and llama.vscode speak, and answers with a
suggestion: one line or a block, ended and filtered as for any editor.
``/completion`` is a plain continuation. Where they differ from llama.cpp:

- ``/infill`` is greedy unless a temperature is given, and always whole: a
  filter reads the text to its end. With ``n_cmpl`` the first is that, the
  others are drawn.
- ``n_predict`` takes at most half of the context.
- ``samplers`` is not read; ``t_max_prompt_ms`` has no effect there either.
  Other fields that would change the text get a 400.
- ``id_slot`` names no slot, nor does it tell which request replaces which: editors
  send 0 with all of them.
- of ``input_extra`` the last is nearest to the cursor and goes last where there
  is little room, as there; but each is written under its path as Python, and
  they have a quarter of the context at most.
"""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from .. import __version__
from ..completion.request import CompletionRequest, Cost, Finish, Snippet, Suggestion
from ..completion.service import CompletionService, Prompt, Run
from ..generation.sampling import SamplingOptions
from ..generation.sequence import Cancellation, room_for_answer
from ..tokenizer import Tokenizer
from .exchange import HttpError, Reply, Server, Stream, Whole, endpoint, event, json_response
from .fields import Fields

MAX_COMPLETIONS = 16
DRAWN_TEMPERATURE = 0.8  # llama.cpp's default.
WARM_UP_TOKENS = 128  # The n_predict that llama.vim asks for afterwards.

# They say how to compute, never what.
_WITHOUT_EFFECT = (
    *("id_slot", "cache_prompt", "samplers", "n_indent", "t_max_prompt_ms"),
    *("n_keep", "repeat_last_n", "timings_per_token"),
)
_KINDS = {404: "not_found_error", 503: "unavailable_error"}
_STOP_TYPES: dict[Finish, str] = {"end": "eos", "boundary": "eos", "stop": "word"}


@dataclass(frozen=True)
class _Asked:
    """What both endpoints read. ``limit``: n_predict, negative for as many as fit."""

    limit: int
    sampling: SamplingOptions
    response_fields: tuple[str, ...] | None
    stream: bool


def routes(server: Server) -> list[BaseRoute]:
    """The dialect's routes."""

    def health(request: Request) -> Response:  # noqa: ARG001
        return json_response({"status": "ok"})

    def route(path: str, answer: Callable[[Fields, Server], Reply]) -> Route:
        function = endpoint(server, lambda fields: answer(fields, server), shape)
        return Route(path, function, methods=["POST"])

    def props(request: Request) -> Response:  # noqa: ARG001
        settings = {"n_ctx": server.service.model.config.n_positions}
        return json_response(
            {
                "default_generation_settings": settings,
                "total_slots": server.service.slots,
                "model_path": server.model,
                "chat_template": "",
                "build_info": f"tinystarcoder {__version__}",
            }
        )

    return [
        route("/infill", _infill),
        route("/completion", _completion),
        route("/tokenize", _tokenize),
        route("/detokenize", _detokenize),
        Route("/health", health, methods=["GET"]),
        Route("/props", props, methods=["GET"]),
    ]


def shape(error: HttpError) -> dict[str, Any]:
    """An error as llama.cpp gives it."""
    kind = _KINDS.get(error.status, "invalid_request_error")
    return {"error": {"code": error.status, "message": str(error), "type": kind}}


def _read(fields: Fields, server: Server, temperature: float) -> _Asked:
    if fields.text("model", "") not in ("", server.model):
        raise HttpError(404, f"there is no such model here; this server has {server.model}")
    seed = fields.integer("seed", -1, -1)
    named = fields.has("response_fields")
    asked = _Asked(
        fields.integer("n_predict", -1, -1),
        SamplingOptions(
            temperature=fields.number("temperature", temperature, 0),
            top_k=max(0, fields.integer("top_k", 40, -1)),
            top_p=fields.number("top_p", 0.95, 0, 1),
            min_p=fields.number("min_p", 0.05, 0, 1),
            repetition_penalty=fields.number("repeat_penalty", 1.0, 1e-3),
            seed=None if seed == -1 else seed,
            stop=fields.texts("stop"),
        ),
        fields.texts("response_fields") if named else None,
        fields.flag("stream"),
    )
    fields.expect_neutral()
    fields.ignore(*_WITHOUT_EFFECT)
    return asked


def _infill(fields: Fields, server: Server) -> Reply:
    service = server.service
    asked = _read(fields, server, temperature=0.0)
    number = fields.integer("n_cmpl", 1, 1, MAX_COMPLETIONS)
    deadline = max(0.0, fields.number("t_max_predict_ms", -1, -1)) / 1000
    prefix = fields.text("input_prefix", "") + fields.text("prompt", "")
    suffix = fields.text("input_suffix", "")
    extra = [
        Snippet(one.text("filename", ""), one.text("text")) for one in fields.inners("input_extra")
    ]
    fields.end()
    if asked.stream:
        raise HttpError(400, "stream is served as false only: a suggestion is filtered whole")
    most = service.most_tokens
    wanted = asked.limit if asked.limit >= 0 else most
    sampling = replace(asked.sampling, max_tokens=min(wanted or WARM_UP_TOKENS, most))
    request = CompletionRequest(
        prefix,
        suffix,
        sampling=sampling,
        deadline=deadline or None,
        snippets=tuple(reversed(extra)),
    )

    def make(cancelled: Cancellation) -> Any:
        if asked.limit == 0:
            return _filled(asked, service, service.prompt(request), cancelled, server.model)
        replies = []
        for one in _drawn(request, number):
            suggestion, prompt = service.suggest(one, cancelled), service.prompt(one)
            whole = _Reply(server.model, service, prompt, one.sampling, suggestion)
            replies.append(_chosen(whole.json(), asked.response_fields))
        return replies[0] if number == 1 else replies

    return Whole(make)


def _tokenize(fields: Fields, server: Server) -> Reply:
    """Special tokens are parsed where ``parse_special`` says so: by default, as in llama.cpp."""
    tokenizer = server.service.model.tokenizer
    content, special = fields.text("content"), fields.flag("parse_special", True)
    with_pieces = fields.flag("with_pieces")
    fields.expect("add_special", False, True)  # There are none to add.
    fields.end()
    ids = tokenizer.encode(content, special=special)
    if not with_pieces:
        return Whole(lambda _: {"tokens": ids})
    return Whole(lambda _: {"tokens": [{"id": i, "piece": _piece(tokenizer, i)} for i in ids]})


def _piece(tokenizer: Tokenizer, token_id: int) -> str | list[int]:
    """A token's text, or its bytes where they are a part of a character."""
    if token_id in tokenizer.special_ids:
        return tokenizer.decode([token_id])
    raw = tokenizer.token_bytes(token_id)
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return list(raw)


def _detokenize(fields: Fields, server: Server) -> Reply:
    tokenizer = server.service.model.tokenizer
    ids = fields.integers("tokens", 0, tokenizer.vocab_size - 1)
    fields.end()
    return Whole(lambda _: {"content": tokenizer.decode(ids)})


def _drawn(request: CompletionRequest, number: int) -> Iterator[CompletionRequest]:
    """The request, and the further ones that differ from it in their draws alone."""
    yield request
    sampling, first = request.sampling, request.sampling.seed or 0
    temperature = sampling.temperature or DRAWN_TEMPERATURE
    for seed in range(first + 1, first + number):
        yield replace(request, sampling=replace(sampling, seed=seed, temperature=temperature))


def _completion(fields: Fields, server: Server) -> Reply:
    service = server.service
    asked = _read(fields, server, temperature=DRAWN_TEMPERATURE)
    text = fields.text("prompt")
    fields.end()
    config = service.model.config
    ids = service.model.tokenizer.encode(text, special=True) or [config.bos_token_id]
    prompt, room = Prompt(ids, is_whole=True), room_for_answer(config, len(ids))
    options = replace(
        asked.sampling, max_tokens=min(asked.limit if asked.limit > 0 else room, room)
    )
    service.run(ids, options)  # Complains before a stream has begun.

    def final(run: Run) -> dict[str, Any]:
        shown = "" if asked.stream else run.text
        suggestion = Suggestion(shown, run.finish, run.stopping_word, run.cost)
        reply = _Reply(server.model, service, prompt, options, suggestion)
        return _chosen(reply.json(), asked.response_fields)

    def make(cancelled: Cancellation) -> Any:
        if asked.limit == 0:
            return _filled(asked, service, prompt, cancelled, server.model)
        return final(service.run(ids, options, cancelled).whole())

    def stream(cancelled: Cancellation) -> Iterator[bytes]:
        run = service.run(ids, options, cancelled)
        with closing(run.pieces()) as pieces:
            for piece in pieces:
                if piece.text:
                    yield event({"index": 0, "content": piece.text, "tokens": [], "stop": False})
        yield event(final(run))

    return Stream(stream) if asked.stream and asked.limit else Whole(make)


def _filled(
    asked: _Asked, service: CompletionService, prompt: Prompt, cancelled: Cancellation, model: str
) -> dict[str, Any]:
    """The answer to n_predict 0: the prompt is computed and kept."""
    suggestion = Suggestion("", "length", cost=service.warm_up(prompt.ids, cancelled))
    reply = _Reply(model, service, prompt, asked.sampling, suggestion)
    return _chosen(reply.json(), asked.response_fields)


@dataclass(frozen=True)
class _Reply:
    """What a reply is made of."""

    model: str
    service: CompletionService
    prompt: Prompt
    sampling: SamplingOptions
    suggestion: Suggestion

    def json(self) -> dict[str, Any]:
        made, cost = self.suggestion, self.suggestion.cost
        return {
            "index": 0,
            "content": made.text,
            "tokens": [],
            "stop": True,
            "model": self.model,
            "tokens_predicted": cost.completion_tokens,
            "tokens_evaluated": cost.prompt_tokens,
            "tokens_cached": cost.prompt_tokens + cost.completion_tokens,
            "generation_settings": self._settings(),
            "prompt": self.service.model.tokenizer.decode(self.prompt.ids),
            "truncated": not self.prompt.is_whole,
            "stop_type": _STOP_TYPES.get(made.finish, "limit"),
            "stopping_word": made.stopping_word,
            "timings": _timings(cost),
        }

    def _settings(self) -> dict[str, Any]:
        settings = asdict(self.sampling)
        settings["n_predict"] = settings.pop("max_tokens")
        settings["seed"] = -1 if self.sampling.seed is None else self.sampling.seed
        return {"n_ctx": self.service.model.config.n_positions, **settings}


def _timings(cost: Cost) -> dict[str, Any]:
    computed = cost.prompt_tokens - cost.reused_tokens
    return {
        "cache_n": cost.reused_tokens,
        "prompt_n": computed,
        "prompt_ms": cost.prompt_seconds * 1000,
        "prompt_per_token_ms": _ratio(cost.prompt_seconds * 1000, computed),
        "prompt_per_second": _ratio(computed, cost.prompt_seconds),
        "predicted_n": cost.completion_tokens,
        "predicted_ms": cost.completion_seconds * 1000,
        "predicted_per_token_ms": _ratio(cost.completion_seconds * 1000, cost.completion_tokens),
        "predicted_per_second": _ratio(cost.completion_tokens, cost.completion_seconds),
    }


def _ratio(number: float, by: float) -> float:
    return number / by if by > 0 else 0.0


def _chosen(reply: dict[str, Any], names: tuple[str, ...] | None) -> dict[str, Any]:
    """The reply, or the named fields alone; ``timings/prompt_n`` is a name as it stands."""
    if names is None:
        return reply
    chosen = {}
    for name in names:
        value: Any = reply
        for part in name.split("/"):
            value = value.get(part, reply) if isinstance(value, dict) else reply
        if value is not reply:
            chosen[name] = value
    return chosen
