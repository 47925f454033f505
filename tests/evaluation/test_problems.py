"""Benchmarks' files: each form is read, its own reference passes, a wrong answer fails."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from tinystarcoder.errors import CorpusError, EvaluationError
from tinystarcoder.evaluation.execution import Program, run_tests
from tinystarcoder.evaluation.held_out import Source
from tinystarcoder.evaluation.problems import AFTER, BEFORE, Problem, line_task, read_task
from tinystarcoder.evaluation.sandbox import Sandbox

HUMAN_EVAL = {
    "task_id": "HumanEval/0",
    "prompt": 'import math\n\ndef half(x: float) -> float:\n    """Half of x."""\n',
    "entry_point": "half",
    "canonical_solution": "    return x / 2\n",
    "test": "def check(candidate):\n    assert candidate(3) == 1.5 and math.pi > 3\n",
}
HUMAN_EVAL_PLUS = {key: value for key, value in HUMAN_EVAL.items() if key != "test"} | {
    "base_input": [[2.0]],
    "plus_input": [[3], [1e300]],
    "atol": 0,
}
ANY_ROOT = {
    "task_id": "HumanEval/32",
    "prompt": "def poly(xs, x):\n    return sum(c * x**i for i, c in enumerate(xs))\n\n\n"
    'def find_zero(xs):\n    """A root of a polynomial."""\n',
    "entry_point": "find_zero",
    "canonical_solution": "    return -abs(xs[0]) ** 0.5\n",
    "base_input": [[[-1, 0, 1]]],
    "plus_input": [[[-4, 0, 1]]],
    "atol": 1e-4,
}
MBPP = {
    "task_id": 11,
    "text": "Write a function to halve a number.",
    "code": "def half(x):\r\n  return x / 2",
    "test_setup_code": "LIMIT = 1.5",
    "test_list": ["assert half(2) == 1", "assert half(3) == LIMIT"],
}
INFILLING = {
    "task_id": "SingleLineInfilling/HumanEval/0/L0",
    "entry_point": "half",
    "prompt": "def half(x):\n",
    "suffix": "    return x\n",
    "canonical_solution": "    x /= 2\n",
    "test": "def check(candidate):\n    assert candidate(3) == 1.5\n",
}
FORMS = {
    "HumanEval": ("human-eval", HUMAN_EVAL, "\n    return x\n"),
    "HumanEval+": ("human-eval", HUMAN_EVAL_PLUS, "\n    return x // 2\n"),
    "HumanEval+, any root": ("human-eval", ANY_ROOT, "\n    return 1.0\n"),
    "MBPP": ("mbpp", MBPP, "\ndef half(x):\n    return x\n"),
    "infilling": ("single-line", INFILLING, "    x /= 3\n"),
}


def written(folder: Path, *records: dict[str, Any], name: str = "file.jsonl.gz") -> Path:
    path = folder / name
    data = "".join(json.dumps(record) + "\n" for record in records).encode()
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path


def verdict(problem: Problem, text: str) -> str:
    whole = problem.prefix + text + (problem.suffix or "")
    program = Program(whole, problem.tests, problem.entry_point, problem.helpers)
    return run_tests(Sandbox(unsafe=True), program)


@pytest.mark.parametrize("form", FORMS)
def test_a_reference_passes_and_a_wrong_answer_fails(form: str, tmp_path: Path) -> None:
    name, record, wrong = FORMS[form]
    task = read_task(name, written(tmp_path, record))
    (problem,) = task.problems
    assert verdict(problem, problem.reference) == ""
    assert verdict(problem, wrong).startswith("AssertionError")


def test_another_root_than_the_references_passes(tmp_path: Path) -> None:
    (problem,) = read_task("human-eval", written(tmp_path, ANY_ROOT)).problems
    assert verdict(problem, "\n    return abs(xs[0]) ** 0.5\n") == ""


def test_prompts_end_as_bigcodes_do(tmp_path: Path) -> None:
    (problem,) = read_task("mbpp", written(tmp_path, MBPP, name="mbpp.jsonl")).problems
    description, test = MBPP["text"], "assert half(2) == 1"
    assert problem.prefix == f'"""\n{description}\n{test}\n"""'
    (problem,) = read_task("human-eval", written(tmp_path, HUMAN_EVAL)).problems
    assert problem.prefix.endswith('"""Half of x."""')


def test_mbpp_is_its_test_split(tmp_path: Path) -> None:
    numbered = [MBPP | {"task_id": number} for number in (10, 11, 510, 511)]
    task = read_task("mbpp", written(tmp_path, *numbered))
    assert [problem.id for problem in task.problems] == ["mbpp/11", "mbpp/510"]


def test_what_counts_of_a_completion(tmp_path: Path) -> None:
    task = read_task("human-eval", written(tmp_path, HUMAN_EVAL))
    kept = task.postprocess(task.problems[0], "\n    return 1\n\ndef f():\n    if 1: pass\n# x")
    assert kept == "\n    return 1\n"
    task = read_task("single-line", written(tmp_path, INFILLING))
    assert task.postprocess(task.problems[0], "    x = 1\n    y = 2\n") == "    x = 1\n"


def test_a_subset_is_spread(tmp_path: Path) -> None:
    records = [HUMAN_EVAL | {"task_id": f"HumanEval/{number}"} for number in range(10)]
    task = read_task("human-eval", written(tmp_path, *records))
    assert [p.id[10:] for p in task.subset(4).problems] == ["0", "2", "5", "7"]
    assert task.subset(99) is task
    assert task.subset(4).checksum() != task.checksum()


def test_files_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl.gz"
    path.write_bytes(b"no gzip")
    with pytest.raises(EvaluationError, match="is no file of JSON lines"):
        read_task("human-eval", path)
    with pytest.raises(EvaluationError, match="gz: a problem without the field 'entry_point'"):
        read_task("human-eval", written(tmp_path, MBPP))
    with pytest.raises(EvaluationError, match="gz: no problems"):
        read_task("mbpp", written(tmp_path, MBPP | {"task_id": 1}))
    with pytest.raises(EvaluationError, match="--task multi-line:PATH"):
        read_task("multi-line")


CODE = '''"""A module."""
import os


def area(width, height):
    """The area.

    Of a rectangle.
    """
    # A comment.
    if width < 0:
        text = """
        not code
        """
        return text

    return width * height
'''


def test_masked_lines_are_code_of_functions() -> None:
    source = Source("shapes 1", (("shapes.py", CODE), ("bad.py", "def f(:")), ())
    task = line_task([source], 4)
    assert {p.reference.strip() for p in task.problems} == {
        "if width < 0:",
        'text = """',
        "return text",
        "return width * height",
    }
    for problem in task.problems:
        assert problem.prefix + problem.reference + (problem.suffix or "") == CODE
        assert task.postprocess(problem, f"{problem.reference}\nmore") == problem.reference
    assert line_task([source], 4) == task != line_task([source], 4, seed=1)
    with pytest.raises(CorpusError, match="only 4 prompts"):
        line_task([source], 5)


def test_a_long_file_is_cut_around_the_line() -> None:
    text = "".join(f"def f{n}():\n    return {n}\n\n\n" for n in range(500))
    for problem in line_task([Source("long", (("a.py", text),), ())], 50).problems:
        whole = problem.prefix + problem.reference + (problem.suffix or "")
        assert whole in text and len(problem.prefix) <= BEFORE
        assert len(problem.suffix or "") <= AFTER and problem.prefix.endswith(":\n")
        assert whole.startswith(("def", "    return", "\n"))
