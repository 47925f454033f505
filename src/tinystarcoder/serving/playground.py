"""The playground: a page at ``/`` to try the model in, and the one request it makes.

Its files are served as they are, under a policy by which the browser takes
scripts and styles from here alone, and runs none that stands in a page.
"""

from collections.abc import Sequence
from importlib import resources
from math import exp
from typing import Any, cast, get_args

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from ..completion.request import CompletionRequest, Mode, Suggestion
from ..corpus.attribution import Span
from ..generation.sampling import SamplingOptions
from ..generation.sequence import Cancellation
from .exchange import Reply, Server, Whole, endpoint
from .fields import FieldError, Fields
from .openai import shape

FILES = {
    "/": ("playground.html", "text/html"),
    "/playground.css": ("playground.css", "text/css"),
    "/playground.js": ("playground.js", "text/javascript"),
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
SHOWN_SOURCES = 5


def routes(server: Server) -> list[BaseRoute]:
    """The page's files and its request."""
    folder = resources.files(__package__) / "static"

    def file(request: Request) -> Response:
        name, media_type = FILES[request.scope["path"]]
        return Response((folder / name).read_bytes(), media_type=media_type, headers=_HEADERS)

    def answer(fields: Fields) -> Reply:
        return _answer(fields, server)

    suggest = Route("/playground/suggest", endpoint(server, answer, shape), methods=["POST"])
    return [suggest, *(Route(path, file, methods=["GET"]) for path in FILES)]


def _answer(fields: Fields, server: Server) -> Reply:
    mode = fields.text("mode", "auto")
    if mode not in get_args(Mode):
        raise FieldError(f"mode must be one of {', '.join(get_args(Mode))}", "mode")
    sampling = SamplingOptions(
        max_tokens=fields.integer("max_tokens", 64, 1, server.service.most_tokens),
        temperature=fields.number("temperature", 0.0, 0, 2),
        top_p=fields.number("top_p", 1.0, 0, 1),
        top_k=fields.integer("top_k", 0, 0),
        seed=fields.integer("seed", 0, 0),
    )
    prefix, suffix = fields.text("prefix"), fields.text("suffix", "")
    request = CompletionRequest(prefix, suffix, mode=cast("Mode", mode), sampling=sampling)
    fields.end()

    def make(cancelled: Cancellation) -> dict[str, Any]:
        suggestion = server.service.suggest(request, cancelled)
        cost = suggestion.cost
        seconds, after_first = cost.completion_seconds, cost.completion_tokens - 1
        return {
            "text": suggestion.text,
            "probability": suggestion.probability,
            "tokens": _tokens(suggestion),
            "timings": {
                "tokens": cost.completion_tokens,
                "first_token_ms": cost.prompt_seconds * 1000,
                "tokens_per_second": after_first / seconds if seconds > 0 else 0.0,
                "prompt_tokens": cost.prompt_tokens,
                "reused_tokens": cost.reused_tokens,
            },
            "attribution": _attribution(prefix, suggestion.text, server),
        }

    return Whole(make)


def _tokens(suggestion: Suggestion) -> list[dict[str, Any]]:
    """The text in the pieces that tokens made of it, with their probabilities."""
    tokens, start, logprob = [], 0, 0.0
    for score in suggestion.shown_scores:
        logprob += score.logprob  # Some show no text of their own: half a character, say.
        if score.stop > start:
            text = suggestion.text[start : score.stop]
            tokens.append({"text": text, "probability": exp(logprob)})
            start, logprob = score.stop, 0.0
    return tokens


def _attribution(prefix: str, text: str, server: Server) -> list[str] | None:
    """Whose the suggestion is, where it stands verbatim in the corpus; None without an index."""
    if server.attribution is None:
        return None
    if not text:
        return []
    tail = prefix[-len(text) :]  # As much of what stands before it as is new, at most.
    spans: Sequence[Span] = server.attribution.find(tail + text)
    sources = [source for span in spans if span.end > len(tail) for source in span.sources]
    told = dict.fromkeys(f"{source.package} ({source.license})" for source in sources)
    return list(told)[:SHOWN_SOURCES]
