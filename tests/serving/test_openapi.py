"""The document says what is read; nothing in it, right or wrong, makes the server fail."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from starlette.applications import Starlette
from starlette.testclient import TestClient

from tinystarcoder.completion.service import CompletionService
from tinystarcoder.pretrained import Model
from tinystarcoder.serving.exchange import Server
from tinystarcoder.serving.http import OPEN_TO_ALL, create_app
from tinystarcoder.serving.openapi import BODIES

EXAMPLES = {"string": "tiny", "boolean": False, "integer": 1, "number": 1, "array": [1]}


def example(schema: dict[str, Any]) -> Any:
    """The least body that is right: its required fields."""
    schema = schema.get("oneOf", [schema])[0]
    if schema["type"] != "object":
        return EXAMPLES[schema["type"]]
    fields = schema["properties"]
    limits = {"max_tokens": 8, "n_predict": 8, "options": {"num_predict": 8}}
    short = {name: limit for name, limit in limits.items() if name in fields}
    return {name: example(fields[name]) for name in schema.get("required", ())} | short


def described() -> Iterator[Any]:
    """Every field of every body, those of objects within it too."""
    for path, schema in BODIES.items():
        for one in schema.get("anyOf", [schema] if schema else []):
            for name, field in one["properties"].items():
                yield pytest.param(path, example(one), (name,), id=f"{path} {name}")
                for inner in field.get("properties", ()):
                    yield pytest.param(path, example(one), (name, inner), id=f"{path} {inner}")


@pytest.mark.parametrize(("path", "body", "field"), list(described()))
def test_every_field_is_read(
    client: TestClient, path: str, body: dict[str, Any], field: tuple[str, ...]
) -> None:
    *outer, name = field
    inner = body
    for one in outer:
        inner = inner.setdefault(one, {})
    assert client.post(path, json=body).status_code == 200
    inner[name] = {"wrong": 1} if name != "stream_options" else 1
    response = client.post(path, json=body)
    assert response.status_code == 400
    assert ".".join(field) in response.text
    assert "not served here" not in response.text.replace("wrong is not served here", "")


ODD = {
    "string": ["", "\0", "a\ud800", "🙂\r\n", "<fim_middle>", "../../etc/passwd"],
    "boolean": [0, "true"],
    "integer": [-1, -(10**30), 10**30, -1e300, 1e300, 0.5, "1"],
    "number": [-1, -(10**30), 10**30, -1e300, 1e300, 1e-300, "1"],
    "array": [[], [[]], [None], [-1], ["\ud800"], [{}]],
    "object": [{}, [], {"": ""}],
}


@pytest.mark.parametrize(("path", "body", "field"), list(described()))
def test_every_field_at_its_odd_values(
    client: TestClient, path: str, body: dict[str, Any], field: tuple[str, ...]
) -> None:
    """Served or refused in the protocol's own form; never a failure."""
    *outer, name = field
    inner = body = json.loads(json.dumps(body))
    for one in outer:
        inner = inner.setdefault(one, {})
    kind = schema_of(path, field).get("type", "string")
    for value in ODD[kind]:
        inner[name] = value
        response = client.post(path, content=json.dumps(body))
        assert response.status_code in (200, 400, 404)
        assert response.status_code == 200 or told(path, response)


def schema_of(path: str, field: tuple[str, ...]) -> dict[str, Any]:
    """A field's schema; of the alternatives of a body, the one that has the field."""
    for one in BODIES[path].get("anyOf", [BODIES[path]]):
        found = one
        for name in field:
            found = found.get("properties", {}).get(name, {})
        if found:
            return dict(found)
    raise KeyError(field)


def told(path: str, response: Any) -> str:
    """What is wrong, in the form of the path's dialect."""
    error = response.json()["error"]
    if path.startswith("/api/") or path == "/v1/events":
        assert isinstance(error, str)
        return error
    assert {"message", "type", "code"} <= set(error)
    assert isinstance(error["message"], str)
    return str(error["message"])


READ = [path for path, schema in BODIES.items() if schema]


@pytest.mark.parametrize("path", READ)
@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "not JSON"),
        (b'{"prompt":"x"', "not JSON"),
        (b'["prompt"]', "a JSON object"),
        (b'{"prompt":"\xff"}', "not UTF-8"),
        (b'{"prompt":"\xed\xa0\x80"}', "not UTF-8"),
        ('{"prompt":"x"}'.encode("utf-16"), "not UTF-8"),
        (b'\xef\xbb\xbf{"prompt":"x"}', "not JSON"),
        (b'{"prompt":"\0"}', "not JSON"),
        (b'{"prompt":-Infinity}', "not JSON"),
        (b'{"prompt":' + b"9" * 5000 + b"}", "not JSON"),
        (b'{"prompt":' + b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
    ],
)
def test_what_is_no_body(client: TestClient, path: str, body: bytes, message: str) -> None:
    response = client.post(path, content=body)
    assert response.status_code == 400
    assert message in told(path, response)
    assert client.get("/health").status_code == 200


@pytest.mark.parametrize("path", READ)
def test_bodies_are_bounded(model: Model, path: str) -> None:
    app = create_app(Server(CompletionService(model), "tiny", max_body=1000))
    client = TestClient(app, base_url="http://127.0.0.1")
    response = client.post(path, content=b" " * 1001)
    assert response.status_code == 413
    assert told(path, response) == "the body is larger than 1000 bytes"


@pytest.mark.parametrize("name", ["other", "/etc/passwd", "../tiny", "owner/name", "TINY", "tiny "])
def test_only_the_model_that_was_loaded_is_known(client: TestClient, name: str) -> None:
    """By no other name is one looked for, be it a path or a hub id."""
    asked = 0
    for path, schema in BODIES.items():
        for one in schema.get("anyOf", [schema] if schema else []):
            if "model" in one["properties"]:
                response = client.post(path, json={**example(one), "model": name})
                assert response.status_code == 404
                assert "this server has tiny" in told(path, response)
                asked += 1
    assert asked == 7


def test_every_path_asks_for_the_key(model: Model) -> None:
    app = create_app(Server(CompletionService(model), "tiny"), api_key="open sesame")
    client = TestClient(app, base_url="http://127.0.0.1")
    for one in app.routes:
        for method in one.methods - {"HEAD"}:
            wrong = {"authorization": "Bearer wrong"}
            response = client.request(method, one.path, headers=wrong)
            if one.path in OPEN_TO_ALL:
                assert response.status_code == 200
            else:
                assert response.status_code == 401
                assert response.headers["www-authenticate"] == "Bearer"
                assert "API key" in json.dumps(response.json()["error"])


def test_every_route_is_described(app: Starlette, client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    served = {(route.path, method) for route in app.routes for method in route.methods - {"HEAD"}}
    told = {(path, method.upper()) for path, item in document["paths"].items() for method in item}
    assert told == served - {("/openapi.json", "GET")}
    assert {path for path, method in served if method == "POST"} == set(BODIES)


@pytest.mark.full
def test_schemathesis_finds_no_500(app: Starlette) -> None:
    """Right bodies and wrong ones, for every operation of the document, on a real decoder."""
    schemathesis = pytest.importorskip("schemathesis")
    schema = schemathesis.openapi.from_asgi("/openapi.json", app, headers={"host": "127.0.0.1"})
    tried = 0
    for result in schema.get_all_operations():
        operation = result.ok()
        # Where nothing is sent, nothing can be wrong.
        modes = list(schemathesis.GenerationMode) if BODIES.get(operation.path) else [None]
        for mode in modes:
            strategy = operation.as_strategy(**({"generation_mode": mode} if mode else {}))

            @given(case=strategy)
            @settings(
                max_examples=20,
                deadline=None,
                suppress_health_check=list(HealthCheck),
                derandomize=True,
                database=None,
            )
            def no_500(case: Any) -> None:
                nonlocal tried
                tried += 1
                assert case.call(headers={"host": "127.0.0.1"}).status_code < 500

            no_500()
    assert tried > 100
