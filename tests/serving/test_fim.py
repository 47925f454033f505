"""``/fim/completions``, as Continue sends it."""

import json
from typing import Any

import pytest
from starlette.testclient import TestClient

from tinystarcoder.pretrained import Model

ASKED: dict[str, Any] = {
    "model": "tiny",
    "prompt": "def f(",
    "suffix": "):\n",
    "max_tokens": 8,
    "temperature": 0,
}


@pytest.mark.parametrize("path", ["/fim/completions", "/v1/fim/completions"])
def test_a_stream_adds_up_to_the_whole(client: TestClient, model: Model, path: str) -> None:
    expected = model.infill("def f(", "):\n", max_tokens=8)
    whole = client.post(path, json=ASKED).json()
    assert whole["choices"][0]["message"]["content"] == expected.text
    assert whole["choices"][0]["finish_reason"] == expected.finish_reason
    assert whole["usage"]["completion_tokens"] == len(expected.tokens)
    lines = client.post(path, json={**ASKED, "stream": True}).text.split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]
    assert "".join(c["choices"][0]["delta"]["content"] for c in chunks) == expected.text
    assert chunks[-1]["choices"][0]["finish_reason"] == expected.finish_reason


def test_errors_name_the_field(client: TestClient) -> None:
    response = client.post("/fim/completions", json={**ASKED, "min_tokens": 5})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "min_tokens"
    missing = client.post("/fim/completions", json={**ASKED, "model": "other"})
    assert missing.status_code == 404
