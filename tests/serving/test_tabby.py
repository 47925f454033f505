"""Tabby's dialect, as its agent sends it."""

from collections.abc import Callable
from typing import Any

import pytest
from starlette.testclient import TestClient

from tinystarcoder.completion.request import CompletionRequest, Snippet
from tinystarcoder.completion.service import CompletionService
from tinystarcoder.generation.sampling import SamplingOptions
from tinystarcoder.pretrained import Model
from tinystarcoder.serving.exchange import Server
from tinystarcoder.serving.http import create_app

ASKED: dict[str, Any] = {
    "language": "python",
    "segments": {
        "prefix": "def f(",
        "suffix": "):\n",
        "filepath": "a.py",
        "git_url": "https://example.com/a.git",
        "declarations": [{"filepath": "b.py", "body": "def g(): ..."}],
        "clipboard": "x",
    },
    "user": "someone",
}


def test_segments_get_an_editors_suggestion(client: TestClient, model: Model) -> None:
    told = client.post("/v1/completions", json=ASKED).json()
    limit = SamplingOptions(max_tokens=model.config.n_positions // 2)
    request = CompletionRequest("def f(", "):\n", "a.py", sampling=limit)
    expected = CompletionService(model, order="spm").suggest(request)
    assert told["choices"] == [{"index": 0, "text": expected.text}]
    assert told["id"].startswith("cmpl-")


def test_snippets_are_the_requests(
    writing: Callable[..., Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    service, asked = CompletionService(writing("x")), list[CompletionRequest]()
    suggest = service.suggest
    monkeypatch.setattr(service, "suggest", lambda one, *_: asked.append(one) or suggest(one))
    client = TestClient(create_app(Server(service, "tiny")), base_url="http://127.0.0.1")
    name = "relevant_snippets_from_recently_opened_files"
    recent = [{"filepath": "c.py", "body": "y = 1\n", "score": 1.0}]
    body = {**ASKED, "segments": {**ASKED["segments"], name: recent}}
    assert client.post("/v1/completions", json=body).status_code == 200
    (request,) = asked
    assert request.snippets == (Snippet("b.py", "def g(): ..."), Snippet("c.py", "y = 1\n"))
    prompt = service.model.tokenizer.decode(service.prompt_ids(request))
    assert "# Path: c.py\ny = 1\n\n# Path: b.py\ndef g(): ...\n\n# Path: a.py\ndef f(" in prompt


def test_the_agents_other_questions(client: TestClient) -> None:
    assert client.get("/v1/health").json()["model"] == "tiny"
    assert client.post("/v1/health").status_code == 200
    assert client.post("/v1/events", json={"type": "view", "choice_index": 0}).status_code == 200
    assert client.get("/v1beta/server_setting").json()["disable_client_side_telemetry"]


@pytest.mark.parametrize(
    ("segments", "told"),
    [
        ({}, "segments.prefix is missing"),
        ("text", "segments must be an object"),
        ({"prefix": 1}, "segments.prefix must be a string"),
        ({"prefix": "", "declarations": {}}, "segments.declarations must be a list of objects"),
    ],
)
def test_wrong_segments_are_named(client: TestClient, segments: Any, told: str) -> None:
    response = client.post("/v1/completions", json={"segments": segments})
    assert response.status_code == 400
    assert told in response.json()["error"]["message"]
