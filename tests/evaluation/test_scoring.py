"""Samples and scores: the same after a kill, and worth what they should be."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pytest

from tinystarcoder.errors import EvaluationError
from tinystarcoder.evaluation import scoring
from tinystarcoder.evaluation.execution import Limits, Program
from tinystarcoder.evaluation.generators import Ask, Written
from tinystarcoder.evaluation.journal import Journal
from tinystarcoder.evaluation.problems import Problem, Task
from tinystarcoder.evaluation.sandbox import Sandbox
from tinystarcoder.evaluation.scoring import generate, runner, score
from tinystarcoder.generation.sampling import SamplingOptions

PROBLEMS = tuple(
    Problem(f"p{n}", f"prefix {n}", " suffix" if n % 2 else None, f" right {n}", tests="t")
    for n in range(4)
)
TASK = Task("task", PROBLEMS, 16, stop=("\n",))
HEADER = {"task": "task"}


class Dice:
    """Texts that depend on the prompt, the seed and the sample alone; counts its calls."""

    def __init__(self, fails_after: int = 99) -> None:
        self.left, self.seen = fails_after, []  # type: ignore[var-annotated]

    def generate(self, asked: Iterable[Ask]) -> Iterator[list[Written]]:
        for ask in asked:
            if not self.left:
                raise KeyboardInterrupt
            self.left -= 1
            options = ask.options
            self.seen.append((ask.prefix, ask.suffix, options.max_tokens, tuple(options.stop)))
            texts = (f"{ask.prefix} {options.seed} {n}\nmore" for n in range(ask.number))
            yield [Written(text, ended=True) for text in texts]


def write(folder: Path, dice: Dice, seed: int = 0) -> Journal:
    journal = Journal(folder / "samples.jsonl", HEADER)
    list(generate(TASK, dice, SamplingOptions(seed=seed, temperature=1.0), 3, journal))
    return journal


def test_a_kill_changes_nothing(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole", Dice()).path.read_bytes()
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "cut", Dice(fails_after=2))
    dice = Dice()
    assert write(tmp_path / "cut", dice).path.read_bytes() == whole
    assert dice.seen == [("prefix 2", None, 16, ("\n",)), ("prefix 3", " suffix", 16, ("\n",))]
    assert write(tmp_path / "other", Dice(), seed=1).path.read_bytes() != whole


def scored(folder: Path, texts: Sequence[str]) -> dict[str, dict[str, list[float]]]:
    samples = Journal(folder / "samples.jsonl", HEADER)
    for problem in PROBLEMS:
        samples.append({"id": problem.id, "samples": list(texts)})
    asked: list[str] = []

    def run(program: Program) -> str:
        asked.append(program.solution)
        return "" if "right" in program.solution else "wrong"

    records = list(score(TASK, samples, Journal(folder / "scores.jsonl", HEADER), run, workers=2))
    again = Journal(folder / "scores.jsonl", HEADER)
    # What is scored is not run again, and nothing is lost on the way through the file.
    assert [r["id"] for r in score(TASK, samples, again, run, workers=1)] == [
        "p0",
        "p1",
        "p2",
        "p3",
    ]
    assert len(asked) == 4 * len(texts)
    assert all("\n" not in solution for solution in asked)
    return {record["id"]: record["metrics"] for record in records}


def test_metrics(tmp_path: Path) -> None:
    found = scored(tmp_path, [" right 1\nx", "right 1 ", "false", "false"])
    assert found["p0"] == {"pass@1": (0.5, 1)}
    assert found["p1"] == {"exact match": (0.5, 1), "pass@1": (0.5, 1)}
    assert found["p3"]["exact match"] == (0, 1)


def test_pass_at_ten_with_ten_samples(tmp_path: Path) -> None:
    assert set(scored(tmp_path, ["right"] + ["no"] * 9)["p0"]) == {"pass@1", "pass@10"}


def test_samples_must_be_there(tmp_path: Path) -> None:
    samples, scores = (Journal(tmp_path / name, HEADER) for name in ("samples", "scores"))
    with pytest.raises(EvaluationError, match=r"no samples of 4 problems, p0 the first"):
        list(score(TASK, samples, scores, None, workers=1))


def test_a_program_is_run_once() -> None:
    run = runner(Sandbox(unsafe=True), Limits())
    good, bad = (Program(f"x = {n}\n", "assert x == 1\n") for n in (1, 2))
    assert [run(program) for program in (good, bad, good, bad)] == ["", "AssertionError"] * 2
    assert run.cache_info().misses == 2  # type: ignore[attr-defined]


def test_what_is_no_python_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "run_tests", lambda *_: pytest.fail("was run"))
    run = runner(Sandbox(unsafe=True), Limits())
    for solution in ("def f(x) return", "x = (", "x = '\0'", "(" * 999 + ")" * 999):
        assert run(Program(solution, "assert True\n")).startswith("SyntaxError: ")
