import socket


def test_a_sound_installation(run, tiny_checkpoint) -> None:
    _, out, _ = run("doctor", "--model", str(tiny_checkpoint), "--port", "0")
    lines = out.splitlines()
    assert any("parameters, loaded in" in line for line in lines)
    assert any(line.startswith("ok   suggestion:") for line in lines)
    assert any(line.startswith("ok   extra [train]") for line in lines)


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
