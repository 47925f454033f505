"""Jedi, by the rule that a model's suggestions are counted by: its first completion.

Jedi knows names, where a model knows text; it is what most editors of Python
show today. It is given the whole file, and the package that the file is of as
its project. A name is asked for once, at its beginning: what Jedi lists as it
grows is what is left of that list (docs/log.md has the check).
"""

import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import jedi

from ...completion.request import Suggestion
from ..held_out import Source
from ..keystrokes import Line, Write

_NAME = re.compile(r"\w*\Z")


@contextmanager
def jedi_writer(sources: Sequence[Source]) -> Iterator[Write]:
    """Jedi for lines of these sources, which are unpacked for the time of a ``with`` block."""
    with tempfile.TemporaryDirectory() as folder:
        suggest: dict[str, Callable[[Line, int], str]] = {}
        for number, source in enumerate(sources):
            project = Path(folder, str(number))
            for name, text in source.files:
                path = project / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
            suggest[source.name] = by_jedi(project)
        yield lambda line, at: Suggestion(suggest[line.source](line, at), "end")


def by_jedi(project: Path) -> Callable[[Line, int], str]:
    """Jedi's first completion; nothing where it has none, or fails."""
    known = jedi.Project(str(project))
    asked: dict[tuple[str, int], list[str]] = {}  # The name that was asked for last.

    def names(line: Line, start: int) -> list[str]:
        if (line.id, start) not in asked:
            asked.clear()
            asked[line.id, start] = _names(known, project, line, start)
        return asked[line.id, start]

    def suggest(line: Line, at: int) -> str:
        begun = _NAME.findall(line.text[:at])[0].lower()
        fitting = (n for n in names(line, at - len(begun)) if n.lower().startswith(begun))
        return next(fitting, "")[len(begun) :]

    return suggest


def _names(known: jedi.Project, project: Path, line: Line, at: int) -> list[str]:
    """All that Jedi lists at a place, in its order."""
    before = line.above + line.before + line.text[:at]
    row, column = before.count("\n") + 1, len(before.rpartition("\n")[2])
    try:
        code = before + line.after + line.below
        script = jedi.Script(code, path=project / line.path, project=known)
        return [found.complete or "" for found in script.complete(row, column)]
    except Exception:  # Its errors on broken code are many, and mean the same: nothing to show.
        return []
