"""Keys counted by hand, and the rule that nobody is credited with what was wrong."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinystarcoder.completion.service import CompletionService
from tinystarcoder.evaluation.held_out import Source
from tinystarcoder.evaluation.keystrokes import (
    Line,
    by_service,
    replay,
    sample_lines,
    without_filters,
)
from tinystarcoder.pretrained import Model

TEXT = "import os\n\n\ndef list_files(path):\n    names = os.listdir(path)\n    return names\n"
LINE = Line("a", "a.py", "import os\n\n\ndef f(path):\n    ", "return os.listdir(path)", "\n")


def always(text: str) -> Callable[[Line, int], str]:
    return lambda line, at: text


def test_without_suggestions_every_character_is_a_key() -> None:
    typed = replay(LINE, always(""))
    assert (typed.keys, typed.saved, typed.shown, typed.accepted) == (23, 0, 0, 0)


def test_the_whole_line_at_once_costs_one_key() -> None:
    typed = replay(LINE, lambda line, at: line.text[at:])
    assert (typed.keys, typed.saved, typed.accepted, typed.whole) == (1, 22, 1, True)


def test_a_suggestion_that_goes_on_too_long_saves_nothing() -> None:
    typed = replay(LINE, lambda line, at: line.text[at:] + "  # done")
    assert (typed.saved, typed.accepted, typed.shown) == (0, 0, 23)


def test_parts_are_credited_where_they_are_right() -> None:
    typed = replay(LINE, lambda line, at: "listdir" if at == len("return os.") else "x")
    assert (typed.saved, typed.accepted, typed.whole) == (6, 1, False)
    assert typed.places == typed.keys == 23 - 6


@given(st.text(min_size=1, max_size=40), st.lists(st.integers(0, 9)))
def test_keys_are_places_and_never_more_than_characters(text: str, lengths: list[int]) -> None:
    given_out = iter(lengths)
    line = Line("a", "a.py", "", text, "")
    typed = replay(line, lambda line, at: line.text[at:][: next(given_out, 0)])
    assert typed.keys == typed.places <= typed.characters == len(text)
    assert typed.saved >= 0


def test_lines_are_cut_out_of_their_files() -> None:
    source = Source("p 1", (("a.py", TEXT),), ())
    lines = sample_lines([source], 4, seed=3)
    assert len({line.id for line in lines}) == 4
    for line in lines:
        assert line.before + line.text + line.after == TEXT
        assert line.text == line.text.strip()
    assert sample_lines([source], 4, seed=3) == lines


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("import os", "import"),
        ("from a.b import c", "import"),
        ("async def f():", "definition"),
        ("@property", "definition"),
        ("return x == 1", "return"),
        ("x: int = 1", "assignment"),
        ("self.a[0] += 1", "assignment"),
        ("# why", "comment"),
        ('r"""Text."""', "comment"),
        ("if x == 1:", "other"),
        ("print(x)", "other"),
    ],
)
def test_kinds(text: str, kind: str) -> None:
    assert Line("a", "a.py", "", text, "").kind == kind


def test_the_service_suggests_and_what_is_typed_is_not_asked_again(
    writing: Callable[..., Model],
) -> None:
    model = writing("return os.listdir(path)\n")
    with CompletionService(model) as service:
        typed = replay(LINE, by_service(service))
        assert (typed.keys, typed.whole) == (1, True)
        assert replay(LINE, without_filters(service)).whole


def test_jedi_by_the_same_rule(tmp_path: Path) -> None:
    jedi = pytest.importorskip("tinystarcoder.evaluation.peers.jedi")
    suggest = jedi.by_jedi(tmp_path)
    assert suggest(LINE, len("return os.listdi")) == "r"
    assert suggest(Line("a", "a.py", "", "x = ((((", ""), 4) in ("", suggest(LINE, 0))
