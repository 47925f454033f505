"""What a repository's other files say: signatures of what is imported, and similar code.

The other files are given, as an editor has them open: nothing is read from a
disk. Similar is what shares many names (Jaccard, over windows of lines), an
index that is made as fast as a file is read. It gives up meaning: no type is
inferred, and what is imported is found by the path that its name spells.
"""

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from keyword import kwlist
from pathlib import PurePosixPath

from .request import Snippet

WINDOW = 20  # Lines of code that are compared, and shown, together.
MOST_SIMILAR = 3
LEAST_SIMILAR = 0.15  # Of two windows' names, so many must be in both.
ANCHOR = 32  # Lines of a file in which a choice holds.

_IMPORT = re.compile(
    r"^[ \t]*(?:from[ \t]+(\.*[\w.]*)[ \t]+import[ \t]+(\([^)]*\)?|[^\n#]+)|import[ \t]+([^\n#]+))",
    re.MULTILINE,
)
_NAME = re.compile(r"[A-Za-z_]\w{2,}")
_EVERYWHERE = frozenset((*kwlist, "self"))

Names = frozenset[str]
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


class Neighbors:
    """Chooses one document's snippets, and keeps to a choice while its cursor moves little.

    A choice that changed with every key would change the prompt's beginning,
    and all behind it were to be computed again. It is made anew when the
    cursor has left the block of lines that it stood in, when what is imported
    of the other files has changed, or when they have.
    """

    def __init__(self) -> None:
        self._basis: object = None
        self._chosen: tuple[Snippet, ...] = ()

    def choose(
        self, path: str, prefix: str, suffix: str, others: Sequence[Snippet]
    ) -> tuple[Snippet, ...]:
        """Snippets of the other files for the cursor behind ``prefix``, the best first."""
        wanted = imported(path, prefix + suffix, [other.path for other in others])
        basis = (path, prefix.count("\n") // ANCHOR, wanted, tuple(others))
        if basis != self._basis:
            self._basis = basis
            signed = (Snippet(o.path, _of_import(o, wanted)) for o in others if o.path in wanted)
            self._chosen = (*(one for one in signed if one.text), *similar(prefix, others))
        return self._chosen


def _of_import(other: Snippet, wanted: dict[str, Names]) -> str:
    return signatures(other.text, wanted[other.path])


def imported(path: str, text: str, others: Sequence[str]) -> dict[str, Names]:
    """Which of the other paths a file imports, and the names that it takes; none for all of them.

    Where a name fits several paths, the one nearest to the file is it.
    """
    found: dict[str, Names] = {}
    for module, names in _imports(text):
        target = _resolve(path, module, others)
        if target is not None:
            known = found.get(target, names)
            found[target] = known | names if known and names else frozenset()
        for name in names:
            inner = module + name if module.endswith(".") else f"{module}.{name}"
            target = _resolve(path, inner, others)
            if target is not None:
                found[target] = frozenset()
    return found


def _imports(text: str) -> Iterator[tuple[str, Names]]:
    """Modules as they are spelled, dots included, and the names taken from them."""
    for source, names, modules in _IMPORT.findall(text):
        if source:
            parts = (name.split()[:1] for name in names.strip("()").split(","))
            yield source, frozenset(part[0] for part in parts if part and part[0].isidentifier())
        for module in filter(None, modules.split(",")):
            yield (module.split() or [""])[0], frozenset()


def _resolve(path: str, module: str, others: Sequence[str]) -> str | None:
    """The other path that a module's name spells."""
    name = module.lstrip(".")
    levels, parts = len(module) - len(name), tuple(filter(None, name.split(".")))
    if not parts:
        return None
    here = PurePosixPath(path).parent.parts
    fitting = [o for o in others if o != path and _spells(o)[-len(parts) :] == parts]
    if levels:
        base = here[: len(here) - (levels - 1)]
        fitting = [other for other in fitting if _spells(other) == (*base, *parts)]
    return max(fitting, key=lambda other: _shared(here, _spells(other)), default=None)


def _spells(path: str) -> tuple[str, ...]:
    """The parts of a path as a module's name has them."""
    pure = PurePosixPath(path)
    if pure.suffix not in (".py", ".pyi"):
        return ()
    return pure.parent.parts if pure.stem == "__init__" else pure.with_suffix("").parts


def _shared(left: Sequence[str], right: Sequence[str]) -> int:
    shorter = min(len(left), len(right))
    return next((at for at in range(shorter) if left[at] != right[at]), shorter)


def signatures(text: str, names: Names = frozenset()) -> str:
    """A module's classes and functions: headers, first lines of docstrings, annotated fields.

    Those of the given names, or all public ones. Nothing where the module does
    not parse.
    """
    try:
        module = ast.parse(text)
        return "\n".join(ast.unparse(node) for node in _outline(module.body, names))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ""


def _outline(body: Sequence[ast.stmt], names: Names) -> Iterator[ast.stmt]:
    for node in body:
        if not isinstance(node, Definition):
            continue
        if node.name in names if names else not node.name.startswith("_"):
            yield _header(node)


def _header(node: Definition) -> Definition:
    """The definition without what it does; of a class, its fields and methods stay."""
    doc = ast.get_docstring(node)
    kept: list[ast.stmt] = []
    if doc:
        kept.append(ast.Expr(ast.Constant(doc.partition("\n")[0])))
    if isinstance(node, ast.ClassDef):
        for inner in node.body:
            if isinstance(inner, ast.AnnAssign):
                kept.append(inner)
            elif isinstance(inner, Definition) and _is_shown(inner.name):
                kept.append(_header(inner))
    node.body = kept or [ast.Expr(ast.Constant(...))]
    return node


def _is_shown(method: str) -> bool:
    return method == "__init__" or not method.startswith("_")


def similar(prefix: str, others: Sequence[Snippet]) -> tuple[Snippet, ...]:
    """The window of each other file that shares most names with the lines before the cursor.

    At most three, the most alike first.
    """
    wanted = _names("\n".join(prefix.split("\n")[-WINDOW:]))
    ranked = []
    for number, other in enumerate(others):
        score, start = max(
            ((_jaccard(wanted, window.names), -window.start) for window in _windows(other.text)),
            default=(0.0, 0),
        )
        if score >= LEAST_SIMILAR:
            ranked.append((-score, number, -start))
    return tuple(
        Snippet(others[number].path, "".join(_lines(others[number].text)[start : start + WINDOW]))
        for _, number, start in sorted(ranked)[:MOST_SIMILAR]
    )


@dataclass(frozen=True)
class _Window:
    start: int
    names: Names


@lru_cache(maxsize=64)
def _windows(text: str) -> tuple[_Window, ...]:
    """Windows that overlap by half."""
    lines = _lines(text)
    starts = range(0, max(1, len(lines) - WINDOW // 2), WINDOW // 2)
    return tuple(_Window(at, _names("".join(lines[at : at + WINDOW]))) for at in starts)


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


def _names(text: str) -> Names:
    return frozenset(_NAME.findall(text)) - _EVERYWHERE


def _jaccard(left: Names, right: Names) -> float:
    return len(left & right) / len(left | right) if left and right else 0.0
