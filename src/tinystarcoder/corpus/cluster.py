"""The steps of a build on many machines: datatrove's executors call the very same callables.

    build = prepare_build(sources, Path("corpus"))
    run_on(RayPipelineExecutor, pipeline.STEPS, build, tasks=256, logs=Path("logs"))

Each step becomes an executor whose tasks share the step's own. Every machine must
see the sources, the output and the logs at the same paths. What a run here would
make and what a cluster makes are the same bytes.

What it gives up: progress bars; datatrove's own record of what is completed, since
the files that are there say it.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from ..errors import CorpusError, MissingExtraError
from .steps import Step, run_share

try:
    from datatrove.executor import SlurmPipelineExecutor
    from datatrove.executor.base import PipelineExecutor
except ModuleNotFoundError as error:
    raise MissingExtraError("running on a cluster", "cluster") from error

Job = TypeVar("Job")


def run_on(
    executor: type[PipelineExecutor],
    steps: Sequence[Step[Job]],
    job: Job,
    *,
    tasks: int,
    logs: Path,
    **options: Any,
) -> None:
    """Runs all steps under one of datatrove's executors, ``tasks`` of them for each step.

    ``options`` go to the executor: ``workers``, Slurm's ``time`` and ``partition``, …
    Slurm's jobs are submitted, each waiting for the one before; the others are waited
    for. Raises CorpusError where a step did not make all of its files.
    """
    waits = not issubclass(executor, SlurmPipelineExecutor)
    chain: list[PipelineExecutor] = []
    for step in steps:
        if not waits and chain:
            options["depends"] = chain[-1]
        folder = logs / step.name.replace(" ", "-")
        share = partial(run_share, step, job)
        chain.append(
            executor([share], tasks=tasks, logging_dir=str(folder), skip_completed=False, **options)
        )
        if waits:
            chain[-1].run()
            if missing := step.missing(job):
                raise CorpusError(
                    f"{step.name}: {len(missing)} tasks failed; {folder} has their logs; "
                    "what is finished is kept"
                )
    if not waits:
        chain[-1].run()
