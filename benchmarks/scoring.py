"""How long scoring takes: HumanEval's canonical solutions, each in ``--samples`` spellings.

    python benchmarks/scoring.py HumanEval.jsonl.gz --samples 20 --workers 2

Prints the programs a second, and the seconds of all of it. A sample that loops for
ever costs its whole CPU time on top (3 seconds by default).
"""

import argparse
import os
import platform
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tinystarcoder.evaluation.execution import Limits, Program
from tinystarcoder.evaluation.problems import read_task
from tinystarcoder.evaluation.sandbox import Sandbox
from tinystarcoder.evaluation.scoring import runner


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--samples", type=int, default=20)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    options = parser.parse_args()
    run = runner(Sandbox(), Limits())
    programs = [
        Program(
            f"{problem.prefix}{problem.reference}# {sample}\n",
            problem.tests,
            problem.entry_point,
            problem.helpers,
        )
        for problem in read_task("human-eval", options.file).problems
        for sample in range(options.samples)
    ]
    start = time.perf_counter()
    with ThreadPoolExecutor(options.workers) as pool:
        failed = sum(map(bool, pool.map(run, programs)))
    seconds = time.perf_counter() - start
    print(
        f"{len(programs)} programs, {failed} failed, {seconds:.1f} s, "
        f"{len(programs) / seconds:.1f} a second; {options.workers} workers, "
        f"{platform.machine()}, {os.cpu_count()} cores"
    )


if __name__ == "__main__":
    main()
