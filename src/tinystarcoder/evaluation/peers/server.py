"""A model behind a server: llama.cpp's own dialect, or OpenAI's completions.

It gives up bits-per-byte, since no server tells the probability of a given text
in a form that all of them share, and determinism beyond what the server keeps of
a seed.
"""

import json
import urllib.error
import urllib.request
from typing import Any, Literal

from ...errors import EvaluationError
from ...generation.sampling import SamplingOptions

Dialect = Literal["llama.cpp", "openai"]

_SECONDS = 600.0


class ServerModel:
    """``url`` is the server's, without a path; ``model`` the name that OpenAI's dialect wants."""

    def __init__(self, url: str, dialect: Dialect, model: str = "") -> None:
        self._url, self._dialect, self._model = url.rstrip("/"), dialect, model

    def generate(
        self, prefix: str, suffix: str | None, options: SamplingOptions, number: int
    ) -> list[str]:
        ask = self._openai if self._dialect == "openai" else self._llama_cpp
        return [ask(prefix, suffix, options, sample) for sample in range(number)]

    def _openai(
        self, prefix: str, suffix: str | None, options: SamplingOptions, sample: int
    ) -> str:
        body = self._shared(options, sample) | {
            "model": self._model,
            "prompt": prefix,
            "max_tokens": options.max_tokens,
            # OpenAI takes four; the rest is cut by the task.
            "stop": list(options.stop)[:4],
        }
        if suffix is not None:
            body["suffix"] = suffix
        return str(self._post("/v1/completions", body, ("choices", 0, "text")))

    def _llama_cpp(
        self, prefix: str, suffix: str | None, options: SamplingOptions, sample: int
    ) -> str:
        body = self._shared(options, sample) | {
            "n_predict": options.max_tokens,
            "stop": list(options.stop),
        }
        if suffix is None:
            return str(self._post("/completion", body | {"prompt": prefix}, ("content",)))
        body |= {"input_prefix": prefix, "input_suffix": suffix}
        return str(self._post("/infill", body, ("content",)))

    def _shared(self, options: SamplingOptions, sample: int) -> dict[str, Any]:
        return {
            "temperature": options.temperature,
            "top_p": options.top_p,
            "seed": ((options.seed or 0) + sample) % (1 << 31),
        }

    def _post(self, path: str, body: dict[str, Any], place: tuple[str | int, ...]) -> Any:
        request = urllib.request.Request(
            self._url + path,
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=_SECONDS) as reply:
                found = json.load(reply)
            for step in place:
                found = found[step]
        except urllib.error.HTTPError as error:
            said = error.read(300).decode(errors="replace")
            raise EvaluationError(f"{self._url}{path}: {error.code}: {said}") from error
        except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
            raise EvaluationError(f"{self._url}{path}: no completion came: {error!r}") from error
        return found
