"""The document says what is read, and nothing that it describes makes the server fail."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from starlette.applications import Starlette
from starlette.testclient import TestClient

from tinystarcoder.serving.openapi import BODIES

EXAMPLES = {"string": "tiny", "boolean": False, "integer": 1, "number": 1, "array": [1]}


def example(schema: dict[str, Any]) -> Any:
    """The least body that is right: its required fields."""
    if schema["type"] != "object":
        return EXAMPLES[schema["type"]]
    fields = schema["properties"]
    limit = {"max_tokens": 8} if "max_tokens" in fields else {}
    return {name: example(fields[name]) for name in schema.get("required", ())} | limit


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
