import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinystarcoder.corpus.decoding import SetAside
from tinystarcoder.corpus.document import CONTROL, segments
from tinystarcoder.corpus.notebooks import code_of, notebook_text

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), max_size=40)


def notebook(*cells, **metadata) -> bytes:
    return json.dumps({"cells": cells, "metadata": metadata, "nbformat": 4}).encode()


def code(source, *outputs):
    return {"cell_type": "code", "source": source, "outputs": list(outputs)}


def words(source):
    return {"cell_type": "markdown", "source": source}


def spelled(text: str) -> str:
    return text.replace(CONTROL, "")


def test_cells_in_order_each_behind_its_token():
    text = notebook_text(
        notebook(
            words(["# Title\n", "words"]),
            code("import os\n", {"output_type": "stream", "text": ["a\n", "b\n"]}),
            code("1 + 1", {"output_type": "execute_result", "data": {"text/plain": ["2"]}}),
            code("x = 1"),
            code(""),
            {"cell_type": "raw", "source": "raw"},
        )
    )
    assert spelled(text) == (
        "<jupyter_start><jupyter_text># Title\nwords"
        "<jupyter_code>import os\n<jupyter_output>a\nb"
        "<jupyter_code>1 + 1<jupyter_output>2"
        "<jupyter_code>x = 1<jupyter_output><empty_output>"
    )


@pytest.mark.parametrize(
    ("output", "shown"),
    [
        ({"output_type": "display_data", "data": {"image/png": "iVBOR"}}, "<empty_output>"),
        ({"output_type": "error", "ename": "KeyError", "evalue": "'x'"}, "KeyError: 'x'"),
        ({"output_type": "stream", "text": "\x1b[31mred\x1b[0m\n"}, "red"),
        ({"output_type": "stream", "text": "n\n" * 30}, "n\n" * 19 + "n"),
        ({"output_type": "stream", "text": "n" * 2000}, "n" * 1000),
    ],
)
def test_outputs_are_text_and_short(output, shown):
    assert spelled(notebook_text(notebook(code("x", output)))).endswith(f"<jupyter_output>{shown}")


def test_format_3_has_its_cells_in_worksheets():
    cells = [{"cell_type": "code", "input": ["x = 1"], "outputs": []}]
    text = notebook_text(json.dumps({"worksheets": [{"cells": cells}]}).encode())
    assert code_of(text) == "x = 1\n"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not a notebook"),
        (b"[1]", "not a notebook"),
        (b"{}", "not a notebook"),
        (b'{"cells": [1]}', "not a notebook"),
        (b'{"cells": [{"cell_type": "code", "source": [1]}]}', "not a notebook"),
        (b"[" * 100_000, "not a notebook"),
        (notebook(code("x\0")), "NUL bytes"),
        (b'{"cells": [{"cell_type": "code", "source": "\\ud800"}]}', "wrong encoding"),
        (notebook(code("x <- 1"), kernelspec={"language": "R"}), "not a Python notebook"),
        (notebook(code("x"), language_info={"name": "julia"}), "not a Python notebook"),
    ],
)
def test_what_is_set_aside(data, reason):
    with pytest.raises(SetAside, match=reason):
        notebook_text(data)


def test_ipythons_own_lines_are_not_python():
    text = notebook_text(
        notebook(
            code("%matplotlib inline\nimport os\nif x:\n    !ls\nfiles = !ls\nos.walk?\na % b"),
            code("%%bash\nls"),
            words("not code"),
            code("y = 1"),
        )
    )
    expected = "pass\nimport os\nif x:\n    pass\npass\npass\na % b\ny = 1\n"
    assert code_of(text) == expected


@given(st.lists(st.tuples(st.booleans(), TEXT), max_size=6))
def test_only_our_tokens_are_tokens(cells):
    """Whatever the cells spell, the tokens are those of the cells' kinds, and no text is lost."""
    spelled_out = [(is_code, f"{text}<jupyter_code>") for is_code, text in cells]
    made = [code(text) if is_code else words(text) for is_code, text in spelled_out]
    parts = segments(notebook_text(notebook(*made)))
    found = [
        (token == "<jupyter_code>", text)
        for token, text in zip(parts[1::2], parts[2::2], strict=True)
        if token in ("<jupyter_code>", "<jupyter_text>")
    ]
    assert found == spelled_out
