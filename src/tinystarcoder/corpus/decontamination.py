"""Files that hold a benchmark's problem or its solution: found as BigCode found them.

A file is set aside where a docstring, a prompt or a solution of a benchmark
stands in it, letter case aside; and white space aside too, so that a solution
that is indented anew is found: whatever BigCode's search finds, this one finds.
All needles are sought in one pass (Aho-Corasick).

What it gives up: a problem told in other words; needles under 24 characters
(``return x + y``), which half of all files hold.
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ..errors import CorpusError, MissingExtraError
from .decoding import SetAside
from .document import Document
from .tables import rows_of

try:
    from ahocorasick_rs import AhoCorasick, Implementation, MatchKind
except ModuleNotFoundError as error:
    raise MissingExtraError("decontamination", "corpus") from error

MIN_NEEDLE = 24

# Fields of the usual benchmarks: HumanEval, MBPP, APPS, GSM8K, DS-1000.
_TEXTS = ("prompt", "text", "question", "docstring")
_SOLUTIONS = ("canonical_solution", "code", "solution", "reference_code")
_DOCSTRING = re.compile(r"(\"\"\"|''')(.*?)\1", re.DOTALL)


class Decontamination:
    """A filter that sets aside what holds one of the needles."""

    def __init__(self, needles: Iterable[tuple[str, str]]) -> None:
        """``needles``: the name of a benchmark, and a text of it."""
        names = {folded(text): name for name, text in needles}
        kept = {text: name for text, name in sorted(names.items()) if len(text) >= MIN_NEEDLE}
        self._names = list(kept.values())
        self._automaton = AhoCorasick(
            kept, matchkind=MatchKind.Standard, implementation=Implementation.ContiguousNFA
        )

    def __len__(self) -> int:
        """Needles that are sought."""
        return len(self._names)

    def __call__(self, document: Document) -> str | None:
        """The reason to set a document aside, with the name of the benchmark."""
        if not self._names:
            return None
        found = self._automaton.find_matches_as_indexes(folded(document.text))
        return f"in benchmark {self._names[found[0][0]]}" if found else None


def needles_of(path: Path) -> Iterator[tuple[str, str]]:
    """The benchmark's name (its file's), and each text of a Parquet or JSONL file of problems.

    Raises CorpusError where the file cannot be read or holds no problem known here.
    """
    name, found = path.name.split(".")[0], False
    for row in rows_of(path):
        for needle in () if isinstance(row, SetAside) else _needles(row):
            found = True
            yield name, needle
    if not found:
        fields = ", ".join((*_TEXTS, *_SOLUTIONS))
        raise CorpusError(f"{path}: no benchmark: no row has one of the fields {fields}")


def folded(text: str) -> str:
    """In lower case, every run of white space one blank."""
    return " ".join(text.lower().split())


def _needles(row: Any) -> Iterator[str]:
    for field in _TEXTS:
        text = row.get(field)
        if isinstance(text, str):
            # A prompt is code whose docstring tells the problem: the last, where it has helpers.
            docstrings = _DOCSTRING.findall(text)
            yield docstrings[-1][1] if docstrings else text
    for field in _SOLUTIONS:
        if isinstance(text := row.get(field), str):
            yield text
