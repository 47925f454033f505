"""Jedi, by the rule that a model's suggestions are counted by: its first completion.

Jedi knows names, where a model knows text; it is what most editors of Python
show today. The project is the folder that the held-out package lies in.
"""

from collections.abc import Callable
from pathlib import Path

import jedi

from ..keystrokes import Line


def by_jedi(project: Path) -> Callable[[Line, int], str]:
    """Jedi's first completion; nothing where it has none, or fails."""
    known = jedi.Project(str(project))

    def suggest(line: Line, at: int) -> str:
        code = line.before + line.text[:at] + line.after
        row = line.before.count("\n") + 1
        column = len((line.before + line.text[:at]).rpartition("\n")[2])
        try:
            script = jedi.Script(code, path=project / line.path, project=known)
            return next((found.complete or "" for found in script.complete(row, column)), "")
        except Exception:  # Its errors on broken code are many, and mean the same: nothing to show.
            return ""

    return suggest
