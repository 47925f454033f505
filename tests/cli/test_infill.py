"""``tinystarcoder infill``: where the cursor is, and what comes of it."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinystarcoder.cli.infill import offset
from tinystarcoder.errors import RequestError
from tinystarcoder.pretrained import load

Run = Callable[..., tuple[int, str, str]]

CODE = "def area(w, h):\n    return \n\nprint(area(2, 3))\n"


@pytest.fixture
def infill(run: Run, tiny_checkpoint: Path) -> Run:
    return lambda *arguments, **options: run(
        "infill", *arguments, "--model", str(tiny_checkpoint), **options
    )


@pytest.mark.parametrize("order", ["psm", "spm"])
def test_writes_what_belongs_at_the_cursor(
    infill: Run, tmp_path: Path, tiny_checkpoint: Path, order: str
) -> None:
    path = tmp_path / "area.py"
    path.write_text(CODE, newline="")
    cut = CODE.index("\n\n")
    expected = load(tiny_checkpoint).infill(CODE[:cut], CODE[cut:], order=order, max_tokens=20)
    options = ("--at", "2:12", "--order", order, "--max-tokens", "20")
    assert infill(str(path), *options) == (0, expected.text + "\n", "")
    assert infill("-", *options, stdin=CODE.encode()) == (0, expected.text + "\n", "")


@given(text=st.text("ab\n é🙂\t"), data=st.data())
def test_offset_is_where_an_editor_is(text: str, data: st.DataObject) -> None:
    cursor = data.draw(st.integers(0, len(text)))
    line = text.count("\n", 0, cursor) + 1
    column = cursor - (text.rfind("\n", 0, cursor) + 1) + 1
    assert offset(text, f"{line}:{column}") == cursor


def test_offset_with_windows_line_ends() -> None:
    """A cursor never stands between the two characters of a line end."""
    text = "ab\r\ncd\r\n"
    assert [offset(text, at) for at in ("1:3", "2:1", "2:3", "3:1")] == [2, 4, 6, 8]
    with pytest.raises(RequestError, match="line 1 ends in column 3"):
        offset(text, "1:4")


@pytest.mark.parametrize(
    ("at", "message"),
    [
        ("5:2", "line 5 ends in column 1"),
        ("6:1", "the file ends in line 5"),
        ("1:17", "line 1 ends in column 16"),
        ("0:1", "expected LINE:COLUMN, both whole numbers from 1"),
        ("1:0", "expected LINE:COLUMN"),
        ("-1:1", "expected LINE:COLUMN"),
        ("1", "expected LINE:COLUMN"),
        ("1:2:3", "expected LINE:COLUMN"),
        ("one:two", "expected LINE:COLUMN"),
        ("\u0661:\u0661", "expected LINE:COLUMN"),
        ("", "expected LINE:COLUMN"),
        ("9" * 30 + ":1", "expected LINE:COLUMN"),
    ],
)
def test_positions_that_are_not_in_the_file(
    infill: Run, tmp_path: Path, at: str, message: str
) -> None:
    path = tmp_path / "area.py"
    path.write_text(CODE, newline="")
    code, out, err = infill(str(path), f"--at={at}")
    assert (code, out) == (2, "")
    assert err.startswith(f"error: --at {at}: {message}")
    assert err.count("\n") == 1


def test_an_empty_file_has_one_place(infill: Run) -> None:
    assert infill("-", "--at", "1:1", "--max-tokens", "2")[0] == 0
    assert "line 1 ends in column 1" in infill("-", "--at", "1:2")[2]


def test_files_that_cannot_be_read(infill: Run, tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\x00")
    assert "binary: not UTF-8 text" in infill(str(tmp_path / "binary"), "--at", "1:1")[2]
    for name in ("none.py", "."):
        code, _, err = infill(str(tmp_path / name), "--at", "1:1")
        assert code == 2
        assert err.startswith("error: ")
        assert err.count("\n") == 1
