import shutil
import socket

import pytest


def test_a_sound_installation(run) -> None:
    _, out, _ = run("doctor", "--port", "0")
    lines = out.splitlines()
    assert any("parameters, loaded in" in line for line in lines)
    (told,) = (line for line in lines if line.startswith("ok   suggestion:"))
    assert " 0 characters" not in told
    assert any(line.startswith("ok   extra [train]") for line in lines)


def test_a_port_that_no_machine_has(run) -> None:
    code, out, err = run("doctor", "--port", "99999999")
    assert (code, out) == (2, "")
    assert "--port" in err


def test_what_is_wrong_is_named(run, tmp_path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, out, _ = run("doctor", "--model", str(tmp_path / "absent"), "--port", str(port))
    assert code == 1
    wrong = [line for line in out.splitlines() if line.startswith("FAIL")]
    assert any("absent: no such folder" in line for line in wrong)
    assert any(f"127.0.0.1:{port} cannot be listened on" in line for line in wrong)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ModuleNotFoundError("No module named '_native'"), "the native engine is not built here"),
        (
            ImportError("libgomp.so.1: cannot open"),
            "it cannot be loaded: ImportError: libgomp.so.1",
        ),
    ],
)
def test_an_engine_that_is_not_there(
    run, tiny_checkpoint, monkeypatch, error: ImportError, told: str
) -> None:
    def fail(name: str) -> None:
        raise error

    monkeypatch.setattr("tinystarcoder.cli.doctor.is_built", lambda: False)
    monkeypatch.setattr("tinystarcoder.cli.doctor.import_module", fail)
    code, out, _ = run("doctor", "--model", str(tiny_checkpoint), "--port", "0")
    (line,) = [line for line in out.splitlines() if line.startswith("FAIL")]
    assert code == 1
    assert told in line
    assert "ok   suggestion:" in out  # In numpy, then.


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
@pytest.mark.parametrize("content", [None, b"", b"{", b"\xff\0" * 50])
def test_a_model_that_is_damaged(
    run, tiny_checkpoint, tmp_path, name: str, content: bytes | None
) -> None:
    """Each file gone, empty, cut and full of noise: a line that names it, never a traceback."""
    shutil.copytree(tiny_checkpoint, tmp_path / "model")
    broken = tmp_path / "model" / name
    if content is None:
        broken.unlink()
    else:
        broken.write_bytes(content)
    code, out, err = run("doctor", "--model", str(tmp_path / "model"), "--port", "0")
    (line,) = [line for line in out.splitlines() if line.startswith("FAIL")]
    assert code == 1
    assert line.startswith("FAIL model: ") and "model" in line
    assert name in line or "no weights" in line
    assert "Traceback" not in out + err


def test_whatever_goes_wrong_is_a_line(run, monkeypatch) -> None:
    def fail(name: str) -> None:
        raise ValueError("two\nlines")

    monkeypatch.setattr("tinystarcoder.cli.doctor.load", fail)
    code, out, _ = run("doctor", "--port", "0")
    assert code == 1
    assert "FAIL model: ValueError: two lines" in out.splitlines()
