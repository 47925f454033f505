"""``tinystarcoder serve`` as a process: it says where it is, answers, and ends at Ctrl-C."""

import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from tinystarcoder.cli.serve import _name, app
from tinystarcoder.errors import ModelNotFoundError, RequestError

# A shell's background job, and what it starts, ignores Ctrl-C unless told otherwise.
PROGRAM = """
import signal
from tinystarcoder.cli.main import main
signal.signal(signal.SIGINT, signal.default_int_handler)
main()
"""
COMMAND = [sys.executable, "-c", PROGRAM, "serve"]


def test_serves_until_interrupted(tiny_checkpoint: Path) -> None:
    command = [*COMMAND, "--model", str(tiny_checkpoint), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            said = process.stdout.readline()
            found = re.fullmatch(r"serving tiny on (http://127\.0\.0\.1:\d+)\n", said)
            assert found
            models = httpx.get(f"{found[1]}/v1/models", timeout=None).json()
            assert models["data"][0]["id"] == "tiny"
            process.send_signal(signal.SIGINT)
            assert process.wait() == 130
        finally:
            process.kill()


def test_a_port_in_use(tiny_checkpoint: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with pytest.raises(RequestError, match=f"127.0.0.1:{port} cannot be listened on"):
            run("--model", str(tiny_checkpoint), "--port", port)


@pytest.mark.parametrize("host", ["256.0.0.1", "a..b", 300 * "a"])
def test_a_host_that_is_none(host: str) -> None:
    with pytest.raises(RequestError, match="choose another --host or --port"):
        run("--host", host)


@pytest.mark.parametrize("named", ["~x", "./tiny", "tiny/../~x"])
def test_a_model_is_called_by_its_folders_name(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    """A ``~x`` that is no user's, too."""
    monkeypatch.chdir(tmp_path)
    for name in ("tiny", "~x"):
        (tmp_path / name).mkdir()
    assert _name(named) == Path(named).resolve().name
    assert _name("nano") == "nano"


@pytest.mark.parametrize("name", ["no-such-folder", "~nobody-of-that-name/model"])
def test_no_such_model(name: str) -> None:
    with pytest.raises(ModelNotFoundError):
        run("--port", "0", "--model", name)


def run(*arguments: str) -> None:
    CliRunner().invoke(app, list(arguments), catch_exceptions=False)
