"""The playground: its request, its headers, and the page in a real Chromium."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from math import exp, prod
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from tinystarcoder.completion.request import CompletionRequest
from tinystarcoder.completion.service import CompletionService
from tinystarcoder.pretrained import Model, load
from tinystarcoder.serving.exchange import Server
from tinystarcoder.serving.http import create_app
from tinystarcoder.serving.playground import FILES

Serve = Callable[[Starlette], AbstractContextManager[int]]


def test_a_suggestion_with_its_tokens(client: TestClient, model: Model) -> None:
    told = client.post("/playground/suggest", json={"prefix": "def f(", "suffix": ")\n"}).json()
    made = CompletionService(model, order="spm").suggest(CompletionRequest("def f(", ")\n"))
    assert told["text"] == made.text
    assert "".join(token["text"] for token in told["tokens"]) == made.text
    product = exp(sum(score.logprob for score in made.shown_scores))
    assert prod(token["probability"] for token in told["tokens"]) == pytest.approx(product)
    assert told["timings"]["prompt_tokens"] == made.cost.prompt_tokens


def test_typed_into_it_keeps_its_tokens(writing: Callable[..., Model]) -> None:
    app = create_app(Server(CompletionService(writing("value, other\n")), "writer"))
    client = TestClient(app, base_url="http://127.0.0.1")
    asked = {"prefix": "def f(", "suffix": "\n", "mode": "line"}
    whole = client.post("/playground/suggest", json=asked).json()
    typed = {**asked, "prefix": "def f(" + whole["text"][:2]}
    rest = client.post("/playground/suggest", json=typed).json()
    assert rest["text"] == whole["text"][2:]
    assert "".join(token["text"] for token in rest["tokens"]) == rest["text"]
    assert rest["timings"]["tokens"] == 0


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"mode": "all"}, "mode must be one of"),
        ({"temperature": 9}, "temperature must be a number from 0 to 2"),
        ({"max_tokens": 10**9}, "max_tokens must be"),
        ({"prefix": None}, "prefix is missing"),
    ],
)
def test_what_is_wrong_is_named(client: TestClient, fields: dict[str, Any], told: str) -> None:
    response = client.post("/playground/suggest", json={"prefix": "x", **fields})
    assert response.status_code == 400
    assert told in response.json()["error"]["message"]


@pytest.mark.parametrize("path", FILES)
def test_files_come_under_a_strict_policy(client: TestClient, path: str) -> None:
    response = client.get(path)
    assert response.status_code == 200
    policy = response.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy and "*" not in policy
    for scheme in ("http:", "https:", "//cdn"):
        assert scheme not in response.text


@pytest.fixture
def chromium() -> Iterator[Any]:
    """Debian's Chromium, or what PLAYWRIGHT_CHROMIUM names."""
    playwright = pytest.importorskip("playwright.sync_api")
    program = os.environ.get("PLAYWRIGHT_CHROMIUM") or shutil.which("chromium")
    if program is None:
        pytest.skip("no chromium: install Debian's package, or name one by PLAYWRIGHT_CHROMIUM")
    quiet = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    quiet += ["--disable-component-update", "--disable-sync", "--no-first-run"]
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=program, args=quiet)
        yield browser
        browser.close()


@pytest.mark.full
class TestInChromium:
    @pytest.fixture(params=["light", "dark"])
    def page(
        self, request: pytest.FixtureRequest, chromium: Any, serve: Serve, writing: Any
    ) -> Iterator[Any]:
        """The page over a model that writes ``listdir(path)``, in both color schemes."""
        model = writing("os.listdir(path)\n")
        app = create_app(Server(CompletionService(model), "writer"))
        with serve(app) as port:
            page = chromium.new_page(color_scheme=request.param)
            asked, problems = [], []
            page.on("request", lambda request: asked.append(request.url))
            page.on("console", lambda m: problems.append(m.text) if m.type == "error" else None)
            page.on("pageerror", lambda error: problems.append(str(error)))
            page.goto(f"http://127.0.0.1:{port}/")
            yield page
            assert all(url.startswith(f"http://127.0.0.1:{port}/") for url in asked)
            assert [text for text in problems if "Failed to load resource" not in text] == []
            page.close()

    def test_keys_alone_work(self, page: Any, tmp_path: Any) -> None:
        """Ask, type into the suggestion, accept a word, then the rest, and undo that."""
        assert page.evaluate("document.activeElement.id") == "code"
        before = page.eval_on_selector("#code", "e => e.value")
        page.keyboard.press("Alt+Enter")
        grey = page.locator("#behind .suggested")
        page.wait_for_selector("#behind .suggested")
        assert "".join(grey.all_text_contents()) == "os.listdir(path)"
        assert "first token after" in page.text_content("#status")
        if shots := os.environ.get("TINYSTARCODER_SCREENSHOTS"):
            page.screenshot(path=f"{shots}/playground-{page.evaluate(DARK)}.png")
        page.keyboard.type("os")
        assert "".join(grey.all_text_contents()) == ".listdir(path)"
        page.keyboard.press("Alt+ArrowRight")
        assert page.eval_on_selector("#code", "e => e.value") == before + "os."
        page.keyboard.press("Tab")
        assert page.eval_on_selector("#code", "e => e.value") == before + "os.listdir(path)"
        page.keyboard.press("Control+z")  # How much of it one key undoes is the browser's to say.
        assert page.eval_on_selector("#code", "e => e.value") in (before + "os", before + "os.")

    def test_text_is_never_markup(self, page: Any) -> None:
        page.fill("#code", "x = '<img src=x onerror=alert(1)>'\n")
        assert page.locator("#behind img").count() == 0
        assert "<img" in page.text_content("#behind")

    def test_what_goes_wrong_is_said(self, page: Any) -> None:
        page.fill("[name=temperature]", "9")
        page.focus("#code")
        page.keyboard.press("Alt+Enter")
        page.wait_for_selector("#status.failed")
        assert "temperature must be a number from 0 to 2" in page.text_content("#status")


DARK = "matchMedia('(prefers-color-scheme: dark)').matches"


@pytest.mark.full
def test_nano_in_chromium(chromium: Any, serve: Serve) -> None:
    with CompletionService(load()) as service, serve(create_app(Server(service, "nano"))) as port:
        page = chromium.new_page()
        page.goto(f"http://127.0.0.1:{port}/")
        page.focus("#code")
        page.keyboard.press("Alt+Enter")
        page.wait_for_selector("#status:not(:empty)")
        assert page.text_content("#model") == "nano"
        page.close()
