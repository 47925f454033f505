"""The finetune command's exit codes; fine-tuning itself is tested in tests/training."""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tinystarcoder.cli import finetune as command
from tinystarcoder.training.finetune import StoppedError

Run = Callable[..., tuple[int, str, str]]


def test_a_signal_gives_the_exit_code_that_train_gives(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise StoppedError("tuned: stopped before the end", signal.SIGTERM)

    monkeypatch.setattr(command, "finetune", stopped)
    assert run("finetune", str(tmp_path)) == (143, "", "tuned: stopped before the end\n")
