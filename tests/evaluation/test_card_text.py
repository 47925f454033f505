"""Plain text to Markdown: the published card part by part, a second one, what must not change."""

import ast
import json
import re
from itertools import pairwise
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from tinystarcoder.evaluation.card_text import suggest_labels, to_markdown

SECOND = Path(__file__).parents[1] / "assets" / "card.txt"


def parsed(markdown: str) -> list[Token]:
    return MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(markdown)


def headings(tokens: list[Token]) -> list[tuple[str, str]]:
    return [
        (token.tag, text.content)
        for token, text in pairwise(tokens)
        if token.type == "heading_open"
    ]


def fences(tokens: list[Token]) -> list[tuple[str, str]]:
    return [(token.info, token.content) for token in tokens if token.type == "fence"]


def items(tokens: list[Token]) -> list[str]:
    found = []
    depth = 0
    for token in tokens:
        depth += (token.type == "list_item_open") - (token.type == "list_item_close")
        if depth and token.type == "inline":
            found.append(token.content)
    return found


def links(tokens: list[Token]) -> list[str]:
    inline = [child for token in tokens for child in token.children or ()]
    return [str(child.attrs["href"]) for child in inline if child.type == "link_open"]


@pytest.fixture(scope="module")
def folder(shared_data: Path) -> Path:
    return shared_data / "card"


@pytest.fixture(scope="module")
def text(folder: Path) -> str:
    return (folder / "card.txt").read_text()


@pytest.fixture(scope="module")
def tokens(text: str) -> list[Token]:
    return parsed(to_markdown(text))


@pytest.fixture(scope="module")
def expected(folder: Path) -> list[Token]:
    return parsed((folder / "expected.md").read_text())


@pytest.fixture(scope="module")
def second() -> list[Token]:
    return parsed(to_markdown(SECOND.read_text()))


class TestPublished:
    def test_title(self, tokens: list[Token], text: str) -> None:
        assert headings(tokens)[0] == ("h1", text.splitlines()[0])

    def test_sections(self, tokens: list[Token]) -> None:
        assert headings(tokens)[1:] == [
            *(("h2", "Use"), ("h3", "Intended use"), ("h3", "Generation")),
            *(("h3", "Fill-in-the-middle"), ("h2", "Training"), ("h3", "Model")),
            *(("h3", "Hardware"), ("h3", "Software"), ("h2", "License")),
        ]

    def test_fences_are_the_expected_ones_and_still_run(
        self, tokens: list[Token], expected: list[Token], text: str
    ) -> None:
        assert fences(tokens) == fences(expected)
        for language, code in fences(tokens):
            assert language == "python" and code.strip() in text
            ast.parse(code)

    def test_lists(self, tokens: list[Token], expected: list[Token]) -> None:
        assert items(tokens) == items(expected)

    def test_links(self, tokens: list[Token], expected: list[Token]) -> None:
        assert links(tokens) == links(expected) != []

    def test_prose(self, tokens: list[Token], text: str) -> None:
        """Every word of it, in order, and no more; nothing is struck out."""
        shown = " ".join(token.content for token in tokens if token.content)
        shown = re.sub(r"\[(\w+)\]\(\S+\)", r"\1", shown)
        assert shown.split() == text.split()
        assert not any(child.type == "s_open" for token in tokens for child in token.children or ())

    def test_labels(self, text: str, folder: Path) -> None:
        (wanted,) = re.findall(r"#### (\{.+\})", (folder / "expected.md").read_text())
        assert json.loads(wanted) in suggest_labels(text)
        keys = {label["key"] for label in suggest_labels(text)}
        assert not keys & {"llm-fine-tuned-model", "speech-recognition", "image-generation"}


class TestSecond:
    def test_headings(self, second: list[Token]) -> None:
        assert headings(second) == [
            *(("h1", "Parrot-Small"), ("h2", "Model summary"), ("h2", "How to use")),
            *(("h2", "Limitations"), ("h2", "Citation"), ("h2", "License")),
        ]

    def test_fences(self, second: list[Token]) -> None:
        found = dict(fences(second))
        assert list(found) == ["bash", "python", "pycon", "json", "bibtex"]
        assert found["bash"] == "pip install parrot-lm\n"
        code = ast.parse(found["python"])
        assert found["python"] in SECOND.read_text()
        assert [type(node) for node in code.body] == [ast.ImportFrom, ast.FunctionDef, ast.Expr]
        assert json.loads(found["json"]) == {"temperature": 0.7, "top_p": 0.9}

    def test_lists(self, second: list[Token]) -> None:
        assert items(second)[:5] == [
            *("Author: The Parrot Team", "Base model: gpt2", "Languages: English, German"),
            *("It repeats itself.", "It does not rhyme."),
        ]
        assert [token.type for token in second].count("ordered_list_open") == 1

    def test_links(self, second: list[Token]) -> None:
        host = "https://parrot.example.com"
        assert links(second) == [f"{host}/faq", f"{host}/license"]

    def test_prose_is_shown_as_it_was(self, second: list[Token]) -> None:
        (first,) = (t for t in second if t.type == "inline" and "33M" in t.content)
        shown = "".join(child.content for child in first.children or ())
        assert "has * no * stars and 2 ~ or 3 ~ tildes; its <bos> token and snake_case" in shown


def test_marks_that_are_there_are_kept() -> None:
    text = "# Title\n\nSee [the page](https://example.com/x_y) and `a*b`.\n\n"
    text += "```python\nx = 1\n\ny = 2\n```\n"
    assert to_markdown(text) == text


def test_code_that_does_not_parse_is_code_still() -> None:
    code = "x = load(...)\nfor y in x:\n    ...\nprint 'done', y"
    assert f"```text\n{code}\n```" in to_markdown(f"Title\n\n{code}\n\nA sentence follows.\n")


@pytest.mark.parametrize(
    "prose", ["Training", "See the list (below)", "Yes, no, maybe", "This is it: the model."]
)
def test_prose_that_parses_is_no_code(prose: str) -> None:
    assert "```" not in to_markdown(f"Title\n\n{prose}\n\nA sentence follows.\n")
