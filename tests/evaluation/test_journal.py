"""Journals: what a kill leaves is gone on from, and nothing is mixed."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinystarcoder.errors import EvaluationError
from tinystarcoder.evaluation.journal import Journal, read

HEADER = {"task": "t", "model": "m"}


@given(cut=st.integers(0, 60))
def test_goes_on_from_wherever_it_was_cut(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    path = tmp_path_factory.mktemp("journal") / "t.jsonl"
    journal = Journal(path, HEADER)
    head = path.stat().st_size
    for name in "abc":
        journal.append({"id": name, "text": "line\nbreak"})
    whole = path.read_bytes()
    path.write_bytes(whole[: head + min(cut, len(whole) - head)])
    again = Journal(path, HEADER)
    for name in "abc":
        if name not in again.records:
            again.append({"id": name, "text": "line\nbreak"})
    assert path.read_bytes() == whole


def test_of_other_settings_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    Journal(path, HEADER).append({"id": "a"})
    before = path.read_bytes()
    with pytest.raises(EvaluationError, match=r"is of model 'm', not 'other'; give another"):
        Journal(path, HEADER | {"model": "other"})
    assert path.read_bytes() == before


@pytest.mark.parametrize("text", ["", "no json\n", "[1]\n[2]\n", '{"a": 1}\n{"no": "id"}\n'])
def test_what_is_no_journal(tmp_path: Path, text: str) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(text)
    with pytest.raises(EvaluationError, match="is no file of samples or scores"):
        read(path)
