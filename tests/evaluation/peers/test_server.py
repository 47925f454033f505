"""Servers as peers: what is asked of them, and what is taken from their answers."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from tinystarcoder.errors import EvaluationError
from tinystarcoder.evaluation.peers.server import ServerModel
from tinystarcoder.evaluation.suite import Subject
from tinystarcoder.generation.sampling import SamplingOptions

OPTIONS = SamplingOptions(max_tokens=8, temperature=0.5, top_p=0.9, seed=7, stop=("\n", "#"))

ANSWERS = {
    "/completion": {"content": "one"},
    "/infill": {"content": "two"},
    "/v1/completions": {"choices": [{"text": "three"}]},
}


@pytest.fixture
def server() -> Iterator[tuple[str, list[tuple[str, dict[str, Any]]]]]:
    asked: list[tuple[str, dict[str, Any]]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append((self.path, body))
            found = ANSWERS.get(self.path) if body.get("model") != "none" else None
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


def test_llama_cpp(server: tuple[str, list[tuple[str, dict[str, Any]]]]) -> None:
    url, asked = server
    model = Subject(f"llama.cpp:{url}").generator
    assert isinstance(model, ServerModel)
    assert model.generate("a", None, OPTIONS, 2) == ["one", "one"]
    assert model.generate("a", "b", OPTIONS, 1) == ["two"]
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
    model = Subject(f"openai:{url}#tiny").generator
    assert model.generate("a", "b", OPTIONS, 1) == ["three"]
    path, body = asked[0]
    assert path == "/v1/completions"
    assert (body["model"], body["prompt"], body["suffix"]) == ("tiny", "a", "b")
    assert body["max_tokens"] == 8


def test_errors(server: tuple[str, list[tuple[str, dict[str, Any]]]]) -> None:
    url, _ = server
    with pytest.raises(EvaluationError, match=r"404: .*no such model"):
        Subject(f"openai:{url}#none").generator.generate("a", None, OPTIONS, 1)
    with pytest.raises(EvaluationError, match="needs the weights, not a server"):
        Subject(f"openai:{url}").scorer()
    with pytest.raises(EvaluationError, match="no completion came"):
        Subject("openai:http://127.0.0.1:1").generator.generate("a", None, OPTIONS, 1)
