"""The comment at the top of a file that repeats its license: taken off, on request.

A quarter of all files begin with the same twenty lines. What a file's license
is stays known from the corpus's columns, and who holds it from the package.

What it gives up: a license told in a docstring, which is code, stays.
"""

import re

_SAYS_LICENSE = re.compile(
    r"copyright|licen[cs]e|all rights reserved|\bspdx-|without warrant|redistribut|\(c\)",
    re.IGNORECASE,
)
# What a program reads: an interpreter's line, a coding cookie, an editor's settings.
_FOR_PROGRAMS = re.compile(r"#!|#.*coding[:=]|#\s*(?:-\*-|vim?:|type:|ruff:|pylint:|flake8:|mypy:)")


def without_license_header(text: str) -> str:
    """The text without those comments before its first line of code that tell of a license."""
    lines = text.split("\n")
    end = next((n for n, line in enumerate(lines) if not _is_comment(line)), len(lines))
    kept: list[str] = []
    for block in _blocks(lines[:end]):
        said = _SAYS_LICENSE.search("\n".join(block))
        kept += [line for line in block if _FOR_PROGRAMS.match(line)] if said else block
    if kept == lines[:end]:
        return text
    rest = "\n".join([*kept, *lines[end:]])
    return rest if kept and kept[0].strip() else rest.lstrip("\n")


def _is_comment(line: str) -> bool:
    return not line.strip() or line.startswith("#")


def _blocks(lines: list[str]) -> list[list[str]]:
    """Runs of comment lines, each with the empty lines that follow it."""
    blocks: list[list[str]] = [[]]
    for line in lines:
        after_gap = blocks[-1] and not blocks[-1][-1].strip()
        if line.strip() and after_gap:
            blocks.append([])
        blocks[-1].append(line)
    return blocks
