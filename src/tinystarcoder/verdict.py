"""Whether what a model wrote after the beginning of a file is Python that does something.

1. If the model was cut off rather than ended by itself, the last line, which
   is unfinished, is dropped.
2. While Python says that prompt and completion are *incomplete* (an open block,
   bracket or string at the very end), one more line is dropped from the end of
   the completion. *Wrong* is not incomplete: an error that no further line
   could mend fails at once.
3. It passes if the whole parses and a statement other than ``pass`` begins in
   what is left of the completion; ``...`` counts as ``pass``. A docstring is a
   statement, and told apart.

What it gives up: to parse is little; nothing is run, and names may be undefined.
"""

import ast
import codeop
import warnings
from dataclasses import dataclass

# Makes the compiler tell what is not finished from what is wrong, as codeop does.
_FLAGS = ast.PyCF_ONLY_AST | codeop.PyCF_ALLOW_INCOMPLETE_INPUT  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Verdict:
    """``reason`` says why it failed; empty where it passed."""

    reason: str
    dropped_lines: int
    """Whole lines dropped because the block, bracket or string they open was not finished."""
    docstring_only: bool = False

    @property
    def passed(self) -> bool:
        return not self.reason


def judge(prompt: str, completion: str, *, ended: bool) -> Verdict:
    """The verdict on one completion; ``ended`` where the model stopped by itself."""
    lines = completion.split("\n")
    if not ended or not lines[-1].strip():
        lines.pop()
    for dropped in range(len(lines) + 1):
        kept = "".join(line + "\n" for line in lines[: len(lines) - dropped])
        try:
            tree = parse(prompt + kept)
        except SyntaxError as error:
            if not is_incomplete(error):
                return Verdict(f"does not parse: {error.msg}", dropped)
        else:
            return _verdict_on_statements(prompt, tree, dropped)
    return Verdict("nothing whole is left", len(lines))


def _verdict_on_statements(prompt: str, tree: ast.Module, dropped: int) -> Verdict:
    end = prompt.count("\n") + 1, len(prompt.rpartition("\n")[2].encode())
    new = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.stmt) and (node.lineno, node.col_offset) >= end
    ]
    telling = [node for node in new if not _does_nothing(node)]
    if not telling:
        return Verdict("only pass" if new else "no new statement", dropped)
    return Verdict("", dropped, docstring_only=all(map(_is_docstring, telling)))


def _constant(node: ast.stmt) -> object:
    """The value of a statement that is one literal; else the node itself."""
    is_literal = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return node.value.value if is_literal else node  # type: ignore[attr-defined]


def _does_nothing(node: ast.stmt) -> bool:
    return isinstance(node, ast.Pass) or _constant(node) is ...


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(_constant(node), str)


def parse(text: str) -> ast.Module:
    """The syntax tree. Raises SyntaxError for whatever is no Python."""
    try:
        with warnings.catch_warnings(action="ignore"):  # Such as a "\d" in a literal.
            tree: ast.Module = compile(text, "<text>", "exec", _FLAGS)
    except (ValueError, MemoryError, RecursionError) as error:  # NUL; nested too deep.
        raise SyntaxError(str(error) or "nested too deep") from error
    return tree


def is_incomplete(error: SyntaxError) -> bool:
    """Whether more lines could still make it whole."""
    return error.msg == "incomplete input"


def with_one_pass(prompt: str, line: str) -> ast.Module | None:
    """The tree of ``prompt`` and a ``pass`` in place of ``line`` after it; None if it has none.

    None inside an open ``try``, which would also need its ``except``.
    """
    indentation = line[: len(line) - len(line.lstrip(" \t"))]
    try:
        return parse(f"{prompt}{indentation}pass\n")
    except SyntaxError:
        return None


def one_pass_makes_it_whole(prompt: str, line: str) -> bool:
    """Whether a statement may stand alone where ``line`` would follow ``prompt``."""
    return with_one_pass(prompt, line) is not None
