"""The command table, and what every command owes its user when things go wrong."""

import errno
import os
import re
import subprocess
import sys
import tomllib
import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import typer

import tinystarcoder
from tinystarcoder.cli import main as cli
from tinystarcoder.errors import CorpusError

PROGRAM = [sys.executable, "-c", "from tinystarcoder.cli.main import main; main()"]

Run = Callable[..., tuple[int, str, str]]
Raising = Callable[[BaseException], None]


def command(name: str) -> Any:
    return typer.main.get_command(import_module(f"tinystarcoder.cli.{name}").app)


class TestTable:
    def test_lists_every_module_with_an_app(self) -> None:
        folder = Path(cli.__file__).parent
        with_app = {
            path.stem
            for path in folder.glob("*.py")
            if path.stem != "main" and re.search(r"^app = ", path.read_text(), re.MULTILINE)
        }
        assert set(cli.COMMANDS) == with_app

    @pytest.mark.parametrize("name", cli.COMMANDS)
    def test_summary_is_the_first_line_of_the_commands_help(self, name: str) -> None:
        assert command(name).help.splitlines()[0] == cli.COMMANDS[name]

    @pytest.mark.parametrize("name", cli.COMMANDS)
    def test_no_command_offers_to_install_completion(self, name: str) -> None:
        assert not [param.name for param in command(name).params if "completion" in param.name]

    def test_help_lists_the_table(self, run: Run) -> None:
        code, out, _ = run("--help")
        listed = re.sub(r"\s+", " ", out.split("Commands:")[1]).strip()
        assert listed == " ".join(f"{name} {text}" for name, text in cli.COMMANDS.items())
        assert code == 0

    @pytest.mark.parametrize("name", cli.COMMANDS)
    def test_each_command_has_help(self, run: Run, name: str) -> None:
        code, out, err = run(name, "--help")
        assert (code, err) == (0, "")
        assert cli.COMMANDS[name].split(",")[0] in out


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_and_version_import_no_command(option: str) -> None:
    """What makes them quick: neither numpy nor any command is imported."""
    program = (
        "import atexit, sys\n"
        "from tinystarcoder.cli.main import COMMANDS, main\n"
        "heavy = {'numpy', 'tokenizers', 'rich', 'huggingface_hub', 'torch'}\n"
        "heavy |= {f'tinystarcoder.cli.{name}' for name in COMMANDS}\n"
        "atexit.register(lambda: print('imported', sorted(heavy & {*sys.modules})))\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", program, option], capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stdout.endswith("imported []\n"), done.stderr


def test_version(run: Run) -> None:
    assert run("--version") == (0, f"tinystarcoder {tinystarcoder.__version__}\n", "")


def test_without_a_command_comes_help(run: Run) -> None:
    code, out, err = run()
    assert code == 2
    assert "Commands:" in out + err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["complet"], "No such command 'complet'"),
        (["--nonsense"], "No such option: --nonsense"),
        (["complete", "--nonsense"], "No such option: --nonsense"),
        (["complete", "x", "--max-tokens", "many"], "--max-tokens"),
        (["infill"], "Missing"),
        (["corpus", "build", "x"], "Missing option '--output'; see 'tinystarcoder corpus build -"),
    ],
)
def test_usage_errors_are_one_line(run: Run, arguments: list[str], message: str) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize("group", ["corpus", "evaluate", "models", "tokenizer"])
def test_a_group_without_a_command_shows_its_help(run: Run, group: str) -> None:
    code, out, err = run(group)
    assert code == 2
    assert "Commands:" in out + err


@pytest.fixture
def raising(monkeypatch: pytest.MonkeyPatch) -> Raising:
    """Makes ``complete`` fail where it loads its model."""

    def install(error: BaseException) -> None:
        def load(_: str, **options: object) -> None:
            raise error

        monkeypatch.setattr(import_module("tinystarcoder.cli.complete"), "load", load)

    return install


class TestFailures:
    def test_our_errors_are_one_line(self, run: Run, raising: Raising) -> None:
        raising(CorpusError("shard 3 is\ntruncated"))
        assert run("complete", "x") == (2, "", "error: shard 3 is truncated\n")

    def test_a_file_that_cannot_be_read_is_one_line(self, run: Run, tmp_path: Path) -> None:
        code, out, err = run("complete", "--file", str(tmp_path / "none.py"))
        assert (code, out) == (2, "")
        assert re.fullmatch(r"error: .*No such file.*none\.py'\n", err)

    @pytest.mark.parametrize("error", [ZeroDivisionError("a bug"), OSError("no file named")])
    def test_a_bug_is_not_hidden(self, run: Run, raising: Raising, error: Exception) -> None:
        raising(error)
        with pytest.raises(type(error)):
            run("complete", "x")

    @pytest.mark.parametrize("number", [errno.ENOSPC, errno.EFBIG])
    def test_a_full_disk_is_one_line(self, run: Run, raising: Raising, number: int) -> None:
        raising(OSError(number, os.strerror(number)))
        said = f"error: output cannot be written: {os.strerror(number)}; write it elsewhere\n"
        assert run("complete", "x") == (2, "", said)

    def test_interruption(self, run: Run, raising: Raising) -> None:
        raising(KeyboardInterrupt())
        code, out, err = run("complete", "x")
        assert (code, out) == (130, "")
        assert "Traceback" not in err

    def test_warnings_are_one_line(
        self, run: Run, monkeypatch: pytest.MonkeyPatch, raising: Raising
    ) -> None:
        def load(_: str, **options: object) -> None:
            warnings.warn("cut\nshort", stacklevel=2)
            raise CorpusError("and done")

        monkeypatch.setattr(import_module("tinystarcoder.cli.complete"), "load", load)
        assert run("complete", "x") == (2, "", "warning: cut short\nerror: and done\n")

    @pytest.mark.parametrize("library", ["pyarrow", "pyarrow.parquet"])
    def test_a_missing_extra(self, run: Run, monkeypatch: pytest.MonkeyPatch, library: str) -> None:
        def importing(*_: Any) -> None:
            raise ModuleNotFoundError(f"No module named {library!r}", name=library)

        monkeypatch.setattr(cli, "import_module", importing)
        told = "error: tinystarcoder corpus needs an extra: pip install 'tinystarcoder[corpus]'\n"
        assert run("corpus", "build") == (2, "", told)

    def test_every_library_that_the_runtime_lacks_is_known(self) -> None:
        """To ``doctor`` too, which would call an extra whole without one of its parts."""
        pyproject = Path(__file__).parents[2] / "pyproject.toml"
        extras = tomllib.loads(pyproject.read_text())["project"]["optional-dependencies"]
        wanted = {
            (re.split("[<>=]", requirement)[0].replace("-", "_"), extra)
            for extra in ("corpus", "cluster", "train", "lora", "export", "evaluate")
            for requirement in extras[extra]
            if not requirement.startswith("tinystarcoder")
        }
        # Without fastokens everything works, slower; torch is told once, with what trains.
        told_elsewhere = {("fastokens", "corpus"), ("torch", "evaluate")}
        assert wanted - told_elsewhere <= set(cli.EXTRAS.items())

    def test_a_missing_module_that_no_extra_brings(
        self, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def importing(*_: Any) -> None:
            raise ModuleNotFoundError("No module named 'elsewhere'", name="elsewhere")

        monkeypatch.setattr(cli, "import_module", importing)
        with pytest.raises(ModuleNotFoundError):
            run("corpus", "build")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize(
    "arguments", [["--help"], ["info", "TINY"], ["complete", "x", "--model=TINY"]]
)
def test_output_that_does_not_fit_is_one_line(tiny_checkpoint: Path, arguments: list[str]) -> None:
    """Also when the interpreter ends, and would write what is left once more."""
    arguments = [word.replace("TINY", str(tiny_checkpoint)) for word in arguments]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([*PROGRAM, *arguments], stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 2
    assert re.fullmatch(rb"error: output cannot be written: No space [^\n]*\n", done.stderr)


class TestClosedStreams:
    @pytest.mark.parametrize(
        "arguments", [["complete"], ["infill", "-", "--at", "1:1"], ["attribute"]]
    )
    def test_input(self, arguments: list[str]) -> None:
        done = self.run_without("stdin", arguments)
        assert done.returncode == 2
        assert re.fullmatch(rb"error: .*(standard input|--file).*\n", done.stderr)

    @pytest.mark.parametrize("stream", ["stdout", "stderr"])
    def test_output(self, tiny_checkpoint: Path, stream: str) -> None:
        assert self.run_without(stream, ["info", str(tiny_checkpoint)]).returncode == 0

    def run_without(
        self, stream: str, arguments: list[str]
    ) -> "subprocess.CompletedProcess[bytes]":
        """What Python makes of a stream that a shell closes, as in ``<&-``."""
        program = f"import sys; sys.{stream} = None; {PROGRAM[-1]}"
        return subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGPIPE")
@pytest.mark.parametrize(
    "arguments", [["--help"], ["complete", "x"], ["complete", "x", "--stream"]]
)
def test_a_closed_pipe_ends_it_without_a_word(tiny_checkpoint: Path, arguments: list[str]) -> None:
    if "complete" in arguments:
        arguments = [*arguments, "--model", str(tiny_checkpoint)]
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run([*PROGRAM, *arguments], stdout=writing, stderr=subprocess.PIPE)
    finally:
        os.close(writing)
    assert done.stderr == b""


def test_a_terminal_that_lacks_characters_gets_others(tmp_path: Path) -> None:
    """An ASCII terminal shows question marks, not a traceback."""
    missing = tmp_path / "größe"
    done = subprocess.run(
        [*PROGRAM, "info", str(missing)],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
    )
    assert done.returncode == 2
    assert done.stderr.startswith(b"error: ")
