"""The steps under datatrove's executors: the same bytes as a run in this process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

datatrove = pytest.importorskip("datatrove", reason="the cluster extra is not installed")

from datatrove.executor import LocalPipelineExecutor, SlurmPipelineExecutor  # noqa: E402

from tinystarcoder.corpus import cluster, parquet, pipeline  # noqa: E402
from tinystarcoder.corpus.cluster import run_on  # noqa: E402
from tinystarcoder.corpus.pipeline import build_corpus, prepare_build  # noqa: E402
from tinystarcoder.corpus.tokenizing import tokenize_corpus  # noqa: E402
from tinystarcoder.errors import CorpusError  # noqa: E402
from tinystarcoder.tokenizer import Tokenizer  # noqa: E402

from .conftest import module  # noqa: E402


@pytest.fixture
def wheels(make_wheel):
    return [
        make_wheel(f"p{n}", {f"m{k}.py": module(n * 3 + k) for k in range(4)}) for n in range(5)
    ]


@pytest.fixture
def vocabulary(tmp_path):
    Tokenizer.train([module(n) for n in range(4)], vocab_size=300).save(tmp_path / "vocabulary")
    return tmp_path / "vocabulary"


def snapshot(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_datatrove_s_local_executor_makes_the_same_bytes(wheels, tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "SHARD_BYTES", 3000)
    build_corpus(wheels, tmp_path / "here")
    build = prepare_build(wheels, tmp_path / "there")
    run_on(LocalPipelineExecutor, pipeline.STEPS, build, tasks=3, logs=tmp_path / "logs", workers=1)
    assert snapshot(tmp_path / "there") == snapshot(tmp_path / "here")
    assert len(list((tmp_path / "here").glob("*.parquet"))) > 2


def test_a_step_that_fails_is_one_clear_error(wheels, tmp_path, monkeypatch):
    build = prepare_build(wheels, tmp_path / "corpus")
    monkeypatch.setattr(cluster, "run_share", lambda *_: None)
    with pytest.raises(CorpusError, match=r"reading sources: 5 tasks failed; .*reading-sources"):
        run_on(
            LocalPipelineExecutor, pipeline.STEPS, build, tasks=1, logs=tmp_path / "l", workers=1
        )


def test_slurm_s_jobs_wait_for_each_other(wheels, tmp_path, monkeypatch):
    submitted = []
    monkeypatch.setattr(SlurmPipelineExecutor, "run", lambda self: submitted.append(self))
    build = prepare_build(wheels, tmp_path / "corpus")
    options = {"time": "01:00:00", "partition": "cpu", "mem_per_cpu_gb": 4}
    run_on(
        SlurmPipelineExecutor, pipeline.STEPS, build, tasks=64, logs=tmp_path / "logs", **options
    )
    (last,) = submitted
    names = []
    while last:
        names.append(Path(last.logging_dir.path).name)
        assert (last.tasks, last.time, last.partition) == (64, "01:00:00", "cpu")
        last = last.depends
    assert names[::-1] == [step.name.replace(" ", "-") for step in pipeline.STEPS]


@pytest.mark.full
@pytest.mark.parametrize("executor", ["LocalPipelineExecutor", "RayPipelineExecutor"])
def test_processes_of_their_own_make_the_same_bytes(wheels, vocabulary, tmp_path, executor):
    """In a process that may start others: datatrove's, or a Ray on loopback."""
    if executor.startswith("Ray"):
        pytest.importorskip("ray", reason="the cluster extra is not installed")
    build_corpus(wheels, tmp_path / "here")
    tokenize_corpus(tmp_path / "here", vocabulary, tmp_path / "here-tokens")
    script = tmp_path / "there.py"
    script.write_text(
        "import sys\n"
        "from pathlib import Path\n"
        f"from datatrove.executor import {executor} as executor\n"
        "from tinystarcoder.corpus import pipeline, tokenizing\n"
        "from tinystarcoder.corpus.cluster import run_on\n"
        "if __name__ == '__main__':\n"
        "    here, *wheels = map(Path, sys.argv[1:])\n"
        "    if 'Ray' in executor.__name__:\n"
        "        import ray\n"
        "        ray.init(num_cpus=2, include_dashboard=False, _node_ip_address='127.0.0.1')\n"
        "    options = {'tasks': 2, 'workers': 2, 'logs': here / 'logs'}\n"
        "    build = pipeline.prepare_build(wheels, here / 'there')\n"
        "    run_on(executor, pipeline.STEPS, build, **options)\n"
        "    job = tokenizing.Tokenization(\n"
        "        here / 'there', here / 'vocabulary', here / 'there-tokens')\n"
        "    run_on(executor, tokenizing.STEPS, job, **options)\n"
    )
    command = [sys.executable, str(script), str(tmp_path), *map(str, wheels)]
    # A busy machine is not a dead node.
    patient = os.environ | {"RAY_health_check_failure_threshold": "1000"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=patient)
    assert done.returncode == 0, done.stderr
    assert snapshot(tmp_path / "there") == snapshot(tmp_path / "here")
    assert snapshot(tmp_path / "there-tokens") == snapshot(tmp_path / "here-tokens")
