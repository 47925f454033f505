"""Holes by the syntax tree, and what counts as ending where the author did."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tinystarcoder.completion.service import CompletionService
from tinystarcoder.errors import EvaluationError
from tinystarcoder.evaluation.boundaries import (
    Hole,
    cut_holes,
    score_holes,
    stops_exactly,
    write_holes,
)
from tinystarcoder.evaluation.held_out import Source
from tinystarcoder.evaluation.journal import Journal
from tinystarcoder.pretrained import Model

TEXT = '''import os


@decorated
def search(folder):
    """Finds."""
    # As it comes.
    names = sorted(folder)  # once
    if names: return names
    for name in names:
        print(name)
        continue
    else:
        pass
    return os.path.join(folder,
                        names)


class Empty:
    def __len__(self):

        # Nothing.
        return 0
'''
SOURCE = Source("p 1", (("a.py", TEXT),), ())


def test_holes_are_what_the_tree_says() -> None:
    for seed in range(5):
        found = cut_holes([SOURCE], 8, seed)
        assert cut_holes([SOURCE], 8, seed) == found
        assert len({hole.id for hole in found}) == 8
        assert {hole.kind for hole in found[:2]} == {"statement", "block"}
        for hole in found:
            assert hole.before + hole.text + hole.after == TEXT
            assert hole.ends_there(hole.text) and stops_exactly(hole)
            # A line with two statements on it is no statement's own, a statement on two none.
            assert "if names" not in hole.text and "os.path" not in hole.text


def test_where_a_statement_ends() -> None:
    after = "  # why\n    return x\n"
    route = (("body", 0), ("body", 0))
    hole = Hole("a", "statement", "def f():\n    x = ", "1", after, 0, len(after), route)
    for text in ("1", "y[2]", "{\n    1: 2}", "[name\nfor name in y]", "1  # or 2"):
        assert hole.ends_there(text)
    for text in ("f(", "1\n    y = 1", "1; y", "", "1\n    return x", "1)", "'", "1\ny = 2"):
        assert not hole.ends_there(text)


def test_where_a_block_ends() -> None:
    head = "def __len__(self):"
    hole = next(hole for hole in cut_holes([SOURCE], 8) if hole.before.endswith(head))
    assert hole.kind == "block"
    for text in (
        " ...",
        "\n        pass\n",
        "\n        if self:\n            return 1\n        x()",
    ):
        assert hole.ends_there(text)
    for text in ("", "\n        pass\n\n    def f(self): ...", "\n    pass", "\n        (", "\nx"):
        assert not hole.ends_there(text)


def test_samples_and_scores(writing: Callable[..., Model], tmp_path: Path) -> None:
    head = "def __len__(self):"
    found = [hole for hole in cut_holes([SOURCE], 8, 1) if hole.before.endswith(head)]
    samples, scores = (Journal(tmp_path / name, {"task": "t"}) for name in ("samples", "scores"))
    with pytest.raises(EvaluationError, match="no samples of 1"):
        list(score_holes(found, samples, scores))
    text = "\n        return 1\n\n    def next(self):\n        return 2\n"
    with CompletionService(writing(text), order="psm") as service:
        assert len(list(write_holes(found, service, samples))) == 1
    [record] = score_holes(found, samples, scores)
    assert record["group"] == "block"
    assert record["metrics"] == {
        "as it comes": (0.0, 1),
        "stopped": (1.0, 1),
        "filtered": (1.0, 1),
        "author's text, stopped": (1.0, 1),
    }


def test_broken_files_have_no_holes() -> None:
    files = (("bad.py", "def f(:\n"), ("a.py", TEXT))
    [hole] = cut_holes([Source("p 1", files, ())], 1)
    assert hole.id.startswith("p 1: a.py:")
