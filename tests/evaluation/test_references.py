"""The published benchmarks against themselves: every reference passes, no broken test does."""

import ast
import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tinystarcoder.errors import SandboxError
from tinystarcoder.evaluation.execution import Limits, Program
from tinystarcoder.evaluation.problems import Problem, Task, read_task
from tinystarcoder.evaluation.sandbox import Sandbox
from tinystarcoder.evaluation.scoring import Run, runner

pytestmark = pytest.mark.full

INFILLING = {
    "single-line": "SingleLineInfilling",
    "multi-line": "MultiLineInfilling",
    "random-span": "RandomSpanInfilling",
}


@pytest.fixture(scope="module")
def run() -> Run:
    if shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed: apt-get install bubblewrap")
    try:
        return runner(Sandbox(), Limits())
    except SandboxError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def human_eval(shared_data: Path) -> Task:
    return read_task("human-eval", shared_data / "human_eval" / "HumanEval.jsonl.gz")


def failed(run: Run, programs: Iterable[tuple[str, Program]]) -> dict[str, str]:
    """Name -> why. A program that several share is run once."""
    names = list(programs)
    distinct = list({program for _, program in names})
    with ThreadPoolExecutor(2) as pool:
        reasons = dict(zip(distinct, pool.map(run, distinct), strict=True))
    return {name: reasons[program] for name, program in names if reasons[program]}


def reference(problem: Problem, tests: str = "") -> tuple[str, Program]:
    whole = problem.prefix + problem.reference + (problem.suffix or "")
    tests = tests or problem.tests
    # An infilling's helpers are its own prefix: of what all holes of a function share, one.
    helpers = "" if problem.suffix is not None else problem.helpers
    return problem.id, Program(whole, tests, problem.entry_point, helpers)


def test_canonical_solutions_pass(human_eval: Task, run: Run) -> None:
    assert len(human_eval.problems) == 164
    assert failed(run, map(reference, human_eval.problems)) == {}


class Denied(ast.NodeTransformer):
    """The first assertion of the tests, said the other way round."""

    done = False

    def visit_Assert(self, node: ast.Assert) -> ast.Assert:
        if self.done:
            return node
        self.done = True
        denied = ast.UnaryOp(ast.Not(), node.test)
        return ast.fix_missing_locations(ast.copy_location(ast.Assert(denied), node))


def test_none_passes_with_a_broken_assertion(human_eval: Task, run: Run) -> None:
    broken = [
        reference(problem, ast.unparse(Denied().visit(ast.parse(problem.tests))))
        for problem in human_eval.problems
    ]
    assert len(failed(run, broken)) == 164


def test_none_passes_that_answers_nothing(human_eval: Task, run: Run) -> None:
    programs = [
        (p.id, Program(f"{p.prefix}\n    return None\n", p.tests, p.entry_point, p.helpers))
        for p in human_eval.problems
    ]
    assert len(failed(run, programs)) == 164


@pytest.mark.parametrize("name", INFILLING)
def test_infillings_references_pass(name: str, shared_data: Path, run: Run) -> None:
    path = shared_data / "human_eval_infilling" / f"HumanEval-{INFILLING[name]}.jsonl.gz"
    task = read_task(name, path)
    assert len(task.problems) in (1033, 5815, 1640)
    for problem in task.problems:
        assert task.postprocess(problem, problem.reference) == problem.reference
    assert failed(run, map(reference, task.problems)) == {}
