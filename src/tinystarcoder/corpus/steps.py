"""Steps of a pipeline, cut into tasks, and how they run on this machine.

A step is two functions of a job: ``outputs`` lists the file that each of its
tasks makes, ``run`` makes one of them, whole or not at all. A task whose file is
there is done; that alone is what a build that was killed goes on from, on one
machine or on many. A step is asked for its outputs once those before it are done.

What it gives up: a task that was killed in the middle begins again.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread
from typing import Any, Generic, TypeVar

from ..errors import CorpusError

Job = TypeVar("Job")

Progress = Callable[[str, int, int], None]
"""Called with a step's name, and how much of how much of it is done."""


@dataclass(frozen=True)
class Step(Generic[Job]):
    """One step of a pipeline over some job, which can be pickled, as its functions can."""

    name: str
    outputs: Callable[[Job], Sequence[Path]]
    """The file, or folder, that each task makes."""
    run: Callable[[Job, int], None]
    """Makes the file of one task."""
    weight: Callable[[Job, int], int] | None = None
    """Heavier tasks begin first."""

    def missing(self, job: Job) -> list[int]:
        """The tasks that are still to be done, in the order to do them in."""
        missing = [task for task, path in enumerate(self.outputs(job)) if not path.exists()]
        if weight := self.weight:
            missing.sort(key=lambda task: -weight(job, task))
        return missing


def run_share(
    step: Step[Job],
    job: Job,
    data: object = None,  # noqa: ARG001
    rank: int = 0,
    world_size: int = 1,
) -> None:
    """Does every ``world_size``-th task from ``rank`` on: what an executor calls.

    With the step and the job bound it is a step of datatrove's pipelines, whose
    ``data`` it does not use.
    """
    outputs = step.outputs(job)
    for task in range(rank, len(outputs), world_size):
        if not outputs[task].exists():
            step.run(job, task)


def run_steps(
    steps: Sequence[Step[Job]], job: Job, jobs: int, progress: Progress | None = None
) -> None:
    """Runs step after step, each on up to ``jobs`` worker processes.

    Raises CorpusError where a worker dies; what is finished is kept.
    """
    report = progress or (lambda *_: None)
    with _Workers(job, jobs) as workers:
        for step in steps:
            total, missing = len(step.outputs(job)), step.missing(job)
            there = total - len(missing)
            report(step.name, there, total)
            for done in workers.run(step.run, missing):
                report(step.name, there + done, total)


class _Workers(Generic[Job]):
    """Worker processes that know the job; begun when there is more than one task to do."""

    def __init__(self, job: Job, jobs: int) -> None:
        self._job, self._jobs = job, jobs
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> "_Workers[Job]":
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool:
            self._pool.shutdown(cancel_futures=True)

    def run(self, function: Callable[[Job, int], None], tasks: Sequence[int]) -> Iterator[int]:
        """Yields how many of the tasks are done."""
        if self._jobs == 1 or len(tasks) <= 1:
            for done, task in enumerate(tasks, 1):
                function(self._job, task)
                yield done
            return
        self._pool = self._pool or ProcessPoolExecutor(
            self._jobs, get_context("spawn"), _prepare_worker, (self._job,)
        )
        try:
            futures = [self._pool.submit(_run_in_worker, function, task) for task in tasks]
            for done, future in enumerate(as_completed(futures), 1):
                future.result()
                yield done
        except BrokenProcessPool as error:
            raise CorpusError(
                "a worker died, perhaps for want of memory; start again with a smaller --jobs: "
                "what is finished is kept"
            ) from error


_job_of_worker: Any = None


def _prepare_worker(job: Any) -> None:
    global _job_of_worker
    _job_of_worker = job
    # A worker is a core; libraries in Rust would take all of them, in every worker.
    os.environ.setdefault("RAYON_NUM_THREADS", "1")
    Thread(target=_leave_with_parent, daemon=True).start()


def _leave_with_parent() -> None:
    """A worker whose parent was killed would wait for its next task for ever."""
    if parent := parent_process():
        parent.join()
        os._exit(1)


def _run_in_worker(function: Callable[[Any, int], None], task: int) -> None:
    function(_job_of_worker, task)
