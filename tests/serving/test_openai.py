"""OpenAI's dialect, spoken with OpenAI's own client."""

import json
import math
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from itertools import accumulate
from pathlib import Path
from typing import Any

import openai
import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from tinystarcoder.completion.service import CompletionService
from tinystarcoder.generation.healing import take_back
from tinystarcoder.pretrained import Model
from tinystarcoder.serving.exchange import Server
from tinystarcoder.serving.http import create_app

ROOT = Path(__file__).resolve().parents[2]
Serve = Callable[[Starlette], AbstractContextManager[int]]
ASKED: dict[str, Any] = {"model": "tiny", "prompt": "def f(", "max_tokens": 8, "temperature": 0}


@pytest.fixture
def real(app: Starlette, serve: Serve) -> Iterator[openai.OpenAI]:
    with (
        serve(app) as port,
        openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none") as client,
    ):
        yield client


def test_the_real_client(real: openai.OpenAI, model: Model) -> None:
    expected = model.complete("def f(", max_tokens=8)
    whole = real.completions.create(**ASKED)
    assert whole.choices[0].text == expected.text
    assert whole.choices[0].finish_reason == expected.finish_reason
    assert whole.usage is not None
    assert whole.usage.completion_tokens == len(expected.tokens)
    chunks = list(
        real.completions.create(**ASKED, stream=True, stream_options={"include_usage": True})
    )
    assert "".join(chunk.choices[0].text for chunk in chunks[:-1]) == expected.text
    assert chunks[-2].choices[0].finish_reason == expected.finish_reason
    assert chunks[-1].choices == [] and chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == whole.usage.total_tokens
    assert chunks[-1].usage.prompt_tokens_details is not None
    assert chunks[-1].usage.prompt_tokens_details.cached_tokens == whole.usage.prompt_tokens - 2
    assert [listed.id for listed in real.models.list()] == ["tiny"]
    with pytest.raises(openai.NotFoundError) as missing:
        real.completions.create(**{**ASKED, "model": "/etc/passwd"})
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as refused:
        real.completions.create(**ASKED, logit_bias={"5": 1})
    assert refused.value.param == "logit_bias"


@pytest.mark.full
def test_the_real_client_of_npm(app: Starlette, serve: Serve, model: Model) -> None:
    node, script = shutil.which("node"), Path(__file__).with_name("openai_client.mjs")
    if node is None or not (ROOT / "node_modules" / "openai").is_dir():
        pytest.skip("no node, or no package openai: npm install --no-save openai")
    expected = model.complete("def f(", max_tokens=8)
    with serve(app) as port:
        command = [node, script, f"http://127.0.0.1:{port}/v1"]
        done = subprocess.run(command, check=True, capture_output=True, timeout=120)
    told = json.loads(done.stdout)
    (choice,) = told["whole"]["choices"]
    assert (choice["text"], choice["finish_reason"]) == (expected.text, expected.finish_reason)
    filled = model.infill("def f(", "):\n", max_tokens=8).text
    assert told["infilled"]["choices"][0]["text"] == filled
    *chunks, last = told["chunks"]
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == expected.text
    assert last["choices"] == []
    assert last["usage"]["total_tokens"] == told["whole"]["usage"]["total_tokens"]
    assert told["models"] == ["tiny"]
    assert told["missing"]["kind"] == "NotFoundError"
    assert told["missing"]["code"] == "model_not_found"
    assert told["unserved"]["kind"] == "BadRequestError"
    assert told["unserved"]["param"] == "logit_bias"


def ask(client: TestClient, **fields: Any) -> Any:
    return client.post("/v1/completions", json={**ASKED, **fields})


def test_suffix_is_infilling(client: TestClient, model: Model) -> None:
    expected = model.infill("def f(", "):\n", max_tokens=8)
    assert ask(client, suffix="):\n").json()["choices"][0]["text"] == expected.text


def test_special_tokens_in_a_prompt_are_parsed(client: TestClient, model: Model) -> None:
    prompt = "<fim_prefix>def f(<fim_suffix>):\n<fim_middle>"
    assert (
        ask(client, prompt=prompt).json()["choices"][0]["text"]
        == model.infill("def f(", "):\n", order="psm", max_tokens=8).text
    )


def test_choices_repeat_by_seed(client: TestClient, model: Model) -> None:
    drawn = ask(client, n=3, seed=5, temperature=1.5).json()
    expected = model.samples("def f(", 3, seed=5, temperature=1.5, max_tokens=8)
    assert [choice["text"] for choice in drawn["choices"]] == [one.text for one in expected]
    assert [choice["index"] for choice in drawn["choices"]] == [0, 1, 2]
    assert drawn["usage"]["completion_tokens"] == sum(len(one.tokens) for one in expected)


def test_echo(client: TestClient) -> None:
    plain, echoed = ask(client).json(), ask(client, echo=True).json()
    assert echoed["choices"][0]["text"] == "def f(" + plain["choices"][0]["text"]
    streamed = ask(client, echo=True, stream=True).text
    assert '"text":"def f("' in streamed.split("\n\n")[0]


def test_logprobs(client: TestClient, model: Model) -> None:
    choice = ask(client, logprobs=2).json()["choices"][0]
    expected = model.complete("def f(", max_tokens=8, top_logprobs=2)
    given = choice["logprobs"]
    number = len(given["tokens"])
    # Tokens that only write the prompt's end again are not shown.
    _, beginning = take_back(model.tokenizer, model.tokenizer.encode("def f("))
    ends = accumulate(len(model.tokenizer.token_bytes(token.id)) for token in expected.tokens)
    hidden = sum(end <= len(beginning) for end in ends)
    shown = expected.logprobs[hidden : hidden + number]
    assert given["token_logprobs"] == pytest.approx(list(shown), abs=1e-5)
    assert all(len(one) == 2 for one in given["top_logprobs"])
    assert all(math.exp(value) <= 1 for value in given["token_logprobs"])
    whole = [token for token in given["tokens"] if not token.startswith("bytes:")]
    assert all(token in choice["text"] for token in whole)
    assert ask(client, logprobs=0).json()["choices"][0]["logprobs"]["top_logprobs"][0] == {}
    assert ask(client).json()["choices"][0]["logprobs"] is None


@pytest.mark.parametrize("stop_at", [1, 3])
def test_logprobs_do_not_depend_on_streaming(client: TestClient, stop_at: int) -> None:
    """Nor do they tell of tokens that a stop string kept from being shown."""
    text = ask(client).json()["choices"][0]["text"]
    fields = {"logprobs": 1, "stop": [text[stop_at : stop_at + 2]]}
    whole = ask(client, **fields).json()["choices"][0]
    lines = ask(client, **fields, stream=True).text.split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    chunks = [json.loads(line.removeprefix("data: "))["choices"][0] for line in lines[:-2]]
    assert "".join(chunk["text"] for chunk in chunks) == whole["text"] == text[:stop_at]
    for name in ("tokens", "token_logprobs", "text_offset"):
        streamed = [value for chunk in chunks for value in chunk["logprobs"][name]]
        assert streamed == pytest.approx(whole["logprobs"][name], abs=1e-5)


@pytest.mark.parametrize("stream", [False, True])
def test_logprobs_count_in_the_texts_own_line_breaks(
    writing: Callable[..., Model], stream: bool
) -> None:
    service = CompletionService(writing("a\nb\nc"))
    client = TestClient(create_app(Server(service, "tiny")), base_url="http://127.0.0.1")
    fields = {"prompt": "x\r\n", "suffix": "\r\n", "logprobs": 0, "stream": stream}
    text, tokens, offsets = "", [], []
    for line in ask(client, **fields).text.replace("data: [DONE]", "").split("\n\n"):
        if line:
            choice = json.loads(line.removeprefix("data: "))["choices"][0]
            text += choice["text"]
            tokens += choice["logprobs"]["tokens"]
            offsets += choice["logprobs"]["text_offset"]
    assert text == "a\r\nb\r\nc"
    lengths = [len(token.replace("\n", "\r\n")) for token in tokens]
    assert offsets == [0, *accumulate(lengths)][:-1]


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"prompt": None}, "prompt is missing"),
        ({"prompt": ["a", "b"]}, "prompt must be a string, or a list of one"),
        ({"prompt": []}, "prompt must be a string, or a list of one"),
        ({"prompt": [1]}, "prompt must be a string, or a list of one"),
        ({"top_p": 1.5}, "top_p must be a number from 0 to 1"),
        ({"stop": ["", "x"]}, "stop"),
        ({"max_tokens": 0}, "max_tokens must be a whole number from 1"),
        ({"max_tokens": 10**30}, "leaves no room"),
        ({"max_tokens": 127}, "shorten it or ask for fewer"),
        ({"n": 0}, "n must be a whole number from 1 to 16"),
        ({"n": 17}, "n must be"),
        ({"best_of": 3}, "best_of is served as 1 only"),
        ({"logprobs": 6}, "logprobs must be a whole number from 0 to 5"),
        ({"logprobs": 1, "echo": True}, "echo with logprobs"),
        ({"frequency_penalty": 0.5}, "frequency_penalty is served as 0"),
        ({"stream_options": {"x": 1}}, "stream_options.x is not served"),
    ],
)
def test_what_is_not_served(client: TestClient, fields: dict[str, Any], told: str) -> None:
    response = ask(client, **fields)
    assert response.status_code == 400
    error = response.json()["error"]
    assert told in error["message"]
    assert set(error) == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"max_tokens": 10**30}, "max_tokens"),
        ({"max_tokens": 127}, "prompt"),
        ({"stop": ""}, "stop"),
    ],
)
def test_a_value_that_is_out_of_range_here_is_named(
    client: TestClient, fields: dict[str, Any], name: str
) -> None:
    response = ask(client, **fields)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == name


def test_one_prompt_may_come_in_a_list(client: TestClient) -> None:
    assert ask(client, prompt=["def f("]).json()["choices"] == ask(client).json()["choices"]


def test_top_p_of_nothing_is_the_likeliest(client: TestClient) -> None:
    drawn = ask(client, temperature=2, top_p=0).json()
    assert drawn["choices"] == ask(client).json()["choices"]


def test_what_changes_nothing_is_taken(client: TestClient) -> None:
    plain = ask(client).json()["choices"]
    taken = ask(
        client, user="me", logit_bias={}, best_of=1, presence_penalty=0, frequency_penalty=0.0
    )
    assert taken.json()["choices"] == plain
