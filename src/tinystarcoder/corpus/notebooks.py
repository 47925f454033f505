"""Jupyter notebooks as BigCode's structured text: cells told apart by special tokens.

    <jupyter_start><jupyter_text>words<jupyter_code>code<jupyter_output>what it printed…

Each cell of words and of code in its order; a code cell without a text output
has ``<empty_output>``. How the tokens stay tokens: see ``document.py``.

What it gives up: outputs other than text, the part of an output past 20 lines
or 1,000 characters, raw cells, and notebooks of other languages.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

from .decoding import SetAside, normalized
from .document import CONTROL, segments

MAX_OUTPUT_LINES = 20
MAX_OUTPUT_CHARACTERS = 1000

_START, _TEXT, _CODE, _OUTPUT, _EMPTY = (
    CONTROL + token
    for token in (
        *("<jupyter_start>", "<jupyter_text>", "<jupyter_code>"),
        *("<jupyter_output>", "<empty_output>"),
    )
)
_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
# Lines that IPython takes before Python does: %magic, !command, name?
_MAGIC = re.compile(r"^([ \t]*)(?:[%!].*|\??[\w.]+\?{1,2}[ \t]*|.*=[ \t]*[%!].*)$", re.MULTILINE)


def notebook_text(data: bytes) -> str:
    """The structured text of an ``.ipynb`` file. Raises SetAside where it is none of Python."""
    try:
        notebook = json.loads(data)
        _refuse_other_languages(notebook)
        return _START + "".join(_cells(notebook))
    except SetAside:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError) as error:
        raise SetAside("not a notebook") from error


def code_of(text: str) -> str:
    """The code cells of a structured text as one module, IPython's own lines left out."""
    parts = segments(text)
    cells = [
        source
        for token, source in zip(parts[1::2], parts[2::2], strict=True)
        if CONTROL + token == _CODE
    ]
    python = [cell for cell in cells if not cell.lstrip().startswith("%%")]
    return "\n".join(_MAGIC.sub(r"\1pass", cell) for cell in python) + "\n"


def _refuse_other_languages(notebook: Any) -> None:
    metadata = notebook.get("metadata", {})
    said = metadata.get("language_info", {}).get("name") or metadata.get("kernelspec", {}).get(
        "language", "python"
    )
    if "python" not in str(said).lower():
        raise SetAside("not a Python notebook")


def _cells(notebook: Any) -> Iterator[str]:
    # Format 3 has the cells in worksheets, and a code cell's source under another name.
    cells = notebook["cells"] if "cells" in notebook else notebook["worksheets"][0]["cells"]
    for cell in cells:
        source = _joined(cell["source"] if "source" in cell else cell.get("input", ""))
        if not source.strip():
            continue
        if cell["cell_type"] in ("markdown", "heading"):
            yield _TEXT + source
        elif cell["cell_type"] == "code":
            yield _CODE + source
            yield _OUTPUT + (_output(cell.get("outputs", [])) or _EMPTY)


def _output(outputs: Any) -> str:
    parts = [_output_text(output) for output in outputs]
    text = _ANSI.sub("", "".join(parts)).strip("\n")
    lines = text[:MAX_OUTPUT_CHARACTERS].split("\n")
    return "\n".join(lines[:MAX_OUTPUT_LINES])


def _output_text(output: Any) -> str:
    if output.get("output_type") in ("error", "pyerr"):
        return f"{output.get('ename', '')}: {output.get('evalue', '')}\n"
    data = output.get("data", output)
    return _joined(data.get("text/plain", output.get("text", "")))


def _joined(source: Any) -> str:
    """A string, or a list of lines that have their ends; checked as any source's text is."""
    return normalized(source if isinstance(source, str) else "".join(source))
