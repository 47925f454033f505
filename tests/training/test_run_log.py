import sys

import pytest

from tinystarcoder.training.run_log import RunLog

RECORD = {"step": 1, "tokens": 8, "loss": 2.5, "tokens_per_second": 4.0, "mfu": 0.1}


def write(folder, first, last, *, silent=False):
    log = RunLog(folder, "run", 9, silent=silent)
    log.cut(first - 1)
    with log:
        for step in range(first, last + 1):
            log.write({**RECORD, "step": step, "tokens": 8 * step, "loss": float(step)})


def test_tensorboard_sees_each_step_once(tmp_path):
    """Steps 3 and 4 were told of by a run that was killed, and come again."""
    events = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="needs tensorboard"
    )
    write(tmp_path, 1, 4)
    write(tmp_path, 3, 6)
    found = events.EventAccumulator(str(tmp_path))
    found.Reload()
    assert set(found.Tags()["scalars"]) == {"loss", "tokens", "tokens_per_second", "mfu"}
    assert [(e.step, e.value) for e in found.Scalars("loss")] == [(n, n) for n in range(1, 7)]


def test_without_tensorboard_there_is_the_log_alone(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    write(tmp_path, 1, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["log.jsonl"]


def test_a_silent_rank_writes_nothing(tmp_path):
    write(tmp_path, 1, 2, silent=True)
    assert not list(tmp_path.iterdir())
