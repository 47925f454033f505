"""Keys counted by hand, and the rule that nobody is credited with what was wrong."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinystarcoder.completion.postprocess import postprocess
from tinystarcoder.completion.request import Score, Suggestion
from tinystarcoder.completion.service import CompletionService
from tinystarcoder.errors import EvaluationError
from tinystarcoder.evaluation.generators import Ask, Written
from tinystarcoder.evaluation.held_out import Source
from tinystarcoder.evaluation.journal import Journal
from tinystarcoder.evaluation.keystrokes import (
    Line,
    as_written,
    by_generator,
    from_written,
    replay,
    request_at,
    restored,
    sample_lines,
    score_lines,
    stored,
    write_lines,
)
from tinystarcoder.pretrained import Model

TEXT = "import os\n\n\ndef list_files(path):\n    names = os.listdir(path)\n    return names\n"
LINE = Line("a", "a.py", "import os\n\n\ndef f(path):\n    ", "return os.listdir(path)", "\n")


def by_service(service: CompletionService) -> Callable[[Line, int], str]:
    return lambda line, at: service.suggest(request_at(line, at)).text


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
    with CompletionService(model, order="psm") as service:
        typed = replay(LINE, by_service(service))
        assert (typed.keys, typed.whole) == (1, True)
        assert replay(LINE, lambda line, at: service.write(request_at(line, at)).text).whole


@pytest.mark.parametrize("text", ["return os.path\n", "os.listdir(path)  \n", "x\n"])
def test_what_is_kept_replays_as_the_service_does(writing: Callable[..., Model], text: str) -> None:
    with CompletionService(writing(text), order="psm") as service:
        written = [service.write(request_at(LINE, at)) for at in range(len(LINE.text))]
        assert replay(LINE, from_written(written)) == replay(LINE, by_service(service))
    assert [restored(stored(one)).text for one in written] == [one.text for one in written]


def test_several_lines_at_once_are_typed_as_one_by_one(writing: Callable[..., Model]) -> None:
    lines = sample_lines([Source("p 1", (("a.py", TEXT),), ())], 4)
    with CompletionService(writing("names = os.listdir\n"), order="psm") as service:
        suggest = by_service(service)
        with ThreadPoolExecutor(3) as pool:
            at_once = list(pool.map(lambda line: replay(line, suggest), lines))
        assert at_once == [replay(line, suggest) for line in lines]


def rest_and_blanks(line: Line, at: int) -> Suggestion:
    text = line.text[at:] + "  "
    return Suggestion(text, "boundary", scores=(Score(len(text), -0.5),))


def test_a_kill_changes_nothing_and_the_filters_are_told_apart(tmp_path: Path) -> None:
    lines = sample_lines([Source("p 1", (("a.py", TEXT),), ())], 4)
    whole, cut = (Journal(tmp_path / name, {"task": "t"}) for name in ("whole", "cut"))
    assert len(list(write_lines(lines, rest_and_blanks, whole, 2))) == 4
    scores = Journal(tmp_path / "scores", {"task": "t"})
    with pytest.raises(EvaluationError, match=r"no samples of 4 .*, p 1: a\.py"):
        list(score_lines(lines, cut, scores, {"": postprocess}))
    next(write_lines(lines, rest_and_blanks, cut, 2))
    asked: list[str] = []

    def write(line: Line, at: int) -> Suggestion:
        asked.append(line.id)
        return rest_and_blanks(line, at)

    list(write_lines(lines, write, Journal(tmp_path / "cut", {"task": "t"}), 2))
    assert cut.path.read_bytes() == whole.path.read_bytes() and lines[0].id not in asked
    found = score_lines(lines, whole, scores, {"": postprocess, " unfiltered": as_written})
    for line, record in zip(lines, found, strict=True):
        size, metrics = len(line.text), record["metrics"]
        assert record["group"] == line.kind
        assert metrics["saved"] == (size - 1, size) and metrics["whole lines"] == (1, 1)
        assert metrics["saved unfiltered"] == (0, size) and metrics["shown unfiltered"][0] == size


class Echo:
    """Ends each text at the line's end, and remembers what it was asked."""

    def generate(self, asked: Iterable[Ask]) -> Iterator[list[Written]]:
        for ask in asked:
            assert ask.options.stop == ("\n",)
            yield [Written(f"{ask.prefix[-3:]}|{ask.suffix}", True)]


def test_any_model_can_type() -> None:
    assert by_generator(Echo())(LINE, 3).text == "ret|\n"


def test_jedi_by_the_same_rule(tmp_path: Path) -> None:
    jedi = pytest.importorskip("tinystarcoder.evaluation.peers.jedi")
    suggest = jedi.by_jedi(tmp_path)
    assert suggest(LINE, len("return os.listdi")) == "r"
    assert suggest(Line("a", "a.py", "", "x = ((((", ""), 4) in ("", suggest(LINE, 0))
    # The file's beginning is known, though an editor would not send it.
    line = Line("b", "b.py", "\n", "os.listdir(path)", "", "", "import os\n" + "\n" * 50)
    assert suggest(line, len("os.listd")) == "ir"
    assert suggest(line, len("os.LISTD")) == "ir"


def test_jedi_knows_the_package_of_a_line() -> None:
    jedi = pytest.importorskip("tinystarcoder.evaluation.peers.jedi")
    files = (("p/a.py", "from .b import *\nelderberry()\n"), ("p/b.py", "def elderberry(): ...\n"))
    source = Source("p 1", files, ())
    line = Line("c", "p/a.py", "from .b import *\n", "elderberry()", "\n", "p 1")
    with jedi.jedi_writer([source]) as write:
        assert write(line, 3).text == "erberry"
