"""Servers as peers: what is asked of them, and what is taken from their answers."""

import json
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from tinystarcoder.cli.serve import bind
from tinystarcoder.completion.service import CompletionService
from tinystarcoder.errors import EvaluationError
from tinystarcoder.evaluation.generators import Ask, Written
from tinystarcoder.evaluation.held_out import Source
from tinystarcoder.evaluation.journal import Record, read
from tinystarcoder.evaluation.suite import Settings, Subject, Suite
from tinystarcoder.generation.sampling import SamplingOptions
from tinystarcoder.pretrained import load
from tinystarcoder.serving.exchange import Server
from tinystarcoder.serving.http import create_app

OPTIONS = SamplingOptions(max_tokens=8, temperature=0.5, top_p=0.9, seed=7, stop=("\n", "#"))

ANSWERS = {
    "/completion": {"content": "one", "stop_type": "word"},
    "/infill": {"content": "two", "stop_type": "limit"},
    "/v1/completions": {"choices": [{"text": "three", "finish_reason": "stop"}]},
}


@pytest.fixture
def server() -> Iterator[tuple[str, list[tuple[str, dict[str, Any]]]]]:
    asked: list[tuple[str, dict[str, Any]]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append((self.path, body))
            odd: dict[str, Any] = {"none": None, "odd": ["no", "object"]}
            found = odd.get(body.get("model", ""), ANSWERS.get(self.path))
            self.send_response(200 if found else 404)
            self.end_headers()
            self.wfile.write(json.dumps(found or {"error": "no such model"}).encode())

        def log_message(self, *_: Any) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{listening.server_port}", asked
        listening.shutdown()
        thread.join()


def texts(model: str, ask: Ask) -> list[Written]:
    """What a subject of that name writes."""
    (found,) = Subject(model).generator.generate([ask])
    return found


def test_llama_cpp(server: tuple[str, list[tuple[str, dict[str, Any]]]]) -> None:
    url, asked = server
    name = f"llama.cpp:{url}"
    assert texts(name, Ask("a", None, OPTIONS, 2)) == [("one", True)] * 2
    assert texts(name, Ask("a", "b", OPTIONS)) == [("two", False)]
    (_, first), (_, second), (path, third) = asked
    assert first == {
        "prompt": "a",
        "n_predict": 8,
        "stop": ["\n", "#"],
        "top_k": 0,
        "min_p": 0.0,
        "temperature": 0.5,
        "top_p": 0.9,
        "seed": 7,
    }
    assert second == first | {"seed": 8}
    assert path == "/infill" and (third["input_prefix"], third["input_suffix"]) == ("a", "b")


def test_openai(server: tuple[str, list[tuple[str, dict[str, Any]]]]) -> None:
    url, asked = server
    assert texts(f"openai:{url}#tiny", Ask("a", "b", OPTIONS)) == [("three", True)]
    path, body = asked[0]
    assert path == "/v1/completions"
    assert (body["model"], body["prompt"], body["suffix"]) == ("tiny", "a", "b")
    assert body["max_tokens"] == 8


def test_errors(server: tuple[str, list[tuple[str, dict[str, Any]]]]) -> None:
    url, _ = server
    ask = Ask("a", None, OPTIONS)
    with pytest.raises(EvaluationError, match=r"404: .*no such model"):
        texts(f"openai:{url}#none", ask)
    with pytest.raises(EvaluationError, match="no completion came"):
        texts(f"openai:{url}#odd", ask)
    with pytest.raises(EvaluationError, match="nourl/v1/completions: no completion came"):
        texts("openai:nourl", ask)
    with pytest.raises(EvaluationError, match="needs the weights, not a server"):
        Subject(f"openai:{url}").scorer()
    with pytest.raises(EvaluationError, match="needs a model of this family"):
        Subject(f"openai:{url}").own("speculation")
    with pytest.raises(EvaluationError, match="no completion came"):
        texts("openai:http://127.0.0.1:1", ask)


PROBLEMS = [
    {
        "task_id": f"HumanEval/{number}",
        "prompt": f'def half{number}(x):\n    """Half of x."""\n',
        "entry_point": f"half{number}",
        "canonical_solution": "    return x / 2\n",
        "test": "def check(candidate):\n    assert candidate(3) == 1.5\n",
        "suffix": "\n# the end\n",
    }
    for number in range(3)
]
CODE = "def area(width, height):\n    if width < 0:\n        return 0\n    return width * height\n"


@pytest.fixture
def own_server(tiny_checkpoint: Path) -> Iterator[str]:
    """This package's own server, which speaks both dialects, on a free port."""
    service = CompletionService(load(tiny_checkpoint, precision="fp32"), order="psm")
    bound = bind("127.0.0.1", 0)
    app = create_app(Server(service, "tiny"))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False))
    thread = threading.Thread(target=server.run, args=([bound],))
    thread.start()
    yield f"http://127.0.0.1:{bound.getsockname()[1]}"
    server.should_exit = True
    thread.join()
    bound.close()
    service.close()


def samples(model: str, folder: Path, tasks: Sequence[str]) -> dict[str, Record]:
    """What a suite of these tasks leaves in its journals."""
    benchmark = folder.parent / "problems.jsonl"
    benchmark.write_text("".join(json.dumps(problem) + "\n" for problem in PROBLEMS))
    source = Source("shapes", (("shapes.py", CODE),), ())
    subject = Subject(model, order="psm")
    suite = Suite(subject, folder, Settings(prompts=3, lines=3), [source], lambda *a: a[2])
    for task in tasks:
        chosen = suite.task(task, benchmark)
        chosen = replace(chosen, max_tokens=24)
        suite.score(chosen, suite.generate(chosen), None, workers=1)
    suite.parse_rate()
    journals = [*(folder / "samples").glob("*.jsonl"), folder / "scores" / "parse-rate.jsonl"]
    return {path.name: read(path)[1] for path in journals}


@pytest.mark.parametrize(
    ("dialect", "tasks"),
    [
        ("llama.cpp:{}", ["human-eval"]),  # Its /infill is an editor's: stopped and filtered.
        ("openai:{}#tiny", ["human-eval", "multi-line", "line-match"]),
    ],
)
def test_a_model_behind_a_server_writes_what_it_writes_here(
    dialect: str, tasks: list[str], own_server: str, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    served = samples(dialect.format(own_server), tmp_path / "served", tasks)
    here = samples(str(tiny_checkpoint), tmp_path / "here", tasks)
    assert len(here) == len(tasks) + 1
    assert served == here
    assert (
        len({text for record in here["human-eval.jsonl"].values() for text in record["samples"]})
        > 1
    )
