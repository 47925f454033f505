"""A model behind a server: llama.cpp's own dialect, or OpenAI's completions.

It gives up bits-per-byte, since no server tells the probability of a given text
in a form that all of them share, and determinism beyond what the server keeps of
a seed.
"""

import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

from ...errors import EvaluationError
from ...generation.sampling import SamplingOptions
from ..generators import Ask, Written

Dialect = Literal["llama.cpp", "openai"]

_SECONDS = 600.0


class ServerModel:
    """``url`` is the server's, without a path; ``model`` the name that OpenAI's dialect wants."""

    def __init__(self, url: str, dialect: Dialect, model: str = "") -> None:
        self._url, self._dialect, self._model = url.rstrip("/"), dialect, model

    def generate(self, asked: Iterable[Ask]) -> Iterator[list[Written]]:
        write = self._openai if self._dialect == "openai" else self._llama_cpp
        for ask in asked:
            yield [write(ask, sample) for sample in range(ask.number)]

    def _openai(self, ask: Ask, sample: int) -> Written:
        body = self._shared(ask.options, sample) | {
            "model": self._model,
            "prompt": ask.prefix,
            "max_tokens": ask.options.max_tokens,
            # OpenAI takes four; the rest is cut by the task.
            "stop": list(ask.options.stop)[:4],
        }
        if ask.suffix is not None:
            body["suffix"] = ask.suffix

        def read(reply: Any) -> Written:
            choice = reply["choices"][0]
            return Written(str(choice["text"]), choice.get("finish_reason") == "stop")

        return self._post("/v1/completions", body, read)

    def _llama_cpp(self, ask: Ask, sample: int) -> Written:
        body = self._shared(ask.options, sample) | {
            "n_predict": ask.options.max_tokens,
            "stop": list(ask.options.stop),
            # Its defaults are not what the other writers draw from.
            "top_k": 0,
            "min_p": 0.0,
        }

        def read(reply: Any) -> Written:
            return Written(str(reply["content"]), reply.get("stop_type") in ("eos", "word"))

        if ask.suffix is None:
            return self._post("/completion", body | {"prompt": ask.prefix}, read)
        body |= {"input_prefix": ask.prefix, "input_suffix": ask.suffix}
        return self._post("/infill", body, read)

    def _shared(self, options: SamplingOptions, sample: int) -> dict[str, Any]:
        return {
            "temperature": options.temperature,
            "top_p": options.top_p,
            "seed": ((options.seed or 0) + sample) % (1 << 31),
        }

    def _post(self, path: str, body: dict[str, Any], read: Callable[[Any], Written]) -> Written:
        data, headers = json.dumps(body).encode(), {"Content-Type": "application/json"}
        try:
            request = urllib.request.Request(self._url + path, data, headers)
            with urllib.request.urlopen(request, timeout=_SECONDS) as reply:
                return read(json.load(reply))
        except urllib.error.HTTPError as error:
            said = error.read(300).decode(errors="replace")
            raise EvaluationError(f"{self._url}{path}: {error.code}: {said}") from error
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise EvaluationError(f"{self._url}{path}: no completion came: {error!r}") from error
