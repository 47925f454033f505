"""Ollama's dialect, spoken with Ollama's own client."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import ollama
import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from tinystarcoder.pretrained import Model

Serve = Callable[[Starlette], AbstractContextManager[int]]
ASKED: dict[str, Any] = {"model": "tiny", "prompt": "def f("}
OPTIONS = {"num_predict": 8, "temperature": 0}


@pytest.fixture
def real(app: Starlette, serve: Serve) -> Iterator[ollama.Client]:
    with serve(app) as port, ollama.Client(f"http://127.0.0.1:{port}") as client:
        yield client


def test_the_real_client(real: ollama.Client, model: Model) -> None:
    expected = model.complete("def f(", max_tokens=8)
    whole = real.generate(**ASKED, options=OPTIONS)
    assert whole.response == expected.text
    assert whole.done and whole.done_reason == expected.finish_reason
    assert whole.eval_count == len(expected.tokens)
    assert whole.prompt_eval_count == len(model.tokenizer.encode("def f("))
    parts = list(real.generate(**ASKED, options=OPTIONS, stream=True))
    assert "".join(part.response for part in parts) == expected.text
    assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]
    assert parts[-1].total_duration >= parts[-1].eval_duration >= 0
    assert [listed.model for listed in real.list().models] == ["tiny:latest"]
    shown = real.show("tiny")
    assert ".Suffix" in shown.template  # What Continue looks for before it sends one.
    assert shown.modelinfo["gpt_bigcode.context_length"] == model.config.n_positions
    with pytest.raises(ollama.ResponseError) as missing:
        real.generate(model="/etc/passwd", prompt="x")
    assert missing.value.status_code == 404
    with pytest.raises(ollama.ResponseError, match=r"options\.mirostat is served as 0 only"):
        real.generate(**ASKED, options={"mirostat": 2})


def ask(client: TestClient, **fields: Any) -> Any:
    return client.post("/api/generate", json={**ASKED, "stream": False, **fields})


def test_suffix_is_infilling(client: TestClient, model: Model) -> None:
    expected = model.infill("def f(", "):\n", max_tokens=8)
    told = ask(client, suffix="):\n", options=OPTIONS).json()
    assert told["response"] == expected.text


def test_a_stream_is_lines_of_json(client: TestClient) -> None:
    response = client.post("/api/generate", json={**ASKED, "options": OPTIONS})
    assert response.headers["content-type"].startswith("application/x-ndjson")
    assert all(line.startswith('{"model":"tiny"') for line in response.text.splitlines())


def test_an_empty_prompt_loads(client: TestClient) -> None:
    told = ask(client, prompt="").json()
    assert told["done"] and told["done_reason"] == "load" and told["response"] == ""


def test_as_many_tokens_as_fit(client: TestClient, model: Model) -> None:
    told = ask(client, options={"temperature": 0, "num_predict": -1}).json()
    assert told["prompt_eval_count"] + told["eval_count"] <= model.config.n_positions


@pytest.mark.parametrize("named", [{"model": "tiny"}, {"name": "tiny"}, {"name": "tiny:latest"}])
def test_the_client_in_go_sends_every_field(client: TestClient, named: dict[str, Any]) -> None:
    """Empty ones are as good as absent."""
    empty = {"model": "", "name": "", "system": "", "template": "", "options": None}
    response = client.post("/api/show", json={**empty, "verbose": False, **named})
    assert response.status_code == 200
    assert response.json()["capabilities"] == ["completion", "insert"]


@pytest.mark.parametrize(
    ("fields", "status", "told"),
    [
        ({}, 400, "model is missing"),
        ({"model": "", "name": ""}, 404, "not found"),
        ({"model": "tiny", "system": "be brief"}, 400, "system is not served here"),
    ],
)
def test_what_cannot_be_shown(
    client: TestClient, fields: dict[str, Any], status: int, told: str
) -> None:
    response = client.post("/api/show", json=fields)
    assert response.status_code == status
    assert told in response.json()["error"]


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"context": [1, 2]}, "context is not served here"),
        ({"prompt": "x " * 200}, "leaves no room for an answer"),
        ({"images": ["aGk="]}, "images is not served here"),
        ({"system": "be brief"}, "system is served as"),
        ({"format": "json"}, "format is served as"),
        ({"options": {"temperature": -1}}, "options.temperature must be a number from 0 on"),
        ({"options": []}, "options must be an object"),
        ({"prompt": 5}, "prompt must be a string"),
    ],
)
def test_what_is_not_served_is_named(client: TestClient, fields: Any, told: str) -> None:
    response = ask(client, **fields)
    assert response.status_code == 400
    assert told in response.json()["error"]
