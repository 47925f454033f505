"""What no dialect may let through, and what every one must survive."""

import json
import socket
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
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


def posted(path: str, body: dict[str, Any]) -> bytes:
    """A whole request, as it goes over the wire."""
    content = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(content)}\r\n\r\n"
    return head.encode() + content


def is_alive(client: TestClient) -> bool:
    return bool(client.post("/completion", json={"prompt": "x", "n_predict": 1}).json()["stop"])


class TestGuard:
    @pytest.mark.parametrize(
        "host",
        [
            *("evil.example", "evil.example:8012", "127.0.0.1.evil.example", "", "[", "a:b:c"),
            *("127.0.0.1/health?", "127.0.0.1#", "evil.example\\@127.0.0.1", "localhost."),
        ],
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
        [
            *[("http://evil.example", 403), ("null", 403), ("", 403), ("http://[", 403)],
            *[("http://127.0.0.1:8012", 403), ("http://127.0.0.1.evil.example", 403)],
            ("http://127.0.0.1", 200),
        ],
    )
    def test_web_pages(self, client: TestClient, origin: str, status: int) -> None:
        body = {"prompt": "x", "n_predict": 1}
        response = client.post("/completion", json=body, headers={"origin": origin})
        assert response.status_code == status

    @pytest.mark.parametrize("origin", ["http://evil.example", "http://127.0.0.1"])
    def test_no_answer_is_for_other_sites(self, client: TestClient, origin: str) -> None:
        """Neither to a browser that asks beforehand, nor in an answer."""
        asks = {"origin": origin, "access-control-request-method": "POST"}
        before = client.options("/completion", headers=asks)
        assert before.status_code in (403, 405)
        after = client.get("/health", headers={"origin": origin})
        for response in (before, after):
            assert not [name for name in response.headers if name.startswith("access-control")]


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b'{"prompt":1}', "prompt must be a string"),
        (b'{"prompt":"x","temperature":-1}', "temperature must be a number from 0"),
        (b'{"prompt":"x","temperature":1e999}', "temperature must be"),
        (b'{"prompt":"x","top_p":true}', "top_p must be a number"),
        (b'{"prompt":"x","top_p":-0.1}', "top_p must be a number from 0 to 1"),
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


def test_a_body_that_does_not_come(model: Model, serve: Serve) -> None:
    """Nobody is waited for without end, and others are served meanwhile."""
    server = Server(CompletionService(model), "tiny", max_seconds=0.2)
    with serve(create_app(server)) as port, socket.create_connection(("127.0.0.1", port)) as slow:
        slow.sendall(b"POST /infill HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{")
        assert httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200
        assert slow.recv(12) == b"HTTP/1.1 408"


def test_a_reader_that_does_not_read(endless: Model, serve: Serve) -> None:
    """Its connection is full, but the engine is not its alone."""
    service = CompletionService(endless)
    asked = {"prompt": "y", "n_predict": 2, "temperature": 0}
    app = create_app(Server(service, "endless"))
    with serve(app) as port, socket.create_connection(("127.0.0.1", port)) as slow:
        slow.sendall(posted("/completion", {"prompt": "x", "temperature": 0, "stream": True}))
        assert slow.recv(12) == b"HTTP/1.1 200"
        url = f"http://127.0.0.1:{port}/completion"
        assert httpx.post(url, json=asked, timeout=None).json()["content"] == "x"
        slow.close()
    service.close()


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
    response = client.post("/api/generate", json={"model": "tiny", "prompt": "secret = 1"})
    assert response.json() == {"error": "the server failed: TypeError"}


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
        with serve(app) as port:
            with socket.create_connection(("127.0.0.1", port)) as connection:
                connection.sendall(posted(path, body))
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


@pytest.mark.parametrize("stream", [True, False])
def test_told_to_end_it_ends(
    endless: Model, serve: Serve, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    """What takes too long is cut, and nothing is left in the engine."""
    monkeypatch.setattr("tinystarcoder.cli.serve.GRACE", 0)
    decoder: Any = endless.decoder
    service = CompletionService(endless)
    body = {"prompt": "x", "temperature": 0, "stream": stream}
    with serve(create_app(Server(service, "endless"))) as port:
        connection = socket.create_connection(("127.0.0.1", port))
        connection.sendall(posted("/completion", body))
        decoder.is_running.wait()
    while service.scheduler.load != (0, 0):
        pass
    assert decoder.steps < 9_000_000
    connection.close()
    service.close()


@pytest.mark.full
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has 127.0.0.2 by itself")
def test_many_clients_fill_slots_and_queue_and_then_are_told(endless: Model, serve: Serve) -> None:
    """More texts at once than a default pool has threads; slots that come free are shared."""
    service = CompletionService(endless, slots=4, waiting=60)
    request = posted("/completion", {"prompt": "x", "temperature": 0, "stream": True})
    with serve(create_app(Server(service, "endless"))) as port, ExitStack() as held:

        def ask(client: int) -> socket.socket:
            source = (f"127.0.0.{client}", 0)
            connection = socket.create_connection(("127.0.0.1", port), source_address=source)
            connection.sendall(request)
            return held.enter_context(connection)

        first = [ask(2) for _ in range(24)]
        while service.scheduler.load != (4, 20):
            pass
        others = [ask(client) for client in (3, 4) for _ in range(20)]
        while service.scheduler.load != (4, 60):
            pass
        assert ask(5).recv(12) == b"HTTP/1.1 503"
        for connection in first:  # Slots come free: the other two share them.
            connection.close()
        while service.scheduler.load != (4, 36):
            pass
        running = [one.generation.client for one in service.scheduler._running]
        assert sorted(running) == ["127.0.0.3"] * 2 + ["127.0.0.4"] * 2
        assert len(others) == 40
    service.close()


@pytest.mark.parametrize(
    ("path", "texts", "answer"),
    [
        ("/infill", ("input_prefix", "input_suffix"), lambda told: told["content"]),
        ("/v1/completions", ("prompt", "suffix"), lambda told: told["choices"][0]["text"]),
        (
            "/fim/completions",
            ("prompt", "suffix"),
            lambda told: told["choices"][0]["message"]["content"],
        ),
        ("/api/generate", ("prompt", "suffix"), lambda told: told["response"]),
    ],
)
def test_a_hole_between_crlf_is_filled_with_crlf(
    writing: Callable[..., Model], path: str, texts: tuple[str, str], answer: Callable[[Any], str]
) -> None:
    """The model has the same prompt as between LF."""
    client = TestClient(
        create_app(Server(CompletionService(writing("a, b):\n    return a")), "tiny")),
        base_url="http://127.0.0.1",
    )
    limit = {"max_tokens": 30} if path in ("/v1/completions", "/fim/completions") else {}
    common = {"temperature": 0, **limit} if path != "/api/generate" else {"stream": False}
    greedy = {"options": {"temperature": 0, "num_predict": 30}} if path == "/api/generate" else {}
    for line_break in ("\n", "\r\n"):
        hole = zip(texts, (f"x = 1{line_break}def f(", f"{line_break}y = 2"), strict=True)
        body = {"model": "tiny", **common, **greedy, **dict(hole)}
        told = client.post(path, json=body).json()
        assert answer(told) == f"a, b):{line_break}    return a"
