"""``tinystarcoder complete`` on a small random model."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tinystarcoder.corpus.attribution_index import build_full
from tinystarcoder.corpus.document import Document
from tinystarcoder.pretrained import Model, load

Run = Callable[..., tuple[int, str, str]]

PROMPT = "import os\n\n\ndef list_files(path):\n"


@pytest.fixture(scope="module")
def model(tiny_checkpoint: Path) -> Model:
    return load(tiny_checkpoint)


@pytest.fixture
def complete(run: Run, tiny_checkpoint: Path) -> Run:
    """Runs the command with the small model."""
    return lambda *arguments, **options: run(
        "complete", *arguments, "--model", str(tiny_checkpoint), **options
    )


def test_prints_the_continuation_alone(complete: Run, model: Model) -> None:
    assert complete(PROMPT) == (0, model.complete(PROMPT).text + "\n", "")


def test_echo(complete: Run, model: Model) -> None:
    expected = PROMPT + model.complete(PROMPT).text + "\n"
    assert complete(PROMPT, "--echo") == (0, expected, "")
    assert complete(PROMPT, "--echo", "--stream") == (0, expected, "")


def test_guesses_change_nothing(complete: Run, model: Model, tiny_checkpoint: Path) -> None:
    expected = (0, model.complete(PROMPT).text + "\n", "")
    assert complete(PROMPT, "--draft", str(tiny_checkpoint)) == expected
    assert complete(PROMPT, "--no-prompt-lookup") == expected


def test_stream_prints_the_same(complete: Run, model: Model) -> None:
    assert complete(PROMPT, "--stream") == (0, model.complete(PROMPT).text + "\n", "")


@pytest.mark.parametrize("text", [PROMPT, "x = 1\r\n", "# Grüße 🙂"])
def test_prompts_from_elsewhere(complete: Run, model: Model, tmp_path: Path, text: str) -> None:
    """A file, or standard input, read as UTF-8 with its line ends as they are."""
    expected = (0, model.complete(text).text + "\n", "")
    path = tmp_path / "prompt.py"
    path.write_bytes(text.encode())
    assert complete("--file", str(path)) == expected
    assert complete(stdin=text.encode()) == expected
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert complete("--file", str(path)) == expected


def test_options_reach_the_model(complete: Run, model: Model) -> None:
    code, out, _ = complete(
        *(PROMPT, "--max-tokens", "9", "--temperature", "2", "--top-k", "50", "--top-p", "0.95"),
        *("--min-p", "0.01", "--repetition-penalty", "1.2", "--seed", "7"),
    )
    expected = model.complete(
        PROMPT,
        max_tokens=9,
        temperature=2.0,
        top_k=50,
        top_p=0.95,
        min_p=0.01,
        repetition_penalty=1.2,
        seed=7,
    )
    assert (code, out) == (0, expected.text + "\n")


def test_stop_strings(complete: Run, model: Model) -> None:
    text = model.complete(PROMPT).text
    stops = text[10:13], text[5:8]
    code, out, _ = complete(PROMPT, "--stop", stops[0], "--stop", stops[1])
    assert (code, out) == (0, model.complete(PROMPT, stop=stops).text + "\n")
    assert len(out) <= 6


def test_samples(complete: Run, model: Model) -> None:
    options = ("--samples", "2", "--temperature", "2", "--seed", "3", "--max-tokens", "5")
    code, out, _ = complete("x", *options)
    one, two = (c.text for c in model.samples("x", 2, temperature=2.0, seed=3, max_tokens=5))
    assert (code, out) == (0, f"--- 1 of 2 ---\n{one}\n--- 2 of 2 ---\n{two}\n")


def test_a_long_prompt_is_cut_with_a_warning(complete: Run) -> None:
    code, out, err = complete("x = 1\n" * 200)
    assert code == 0
    assert out
    assert err.startswith("warning: the prompt's first ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["x", "--max-tokens", "0"], "max_tokens 0: must be 1 or more"),
        (["x", "--max-tokens", "128"], "max_tokens 128 leaves no room for a prompt"),
        (["x", "--temperature", "-1"], "temperature -1.0: must be 0 or more"),
        (["x", "--temperature", "nan"], "temperature nan: must be 0 or more"),
        (["x", "--top-p", "2"], "top_p 2.0: must be in [0, 1]"),
        (["x", "--top-k", "-1"], "top_k -1: must be 0 (off) or more"),
        (["x", "--min-p", "2"], "min_p 2.0: must be in [0, 1]"),
        (["x", "--repetition-penalty", "0"], "repetition_penalty 0.0: must be above 0"),
        (["x", "--seed", "-1"], "seed -1: must be 0 or more"),
        (["x", "--stop", ""], "stop ['']: must be strings, none of them empty"),
        (["x", "--samples", "2"], "--samples with --temperature 0"),
        (["x", "--samples", "0"], "samples 0: must be 1 or more"),
        (["x", "--samples", "2", "--temperature", "1", "--stream"], "--stream shows one text"),
        (["x", "--file", __file__], "a prompt and --file: give one of them"),
    ],
)
def test_bad_input(complete: Run, arguments: list[str], message: str) -> None:
    code, out, err = complete(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {message}")
    assert err.count("\n") == 1


@pytest.mark.parametrize("name", ["nowhere", "no/such/folder", "./none"])
def test_no_such_model(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = run("complete", "x", "--model", name)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {name}: no such folder")


def test_text_that_is_no_utf8(complete: Run, tmp_path: Path) -> None:
    (tmp_path / "latin.py").write_bytes("größe = 1".encode("latin-1"))
    code, _, err = complete("--file", str(tmp_path / "latin.py"))
    assert code == 2
    assert "latin.py: not UTF-8 text" in err
    assert "standard input: not UTF-8 text" in complete(stdin=b"\xff")[2]


def test_a_terminal_is_not_waited_for(complete: Run) -> None:
    code, _, err = complete()
    assert code == 2
    assert err.startswith("error: no prompt: give one, or --file")


class TestAttribution:
    """The corpus holds what the small model writes after PROMPT, and the prompt before it."""

    @pytest.fixture
    def index(self, model: Model, tmp_path: Path) -> Path:
        text = PROMPT + model.complete(PROMPT).text
        build_full([Document(text, "m.py", "alpha", "1.0", "MIT")], tmp_path / "i", at_least=10)
        return tmp_path / "i"

    @pytest.mark.parametrize("stream", [(), ("--stream",)])
    def test_whose_the_continuation_is(
        self, complete: Run, model: Model, index: Path, stream: tuple[str, ...]
    ) -> None:
        code, out, err = complete(PROMPT, "--attribute", "--index", str(index), *stream)
        assert (code, out) == (0, model.complete(PROMPT).text + "\n")
        assert re.match(r"attribution: lines 1-\d+, \d+ words: import os\n", err)
        assert err.endswith("\nattribution:   alpha 1.0 (MIT) m.py\n")

    def test_the_prompt_alone_is_not_named(self, complete: Run, tmp_path: Path) -> None:
        build_full([Document(PROMPT, "m.py", "a", "1", "MIT")], tmp_path / "i", at_least=8)
        arguments = (PROMPT, "--attribute", "--index", str(tmp_path / "i"))
        assert complete(*arguments)[2] == "attribution: no span found in the training corpus\n"

    def test_the_index_beside_the_model(
        self, complete: Run, tiny_checkpoint: Path, index: Path
    ) -> None:
        code, _, err = complete(PROMPT, "--attribute")
        assert code == 2
        assert "no attribution index of its corpus lies beside this model" in err
        index.rename(tiny_checkpoint / "attribution")
        try:
            assert "alpha 1.0 (MIT) m.py" in complete(PROMPT, "--attribute")[2]
        finally:
            (tiny_checkpoint / "attribution").rename(index)

    def test_an_index_without_the_question(self, complete: Run, index: Path) -> None:
        code, _, err = complete(PROMPT, "--index", str(index))
        assert (code, err) == (2, "error: --index goes with --attribute\n")
