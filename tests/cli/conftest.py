"""Commands run as a user runs them: through main(), with their output and exit code."""

import io
import sys
import warnings
from collections.abc import Callable

import pytest

from tinystarcoder.cli.main import main


class Terminal(io.TextIOWrapper):
    """Standard input that somebody could type on."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """``run("complete", "x", stdin=b"…")`` gives exit code, stdout and stderr.

    Without ``stdin``, it is a terminal.
    """
    # main() replaces it for good.
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)

    def run_main(*arguments: str, stdin: bytes | None = None) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["tinystarcoder", *arguments])
        piped = Terminal(io.BytesIO()) if stdin is None else io.TextIOWrapper(io.BytesIO(stdin))
        monkeypatch.setattr(sys, "stdin", piped)
        with pytest.raises(SystemExit) as caught:
            main()
        captured = capsys.readouterr()
        return int(caught.value.code or 0), captured.out, captured.err

    return run_main
