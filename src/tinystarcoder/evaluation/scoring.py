"""Generation and scoring of a task, apart: samples lie in a journal between the two.

    samples/TASK.jsonl     what was written for each problem, as it came
    scores/TASK.jsonl      what that is worth: each metric's numerator and denominator

Both go on where a kill left them. A program that several samples spell the same
is run once. It gives up keeping anything that can be computed again: metrics are
sums over the scores.
"""

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache

from ..generation.sampling import SamplingOptions
from ..verdict import parse
from .execution import Limits, Program, run_tests
from .generators import Ask, Generator
from .journal import Journal, Record
from .problems import Problem, Task
from .sandbox import Sandbox
from .statistics import pass_at_k

KS = (1, 10, 100)

# Takes a program; returns why it failed, or nothing.
Run = Callable[[Program], str]


def generate(
    task: Task, generator: Generator, options: SamplingOptions, number: int, journal: Journal
) -> Iterator[Record]:
    """Writes ``number`` samples of each problem that the journal lacks; yields as they come.

    ``options``: the task's own length and stops replace its. Each problem draws
    from the seed and its id, so that a batch, the order and a kill change nothing.
    """
    seed = options.seed or 0
    options = replace(options, max_tokens=task.max_tokens, stop=task.stop)

    def ask(problem: Problem) -> Ask:
        own = replace(options, seed=zlib.crc32(f"{seed} {problem.id}".encode()))
        return Ask(problem.prefix, problem.suffix, own, number)

    missing = [problem for problem in task.problems if problem.id not in journal.records]
    written = generator.generate(map(ask, missing))
    for problem in task.problems:
        if problem.id not in journal.records:
            samples = [text.text for text in next(written)]
            journal.append({"id": problem.id, "samples": samples})
        yield journal.records[problem.id]


def score(
    task: Task, samples: Journal, scores: Journal, run: Run | None, workers: int
) -> Iterator[Record]:
    """Scores the samples of each problem that the journal ``scores`` lacks; yields them all.

    ``run`` runs programs, None for a task without tests. Raises EvaluationError
    where samples are missing.
    """
    samples.need([problem.id for problem in task.problems])

    def scored(problem: Problem) -> Record:
        texts = samples.records[problem.id]["samples"]
        return _score(problem, [task.postprocess(problem, text) for text in texts], run)

    return scores.fill([(problem.id, problem) for problem in task.problems], scored, workers)


def _score(problem: Problem, texts: Sequence[str], run: Run | None) -> Record:
    metrics: dict[str, tuple[float, float]] = {}
    record: Record = {"id": problem.id, "metrics": metrics}
    if problem.group:
        record["group"] = problem.group
    if problem.suffix is not None:
        # As StarCoder's paper counts: the text, space around it apart.
        exact = sum(text.strip() == problem.reference.strip() for text in texts)
        metrics["exact match"] = (exact / len(texts), 1)
    if problem.tests and run is not None:
        reasons = [run(_program(problem, text)) for text in texts]
        passed = reasons.count("")
        for k in KS:
            if k <= len(texts):
                metrics[f"pass@{k}"] = (pass_at_k(len(texts), passed, k), 1)
        record["failed"] = reasons
    return record


def _program(problem: Problem, text: str) -> Program:
    whole = problem.prefix + text + (problem.suffix or "")
    return Program(whole, problem.tests, problem.entry_point, problem.helpers)


def runner(sandbox: Sandbox, limits: Limits) -> Run:
    """Runs each program once, however often it is asked for. Safe in threads.

    What is no Python needs no sandbox to be told so.
    """

    @lru_cache(maxsize=1 << 14)
    def run(program: Program) -> str:
        try:
            parse(program.solution)
        except SyntaxError as error:
            return f"SyntaxError: {error.msg}"
        return run_tests(sandbox, program, limits)

    return run
