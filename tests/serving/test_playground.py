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
    assert told["probability"] == pytest.approx(made.probability)
    assert told["attribution"] is None  # There is no index here: nothing is known.


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


@pytest.fixture(scope="module")
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
        """The page over a model that writes ``os.listdir(path)``, in both color schemes."""
        # What the page's own text repeats would be mixed in, and doubted.
        service = CompletionService(writing("os.listdir(path)\n"), ngrams=False)
        app = create_app(Server(service, "writer"))
        with serve(app) as port:
            page = chromium.new_page(color_scheme=request.param)
            page.set_default_timeout(PATIENCE)
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
        told = page.text_content("#status")
        assert "ms to the first token" in told and "tokens/s" in told and "to be right" in told
        assert page.locator("#tokens li").count() == page.locator("#behind .suggested").count()
        page.keyboard.type("os")
        assert "".join(grey.all_text_contents()) == ".listdir(path)"
        page.keyboard.press("Alt+ArrowRight")
        assert page.eval_on_selector("#code", "e => e.value") == before + "os."
        page.keyboard.press("Tab")
        assert page.eval_on_selector("#code", "e => e.value") == before + "os.listdir(path)"
        page.keyboard.press("Control+z")  # How much of it one key undoes is the browser's to say.
        assert page.eval_on_selector("#code", "e => e.value") in (before + "os", before + "os.")

    def test_focus_is_not_trapped(self, page: Any) -> None:
        """Tab accepts what is suggested; where nothing is, or that is put away, it leaves."""
        page.uncheck("[name=automatic]")
        page.focus("#code")
        page.keyboard.press("Alt+Enter")
        page.wait_for_selector("#behind .suggested")
        page.keyboard.press("Escape")
        assert page.locator("#behind .suggested").count() == 0
        before = page.eval_on_selector("#code", "e => e.value")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") != "code"
        assert page.eval_on_selector("#code", "e => e.value") == before

    def test_a_pointer_works_too(self, page: Any) -> None:
        page.uncheck("[name=automatic]")
        before = page.eval_on_selector("#code", "e => e.value")
        page.click("[data-does=ask]")
        page.wait_for_selector("#behind .suggested")
        page.click("[data-does=word]")
        assert page.eval_on_selector("#code", "e => e.value") == before + "os"
        page.click("[data-does=line]")
        assert page.eval_on_selector("#code", "e => e.value") == before + "os.listdir(path)"
        assert page.is_disabled("[data-does=all]")

    def test_settings_are_sent(self, page: Any) -> None:
        page.select_option("#example", "between two lines")
        page.select_option("[name=mode]", "line")
        page.fill("[name=max_tokens]", "7")
        page.uncheck("[name=behind]")
        page.focus("#code")
        with page.expect_request("**/playground/suggest") as asked:
            page.keyboard.press("Alt+Enter")
        body = asked.value.post_data_json
        assert (body["mode"], body["max_tokens"], body["suffix"]) == ("line", 7, "")
        page.check("[name=behind]")
        page.focus("#code")
        with page.expect_request("**/playground/suggest") as asked:
            page.keyboard.press("Alt+Enter")
        assert asked.value.post_data_json["suffix"].endswith("return total / len(values)\n")

    def test_text_is_never_markup(self, page: Any) -> None:
        page.uncheck("[name=automatic]")
        page.fill("#code", "x = '<img src=x onerror=alert(1)>'\n# <b>&amp;\n")
        assert page.locator("#behind img, #behind b").count() == 0
        assert page.text_content("#behind") == page.eval_on_selector("#code", "e => e.value") + "\n"

    @pytest.mark.parametrize("width", [360, 1280])
    def test_it_fits(self, page: Any, width: int) -> None:
        """Nothing is wider than the window, whatever its width."""
        page.set_viewport_size({"width": width, "height": 900})
        page.select_option("#example", "between two lines")
        page.focus("#code")
        page.keyboard.press("Alt+Enter")
        page.wait_for_selector("#behind .suggested")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        if shots := os.environ.get("TINYSTARCODER_SCREENSHOTS"):
            scheme = "dark" if page.evaluate(DARK) else "light"
            page.screenshot(path=f"{shots}/{scheme}-{width}.png", full_page=True)

    def test_what_goes_wrong_is_said(self, page: Any) -> None:
        page.fill("[name=temperature]", "9")
        page.focus("#code")
        page.keyboard.press("Alt+Enter")
        page.wait_for_selector("#status.failed")
        assert "temperature must be a number from 0 to 2" in page.text_content("#status")


PATIENCE = 180_000  # Milliseconds: a busy machine is not a bug.
DARK = "matchMedia('(prefers-color-scheme: dark)').matches"


@pytest.mark.full
def test_nano_in_chromium(chromium: Any, serve: Serve) -> None:
    with CompletionService(load()) as service, serve(create_app(Server(service, "nano"))) as port:
        page = chromium.new_page()
        page.set_default_timeout(PATIENCE)
        page.goto(f"http://127.0.0.1:{port}/")
        page.focus("#code")
        page.keyboard.press("Alt+Enter")
        page.wait_for_selector("#status:not(:empty)")
        assert page.text_content("#model") == "nano"
        page.close()


@pytest.mark.full
def test_a_script_in_the_page_does_not_run(chromium: Any, serve: Serve, app: Starlette) -> None:
    """Should text ever become markup, the policy is what is left."""
    with serve(app) as port:
        page, refused = chromium.new_page(), []
        page.on("console", lambda message: refused.append(message.text))
        page.goto(f"http://127.0.0.1:{port}/")
        page.evaluate(
            """() => {
              const script = document.createElement("script");
              script.textContent = "window.ran = true";
              document.body.append(script);
              const image = document.createElement("img");
              image.src = "/health";
              document.body.append(image);
            }"""
        )
        assert page.evaluate("window.ran") is None
        assert any("Content Security Policy" in text for text in refused)
        page.close()
