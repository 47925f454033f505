"""What an operator sees and sets: metrics, log lines, a key, limits."""

import json
import logging
import threading
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from tinystarcoder.completion.service import CompletionService
from tinystarcoder.generation.sampling import SamplingOptions
from tinystarcoder.generation.scheduler import Scheduler
from tinystarcoder.pretrained import Model
from tinystarcoder.serving.exchange import Server
from tinystarcoder.serving.http import MAX_OPEN, create_app

ASKED = {"prompt": "secret = ", "max_tokens": 4, "temperature": 0}


def client_of(model: Model, **options: Any) -> TestClient:
    app = create_app(Server(CompletionService(model), "tiny"), **options)
    return TestClient(app, base_url="http://127.0.0.1")


def read(client: TestClient) -> dict[str, float]:
    text = client.get("/metrics").text
    return {
        sample.name + "".join(sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_metrics_count_tokens_and_requests(client: TestClient, model: Model) -> None:
    used = client.post("/v1/completions", json=ASKED).json()["usage"]
    client.post("/v1/completions", json={**ASKED, "max_tokens": -1})
    client.get("/no/such/path")
    found = read(client)
    assert found["tinystarcoder:prompt_tokens_total"] == used["prompt_tokens"]
    assert found["tinystarcoder:tokens_predicted_total"] == used["completion_tokens"]
    assert found["tinystarcoder:requests_processing"] == 0
    assert found["tinystarcoder:http_requests_total/v1/completions200"] == 1
    assert found["tinystarcoder:http_requests_total/v1/completions400"] == 1
    assert found["tinystarcoder:http_requests_total(unserved)404"] == 1
    assert found["tinystarcoder:http_requests_open"] == 1  # The question itself.


def test_what_is_refused_is_counted_by_no_name_of_its_own(model: Model) -> None:
    """Whoever has no key could else fill memory and log with as many paths as there are words."""
    client = client_of(model, api_key="open sesame")
    for path in ("/secret/one", "/secret/two"):
        assert client.get(path).status_code == 401
    found = client.get("/metrics", headers={"authorization": "Bearer open sesame"}).text
    assert 'path="(unserved)",status="401"} 2.0' in found
    assert "secret" not in found


@pytest.mark.parametrize("log_text", [False, True])
def test_a_line_a_request(model: Model, caplog: pytest.LogCaptureFixture, log_text: bool) -> None:
    """The text is in it only where the server was asked for that."""
    caplog.set_level(logging.INFO, "tinystarcoder.serving")
    client_of(model, log_text=log_text).post("/v1/completions", json=ASKED)
    (line,) = [record.getMessage() for record in caplog.records if "status" in record.getMessage()]
    told = json.loads(line)
    assert (told["path"], told["status"], told["method"]) == ("/v1/completions", 200, "POST")
    assert told["ms"] >= 0
    assert ("secret" in line) == log_text


class TestKey:
    @pytest.mark.parametrize("sent", [None, "Bearer wrong", "open sesame", "Bearer open sesam"])
    def test_without_it(self, model: Model, sent: str | None) -> None:
        headers = {"authorization": sent} if sent else {}
        response = client_of(model, api_key="open sesame").get("/v1/models", headers=headers)
        assert response.status_code == 401
        assert "API key" in response.json()["error"]["message"]

    def test_the_host_header_opens_no_door(self, model: Model) -> None:
        """The path that is open to all is the one that is asked for, whatever stands before it."""
        headers = {"host": "127.0.0.1/health?"}
        response = client_of(model, api_key="open sesame").get("/v1/models", headers=headers)
        assert response.status_code == 403

    def test_it_is_compared_in_constant_time(
        self, model: Model, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        compared: list[tuple[bytes, bytes]] = []
        monkeypatch.setattr("hmac.compare_digest", lambda *two: compared.append(two) or True)
        sent = {"authorization": "Bearer öpen".encode()}
        answered = client_of(model, api_key="ö").get("/v1/models", headers=sent)
        assert answered.status_code == 200
        assert compared == [("Bearer öpen".encode(), "Bearer ö".encode())]

    def test_with_it(self, model: Model) -> None:
        client = client_of(model, api_key="open sesame")
        sent = {"authorization": "Bearer open sesame"}
        assert client.get("/v1/models", headers=sent).status_code == 200
        assert client.get("/health").status_code == 200


class TestLimits:
    def test_a_full_queue_is_503(self, writing: Callable[..., Model]) -> None:
        """The one slot is taken and nobody may wait: ask later."""
        model, gate = writing("x" * 20), threading.Event()
        extend: Any = model.decoder.extend_batch  # type: ignore[attr-defined]

        def gated(*arguments: Any, **options: Any) -> Any:
            gate.wait()
            return extend(*arguments, **options)

        model.decoder.extend_batch = gated  # type: ignore[attr-defined, method-assign]
        service = CompletionService(model, slots=1, waiting=1)
        client = TestClient(create_app(Server(service, "tiny")), base_url="http://127.0.0.1")
        ids = model.tokenizer.encode("a")
        runs = [service.run(ids, SamplingOptions()).start()]
        while service.scheduler.load != (1, 0):
            pass
        runs.append(service.run(ids, SamplingOptions()).start())
        for stream in (False, True):
            response = client.post("/v1/completions", json={**ASKED, "stream": stream})
            assert response.status_code == 503
            assert response.headers["retry-after"] == "1"
            assert response.json()["error"]["code"] == "overloaded"
        gate.set()
        assert all(run.whole().tokens for run in runs)

    def test_the_engine_knows_who_asks(
        self, client: TestClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """In whole answers and in streams, so that its turns are fair."""
        submit, clients = Scheduler.submit, []

        def noted(*given: Any, **options: Any) -> Any:
            clients.append(options["client"])
            return submit(*given, **options)

        monkeypatch.setattr(Scheduler, "submit", noted)
        for stream in (False, True):
            client.post("/v1/completions", json={**ASKED, "stream": stream})
        assert clients == ["testclient"] * 2

    def test_one_client_has_so_many_open(self, endless: Model, serve: Callable[..., Any]) -> None:
        """Those beyond are told 429; when the others have gone, it is heard again."""
        service = CompletionService(endless)
        with serve(create_app(Server(service, "endless"))) as port:
            url = f"http://127.0.0.1:{port}"
            body = {"prompt": "x", "temperature": 0, "stream": True}
            with httpx.Client(timeout=None, limits=httpx.Limits(max_connections=None)) as client:
                held = [
                    client.send(
                        client.build_request("POST", f"{url}/completion", json=body), stream=True
                    )
                    for _ in range(MAX_OPEN)
                ]
                refused = client.get(f"{url}/health")
                assert refused.status_code == 429
                assert refused.headers["retry-after"] == "1"
                for response in held:
                    response.close()
            while httpx.get(f"{url}/health").status_code == 429:
                pass
        service.close()

    def test_time_ends_an_answer(self, endless: Model) -> None:
        server = Server(CompletionService(endless), "endless", max_seconds=0.05)
        client = TestClient(create_app(server), base_url="http://127.0.0.1")
        asked = {"prompt": "x", "max_tokens": 9_000_000, "temperature": 0}
        told = client.post("/v1/completions", json=asked).json()
        assert told["choices"][0]["finish_reason"] == "length"
        assert 0 < told["usage"]["completion_tokens"] < 9_000_000
        for path, read in (("/v1/completions", "text"), ("/fim/completions", "delta")):
            *_, last, done, _ = client.post(path, json={**asked, "stream": True}).text.split("\n\n")
            (choice,) = json.loads(last.removeprefix("data: "))["choices"]
            assert choice["finish_reason"] == "length" and read in choice
            assert done == "data: [DONE]"
