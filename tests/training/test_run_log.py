import errno
import sys
from unittest.mock import MagicMock, Mock

import pytest

from tinystarcoder.errors import TrainingError
from tinystarcoder.training.run_log import RunLog

RECORD = {"loss": 2.5, "tokens_per_second": 4.0, "mfu": 0.1, "seconds_left": 3725}
FULL = OSError(errno.ENOSPC, "No space left on device")


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
    assert set(found.Tags()["scalars"]) == {*RECORD, "tokens"}
    assert [(e.step, e.value) for e in found.Scalars("loss")] == [(n, n) for n in range(1, 7)]


def test_without_tensorboard_there_is_the_log_alone(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    for name in [name for name in sys.modules if name.startswith("tensorboard.")]:
        monkeypatch.delitem(sys.modules, name)
    write(tmp_path, 1, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["log.jsonl"]


def test_a_silent_rank_writes_nothing(tmp_path):
    write(tmp_path, 1, 2, silent=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("method", ["write", "close"])
def test_a_disk_that_tensorboard_filled_is_one_clear_error(tmp_path, monkeypatch, capsys, method):
    """Its writers name no file, and some fail in a thread, which tells it in its own words."""
    module = "tensorboard.summary.writer.record_writer"
    writer = pytest.importorskip(module, reason="needs tensorboard").RecordWriter
    write(tmp_path, 1, 1)
    monkeypatch.setattr(writer, method, Mock(side_effect=FULL))
    with pytest.raises(TrainingError, match=r"tfevents.*No space left.*checkpoints are intact"):
        write(tmp_path, 2, 9)
    assert "Traceback" not in capsys.readouterr().err


def test_what_broke_a_run_off_is_told_rather_than_its_log(tmp_path, monkeypatch):
    module = "tensorboard.summary.writer.record_writer"
    writer = pytest.importorskip(module, reason="needs tensorboard").RecordWriter
    monkeypatch.setattr(writer, "close", Mock(side_effect=FULL))
    with pytest.raises(KeyError), RunLog(tmp_path, "run", 9, silent=False) as log:
        log.write({"step": 1})


def test_a_log_that_cannot_be_cut_is_one_clear_error(tmp_path, monkeypatch):
    write(tmp_path, 1, 4)
    monkeypatch.setattr("tinystarcoder.files.write_atomically", Mock(side_effect=FULL))
    with pytest.raises(TrainingError, match=r"log\.jsonl: cannot be written: No space left"):
        write(tmp_path, 3, 4)


def test_a_bar_begins_where_the_run_goes_on_and_tells_our_own_time(tmp_path, monkeypatch):
    bar = MagicMock()
    monkeypatch.setattr("rich.progress.Progress", lambda *_: bar)
    write(tmp_path, 6, 6)
    assert bar.add_task.call_args.kwargs["completed"] == 5
    assert bar.update.call_args.kwargs["status"].startswith("1:02:05 left  loss 6.000")


def test_without_rich_there_are_lines(tmp_path, monkeypatch, capsys):
    """The first, the last, and one every so many seconds between."""
    monkeypatch.setitem(sys.modules, "rich.progress", None)
    write(tmp_path, 2, 9)
    first, last = capsys.readouterr().err.splitlines()
    assert first == "run 2/9  1:02:05 left  loss 2.000  4 tokens/s  MFU 10%"
    assert last.startswith("run 9/9  1:02:05 left  loss 9.000")
