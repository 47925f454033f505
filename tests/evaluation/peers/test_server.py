"""Servers as peers: what is asked of them, and what is taken from their answers."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from tinystarcoder.errors import EvaluationError
from tinystarcoder.evaluation.generators import Ask, Written
from tinystarcoder.evaluation.suite import Subject
from tinystarcoder.generation.sampling import SamplingOptions

OPTIONS = SamplingOptions(max_tokens=8, temperature=0.5, top_p=0.9, seed=7, stop=("\n", "#"))

ANSWERS = {
    "/completion": {"content": "one", "stop_type": "word"},
    "/infill": {"content": "two", "stop_type": "limit"},
    "/v1/completions": {"choices": [{"text": "three", "finish_reason": "stop"}]},
}


@pytest.fixture
def server() -> Iterator[tuple[str, list[tuple[str, dict[str, Any]]]]]:
    asked: list[tuple[str, dict[str, Any]]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append((self.path, body))
            odd: dict[str, Any] = {"none": None, "odd": ["no", "object"]}
            found = odd.get(body.get("model", ""), ANSWERS.get(self.path))
            self.send_response(200 if found else 404)
            self.end_headers()
            self.wfile.write(json.dumps(found or {"error": "no such model"}).encode())

        def log_message(self, *_: Any) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{listening.server_port}", asked
        listening.shutdown()
        thread.join()


def texts(model: str, ask: Ask) -> list[Written]:
    """What a subject of that name writes."""
    (found,) = Subject(model).generator.generate([ask])
    return found


def test_llama_cpp(server: tuple[str, list[tuple[str, dict[str, Any]]]]) -> None:
    url, asked = server
    name = f"llama.cpp:{url}"
    assert texts(name, Ask("a", None, OPTIONS, 2)) == [("one", True)] * 2
    assert texts(name, Ask("a", "b", OPTIONS)) == [("two", False)]
    (_, first), (_, second), (path, third) = asked
    assert first == {
        "prompt": "a",
        "n_predict": 8,
        "stop": ["\n", "#"],
        "temperature": 0.5,
        "top_p": 0.9,
        "seed": 7,
    }
    assert second == first | {"seed": 8}
    assert path == "/infill" and (third["input_prefix"], third["input_suffix"]) == ("a", "b")


def test_openai(server: tuple[str, list[tuple[str, dict[str, Any]]]]) -> None:
    url, asked = server
    assert texts(f"openai:{url}#tiny", Ask("a", "b", OPTIONS)) == [("three", True)]
    path, body = asked[0]
    assert path == "/v1/completions"
    assert (body["model"], body["prompt"], body["suffix"]) == ("tiny", "a", "b")
    assert body["max_tokens"] == 8


def test_errors(server: tuple[str, list[tuple[str, dict[str, Any]]]]) -> None:
    url, _ = server
    ask = Ask("a", None, OPTIONS)
    with pytest.raises(EvaluationError, match=r"404: .*no such model"):
        texts(f"openai:{url}#none", ask)
    with pytest.raises(EvaluationError, match="no completion came"):
        texts(f"openai:{url}#odd", ask)
    with pytest.raises(EvaluationError, match="needs the weights, not a server"):
        Subject(f"openai:{url}").scorer()
    with pytest.raises(EvaluationError, match="needs a model of this family"):
        Subject(f"openai:{url}").own(None)
    with pytest.raises(EvaluationError, match="no completion came"):
        texts("openai:http://127.0.0.1:1", ask)
