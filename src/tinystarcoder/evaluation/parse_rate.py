"""Parse rate: how often what a model writes into a real file is Python that does something.

**Prompts** are cut from held-out files, deterministically by a seed, the same
for every model, evenly over the sources and over each source's files:

- where a statement begins, first on its line, anywhere in a function's body;
  the prompt ends with the line break before it;
- where one ``pass`` there would make the prompt whole (so not inside an open
  ``try``, which would also need its ``except``);
- from the start of the file, or, where that is more than 3,000 characters
  (about 1,000 tokens), from the first top-level statement from which it is not.

**The verdict** on a completion of at most 64 tokens, greedy:

1. If the model was cut off rather than ended by itself, the last line, which
   is unfinished, is dropped.
2. While Python says that prompt and completion are *incomplete* (an open block,
   bracket or string at the very end), one more line is dropped from the end of
   the completion. *Wrong* is not incomplete: an error that no further line
   could mend fails at once.
3. It passes if the whole parses and a statement other than ``pass`` begins in
   what is left of the completion; ``...`` counts as ``pass``. A docstring is a
   statement; how many passed by a docstring alone is told beside the rate.

What it gives up: to parse is little; nothing is run, and names may be undefined.
"""

import ast
import codeop
import random
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from ..generation.sampling import SamplingOptions
from .generators import Ask, Generator
from .held_out import Source, deal

MAX_CHARACTERS = 3000
MAX_TOKENS = 64

# Makes the compiler tell what is not finished from what is wrong, as codeop does.
_FLAGS = ast.PyCF_ONLY_AST | codeop.PyCF_ALLOW_INCOMPLETE_INPUT  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Prompt:
    """The beginning of a real file, up to where ``line`` (from 1) begins."""

    source: str
    path: str
    line: int
    text: str

    @property
    def id(self) -> str:
        """Tells it from all others of its sources."""
        return f"{self.source}: {self.path}:{self.line}"


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


@dataclass(frozen=True)
class Result:
    """One prompt, what the model wrote after it, and what that is worth."""

    prompt: Prompt
    completion: str
    verdict: Verdict


def parse_rate(
    prompts: Sequence[Prompt], generator: Generator, max_tokens: int = MAX_TOKENS
) -> Iterator[Result]:
    """The verdict on what is written, greedily, after each prompt, as they come."""
    options = SamplingOptions(max_tokens=max_tokens)
    asked = (Ask(prompt.text, None, options) for prompt in prompts)
    for prompt, (text,) in zip(prompts, generator.generate(asked), strict=True):
        yield Result(prompt, text.text, judge(prompt.text, text.text, ended=text.ended))


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


def cut_prompts(sources: Sequence[Source], count: int, seed: int = 0) -> list[Prompt]:
    """``count`` prompts, as evenly over the sources as they come.

    Raises CorpusError where a source has not enough places to cut.
    """
    return deal(sources, count, seed, _cut_file)


def _cut_file(source: str, path: str, text: str, rng: random.Random) -> Iterator[Prompt]:
    """Every prompt that one file can give, in shuffled order."""
    try:
        tree = parse(text)
    except SyntaxError:
        return
    lines = text.split("\n")
    boundaries = [1, *map(_first_line, tree.body)]
    places = sorted(
        {
            _first_line(statement)
            for function in ast.walk(tree)
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
            for statement in chain.from_iterable(map(_statements, function.body))
        }
    )
    for place in rng.sample(places, len(places)):
        start = _context_start(lines, boundaries, place)
        prompt = "".join(line + "\n" for line in lines[start - 1 : place - 1])
        if start < place and _one_pass_makes_it_whole(prompt, lines[place - 1]):
            yield Prompt(source, path, place, prompt)


def _statements(node: ast.stmt) -> Iterator[ast.stmt]:
    return (inner for inner in ast.walk(node) if isinstance(inner, ast.stmt))


def _first_line(node: ast.stmt) -> int:
    decorators: list[ast.expr] = getattr(node, "decorator_list", [])
    return min([node.lineno, *(decorator.lineno for decorator in decorators)])


def _context_start(lines: list[str], boundaries: list[int], place: int) -> int:
    """The first of the boundaries from which ``place`` is near enough; ``place`` if none is."""
    for start in boundaries:
        size = sum(len(line) + 1 for line in lines[start - 1 : place - 1])
        if 0 < size <= MAX_CHARACTERS:
            return start
    return place


def _one_pass_makes_it_whole(prompt: str, line: str) -> bool:
    indentation = line[: len(line) - len(line.lstrip(" \t"))]
    try:
        parse(f"{prompt}{indentation}pass\n")
    except SyntaxError:
        return False
    return True
