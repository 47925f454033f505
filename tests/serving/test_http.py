"""What no dialect may let through, and what every one must survive."""

import json
import socket
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from tinystarcoder.completion.service import CompletionService
from tinystarcoder.pretrained import Model
from tinystarcoder.serving.exchange import Server
from tinystarcoder.serving.http import create_app

Serve = Callable[[Starlette], AbstractContextManager[int]]
POSTS = ("/v1/completions", "/infill", "/completion")


def is_alive(client: TestClient) -> bool:
    return bool(client.post("/completion", json={"prompt": "x", "n_predict": 1}).json()["stop"])


class TestGuard:
    @pytest.mark.parametrize(
        "host", ["evil.example", "evil.example:8012", "127.0.0.1.evil.example", "", "[", "a:b:c"]
    )
    def test_other_hosts(self, client: TestClient, host: str) -> None:
        response = client.get("/health", headers={"host": host})
        assert response.status_code == 403
        assert "Host header" in response.json()["error"]["message"]

    @pytest.mark.parametrize("host", ["localhost:8012", "127.0.0.1", "[::1]:8012", "192.0.2.7"])
    def test_this_machine(self, client: TestClient, host: str) -> None:
        assert client.get("/health", headers={"host": host}).status_code == 200

    def test_the_name_that_was_asked_for(self, model: Model) -> None:
        app = create_app(Server(CompletionService(model), "tiny"), host="Box.example")
        client = TestClient(app, base_url="http://box.example:8012")
        assert client.get("/health").status_code == 200

    @pytest.mark.parametrize(
        ("origin", "status"),
        [("http://evil.example", 403), ("null", 403), ("http://127.0.0.1", 200)],
    )
    def test_web_pages(self, client: TestClient, origin: str, status: int) -> None:
        body = {"prompt": "x", "n_predict": 1}
        response = client.post("/completion", json=body, headers={"origin": origin})
        assert response.status_code == status


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"[]", "a JSON object"),
        (b'{"prompt":"\xff"}', "not UTF-8"),
        (b'{"prompt":NaN}', "not JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b'{"prompt":' + b"9" * 5000 + b"}", "not JSON"),
        (b'{"prompt":1}', "prompt must be a string"),
        (b'{"prompt":"x","temperature":-1}', "temperature must be a number from 0"),
        (b'{"prompt":"x","temperature":1e999}', "temperature must be"),
        (b'{"prompt":"x","top_p":true}', "top_p must be a number"),
        (b'{"prompt":"x","top_p":0}', "top_p 0.0: must be in (0, 1]"),
        (b'{"prompt":"x","stop":[1]}', "stop must be a string or a list"),
        (b'{"prompt":"x","stop":""}', "stop"),
        (b'{"prompt":"x","seed":1.5}', "seed must be a whole number"),
        (b'{"prompt":"x","seed":-7}', "seed must be a whole number"),
        (b'{"prompt":"x","stream":1}', "stream must be true or false"),
        (b'{"prompt":"x","grammar":"root"}', "grammar is not served here"),
    ],
)
def test_bad_bodies(client: TestClient, path: str, body: bytes, told: str) -> None:
    response = client.post(path, content=body)
    assert response.status_code == 400
    assert told in response.json()["error"]["message"]
    assert is_alive(client)


@pytest.mark.parametrize("path", POSTS)
def test_bodies_are_bounded(client: TestClient, path: str) -> None:
    response = client.post(path, content=b"x" * (4 << 20) + b"x")
    assert response.status_code == 413
    assert "larger than 4194304 bytes" in response.json()["error"]["message"]


def test_a_hundred_megabytes_are_not_read(app: Starlette, serve: Serve) -> None:
    """The answer comes while most of the body has not been sent."""
    with serve(app) as port, socket.create_connection(("127.0.0.1", port)) as connection:
        head = "POST /infill HTTP/1.1\r\nHost: localhost\r\nContent-Length: 104857600\r\n\r\n"
        connection.sendall(head.encode() + b"x" * (5 << 20))
        assert connection.recv(12) == b"HTTP/1.1 413"


@pytest.mark.parametrize("text", ["\0", "a\0b", "\ud800", "🙂", "\x1b[2J", "\r\n" * 9])
def test_odd_text_is_served(client: TestClient, text: str) -> None:
    body = json.dumps({"prompt": text, "input_suffix": text, "n_predict": 2})
    assert client.post("/infill", content=body).status_code == 200
    echoed = client.post(
        "/v1/completions",
        content=json.dumps({"prompt": text, "echo": True, "max_tokens": 1, "temperature": 0}),
    )
    assert echoed.json()["choices"][0]["text"].startswith(text)


def test_unknown_paths_and_methods(client: TestClient) -> None:
    for method, path, status in [("GET", "/nothing", 404), ("GET", "/infill", 405)]:
        response = client.request(method, path)
        assert response.status_code == status
        assert response.json()["error"]["message"]


def test_a_failure_is_told_without_its_text(model: Model) -> None:
    service = CompletionService(model)
    service.run = None  # type: ignore[method-assign, assignment]
    client = TestClient(
        create_app(Server(service, "tiny")),
        base_url="http://127.0.0.1",
        raise_server_exceptions=False,
    )
    response = client.post("/completion", json={"prompt": "secret = 1"})
    assert response.status_code == 500
    assert response.json()["error"]["message"] == "the server failed: TypeError"


class TestDisconnect:
    """Ten million tokens would take minutes: whoever gets an answer behind them was let through."""

    @pytest.mark.parametrize(
        ("path", "body"),
        [
            ("/completion", {"prompt": "x", "temperature": 0}),
            ("/completion", {"prompt": "x", "temperature": 0, "stream": True}),
            ("/infill", {"input_prefix": "x = "}),
            ("/v1/completions", {"prompt": "x", "max_tokens": 9_000_000, "temperature": 0}),
        ],
    )
    def test_frees_the_engine(
        self, endless: Model, serve: Serve, path: str, body: dict[str, Any]
    ) -> None:
        decoder: Any = endless.decoder
        app = create_app(Server(CompletionService(endless), "endless"))
        content = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(content)}\r\n\r\n"
        with serve(app) as port:
            with socket.create_connection(("127.0.0.1", port)) as connection:
                connection.sendall(head.encode() + content)
                decoder.is_running.wait()
            following = httpx.post(
                f"http://127.0.0.1:{port}/completion",
                json={"prompt": "y", "n_predict": 2, "temperature": 0},
                timeout=None,
            )
        assert following.json()["content"] == "x"
        assert decoder.steps < 9_000_000

    def test_half_a_request(self, app: Starlette, serve: Serve) -> None:
        with serve(app) as port:
            with socket.create_connection(("127.0.0.1", port)) as connection:
                connection.sendall(
                    b"POST /infill HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{"
                )
            assert httpx.get(f"http://127.0.0.1:{port}/health").json() == {"status": "ok"}
