"""llama.cpp's dialect: the requests of llama.vim and llama.vscode, as they send them."""

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from starlette.testclient import TestClient

from tinystarcoder.completion.service import CompletionService
from tinystarcoder.pretrained import Model
from tinystarcoder.serving.exchange import Server
from tinystarcoder.serving.http import create_app

# llama.vim's request (a1c8e6e), and a name of its kind that nobody knows in response_fields.
VIM: dict[str, Any] = {
    "id_slot": 0,
    "input_prefix": "import os\n\n\n",
    "input_suffix": "\n",
    "input_extra": [{"text": "x = 1\n", "time": [1, 2], "filename": "other.py"}],
    "prompt": "def f(",
    "n_predict": 128,
    "stop": [],
    "n_indent": 0,
    "top_k": 40,
    "top_p": 0.90,
    "samplers": ["top_k", "top_p", "infill"],
    "stream": False,
    "cache_prompt": True,
    "t_max_prompt_ms": 500,
    "t_max_predict_ms": 1000,
    "response_fields": [
        "content",
        "timings/prompt_n",
        "timings/prompt_ms",
        "timings/prompt_per_token_ms",
        "timings/prompt_per_second",
        "timings/predicted_n",
        "timings/predicted_ms",
        "timings/predicted_per_token_ms",
        "timings/predicted_per_second",
        "truncated",
        "tokens_cached",
        "no/such/field",
    ],
    "model": "",
}


def test_llama_vim(client: TestClient) -> None:
    response = client.post("/infill", content=json.dumps(VIM))
    assert response.status_code == 200
    assert re.search(r'"content"\s*:"', response.text)  # What the plugin looks for.
    assert ": " not in re.sub(r'"(\\.|[^"\\])*"', '""', response.text)
    assert set(response.json()) == set(VIM["response_fields"]) - {"no/such/field"}
    assert response.json()["timings/prompt_n"] > 0


def test_a_suggestion_is_ended_and_filtered(writing: Callable[..., Model]) -> None:
    """And typing into it computes nothing."""
    model = writing("a, b):\n    return a\n\n\ndef g():\n")
    client = TestClient(
        create_app(Server(CompletionService(model), "tiny")), base_url="http://127.0.0.1"
    )
    first = client.post("/infill", json=VIM).json()
    assert first["content"] == "a, b):\n    return a"
    assert client.post("/infill", json={**VIM, "input_suffix": "):\n"}).json()["content"] == "a, b"
    second = client.post("/infill", json={**VIM, "prompt": "def f(a, "}).json()
    assert second["content"] == "b):\n    return a"
    assert (second["timings/prompt_n"], second["timings/predicted_n"]) == (0, 0)


def test_extra_text_stands_before_the_file(writing: Callable[..., Model]) -> None:
    """The last nearest, in the warm-up as in what follows it."""
    client = TestClient(
        create_app(Server(CompletionService(writing("x):\n")), "tiny")), base_url="http://127.0.0.1"
    )
    extra = [*VIM["input_extra"], {"text": "y = 2\n"}]
    asked = {**VIM, "input_extra": extra, "response_fields": ["prompt", "timings/prompt_n"]}
    warm = client.post("/infill", json={**asked, "n_predict": 0}).json()
    reply = client.post("/infill", json=asked).json()
    above = "# Path: other.py\nx = 1\n\ny = 2\n\n"
    assert reply["prompt"] == (
        f"<fim_prefix><fim_suffix>\n<fim_middle>{above}import os\n\n\ndef f("
    )
    # The last token is written again, and the one before it tells how.
    assert (reply["prompt"], reply["timings/prompt_n"]) == (warm["prompt"], 2)


def test_warm_up(client: TestClient) -> None:
    """n_predict 0 fills the cache and says nothing; the request that follows finds it filled."""
    limits = {"n_predict": 0, "t_max_prompt_ms": 1, "t_max_predict_ms": 1, "samplers": []}
    warm = {**VIM, **limits, "response_fields": [""]}
    assert client.post("/infill", json=warm).json() == {}
    follow = client.post("/infill", json=VIM).json()
    assert follow["timings/prompt_n"] == 2
    empty = {**warm, "input_prefix": "", "input_suffix": "", "prompt": "", "input_extra": []}
    assert client.post("/infill", json=empty).status_code == 200


def test_llama_vscode(model: Model) -> None:
    # Random weights are sure of nothing, beside what a text repeats.
    service = CompletionService(model, min_probability=0, ngrams=False)
    client = TestClient(create_app(Server(service, "tiny")), base_url="http://127.0.0.1")
    body = {**VIM, "temperature": 3.0, "top_p": 0.99, "n_cmpl": 3, "seed": 4}
    del body["response_fields"]
    several = client.post("/infill", json=body).json()
    assert len(several) == 3
    assert (
        client.post("/infill", json={**body, "n_cmpl": 1}).json()["content"]
        == (several[0]["content"])
    )
    assert len({one["content"] for one in several}) > 1
    assert all(one["generation_settings"]["n_ctx"] == 128 for one in several)


def test_the_whole_reply(client: TestClient, model: Model) -> None:
    body = {"prompt": "def f(", "n_predict": 6, "temperature": 0}
    reply = client.post("/completion", json=body).json()
    expected = model.complete("def f(", max_tokens=6)
    assert reply["content"] == expected.text
    assert (reply["stop"], reply["stop_type"], reply["stopping_word"]) == (True, "limit", "")
    assert (reply["model"], reply["prompt"]) == ("tiny", "def f(")
    assert reply["tokens_predicted"] == reply["timings"]["predicted_n"] == 6
    assert reply["tokens_evaluated"] == reply["timings"]["prompt_n"]
    assert reply["generation_settings"]["n_predict"] == 6
    again = client.post("/completion", json=body).json()
    # Of a known prompt, the last token is written again, and the one before it tells how.
    assert again["timings"]["prompt_n"] == 2


def test_stop_words(client: TestClient, model: Model) -> None:
    text = model.complete("def f(", max_tokens=6).text
    body = {"prompt": "def f(", "n_predict": 6, "temperature": 0, "stop": [text[2:4]]}
    reply = client.post("/completion", json=body).json()
    at = text.index(text[2:4])
    assert (reply["content"], reply["stop_type"]) == (text[:at], "word")
    assert reply["stopping_word"] == text[2:4]


def test_stream(client: TestClient, model: Model) -> None:
    body = {"prompt": "def f(", "n_predict": 6, "temperature": 0, "stream": True}
    response = client.post("/completion", json=body)
    assert response.headers["content-type"].startswith("text/event-stream")
    *events, end = response.text.split("\n\n")
    assert end == ""
    read = [json.loads(event.removeprefix("data: ")) for event in events]
    assert "".join(one["content"] for one in read) == model.complete("def f(", max_tokens=6).text
    assert [one["stop"] for one in read] == [False] * (len(read) - 1) + [True]


def test_as_many_as_fit(client: TestClient) -> None:
    reply = client.post("/completion", json={"prompt": "x", "temperature": 0}).json()
    assert reply["tokens_evaluated"] + reply["tokens_predicted"] <= 128


@pytest.mark.parametrize(
    ("path", "fields", "status", "told"),
    [
        ("/infill", {"stream": True}, 400, "stream is served as false only"),
        ("/infill", {"n_cmpl": 0}, 400, "n_cmpl must be"),
        ("/infill", {"n_predict": -2}, 400, "n_predict must be"),
        ("/infill", {"input_extra": ["x"]}, 400, "input_extra must be a list of objects"),
        ("/infill", {"input_extra": [{}]}, 400, "input_extra[0].text is missing"),
        ("/infill", {"model": "../nano"}, 404, "no such model"),
        ("/completion", {"prompt": "x " * 200, "n_predict": 4}, 400, "no room for an answer"),
        ("/completion", {"typical_p": 0.5}, 400, "typical_p is served as 1 only"),
        ("/completion", {"json_schema": {}}, 400, "json_schema is not served"),
    ],
)
def test_errors_have_llama_cpps_shape(
    client: TestClient, path: str, fields: dict[str, Any], status: int, told: str
) -> None:
    response = client.post(path, json={"prompt": "x", **fields})
    assert response.status_code == status
    error = response.json()["error"]
    assert told in error["message"]
    assert error["code"] == status
    assert set(error) == {"code", "message", "type"}


def test_cut_texts_are_told(client: TestClient) -> None:
    for lines, truncated in ((1, False), (40, True)):
        around = {"input_prefix": "x = 1\n" * lines, "input_suffix": "y = 2\n" * lines}
        body = {**around, "n_predict": 8, "prompt": "z"}
        assert client.post("/infill", json=body).json()["truncated"] is truncated
    assert client.post("/infill", json={**body, "n_predict": 0}).json()["truncated"] is True


def test_a_penalty_of_one_changes_nothing(client: TestClient) -> None:
    """Another one does, as in Ollama's dialect."""
    body = {"prompt": "def f(", "n_predict": 20, "temperature": 0}
    neutral = {"repeat_penalty": 1.0, "repeat_last_n": 64, "presence_penalty": 0, "typical_p": 1.0}
    plain, same, other = (
        client.post("/completion", json={**body, **more}).json()["content"]
        for more in ({}, neutral, {"repeat_penalty": 50.0})
    )
    assert plain == same != other


def test_health(client: TestClient) -> None:
    assert client.get("/health").text == '{"status":"ok"}'


def test_text_to_tokens_and_back(client: TestClient, model: Model) -> None:
    text = "def é(x):\n    return '🙂'<|endoftext|>"
    ids = client.post("/tokenize", json={"content": text}).json()["tokens"]
    assert ids == model.tokenizer.encode(text, special=True)
    plain = client.post("/tokenize", json={"content": text, "parse_special": False}).json()
    assert plain["tokens"] == model.tokenizer.encode(text)
    back = client.post("/detokenize", json={"tokens": plain["tokens"]}).json()
    assert back == {"content": text}
    pieces = client.post("/tokenize", json={"content": "é🙂", "with_pieces": True}).json()
    raw = [p["piece"] for p in pieces["tokens"]]
    assert b"".join(bytes(p) if isinstance(p, list) else p.encode() for p in raw) == "é🙂".encode()


@pytest.mark.parametrize("tokens", [None, "x", [1.5], [-1], [10**6], [True]])
def test_tokens_that_are_none(client: TestClient, tokens: Any) -> None:
    response = client.post("/detokenize", json={"tokens": tokens})
    assert response.status_code == 400
    assert "tokens must be a list of whole numbers" in response.json()["error"]["message"]


def test_props(client: TestClient, model: Model) -> None:
    told = client.get("/props").json()
    assert told["default_generation_settings"] == {"n_ctx": model.config.n_positions}
    assert (told["total_slots"], told["model_path"]) == (8, "tiny")
