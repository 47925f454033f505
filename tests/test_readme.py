"""The README's commands run, its snippets run, its examples are what comes out."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tinystarcoder.engine.native_decoder import instruction_sets
from tinystarcoder.verdict import judge

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
NANO = ROOT / "src" / "tinystarcoder" / "weights" / "nano"

needs_nano = pytest.mark.skipif(not NANO.is_dir(), reason="the bundled model is not here yet")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


FIRST, SECOND, *TOUR = blocks("bash")


def bash(command: str, folder: Path, programs: Path) -> subprocess.CompletedProcess[str]:
    """Runs a block as a person would paste it, the given programs first on the path."""
    environment = {**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    environment.pop("PYTHONPATH", None)  # Nothing but what the programs' own folder has.
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The repository's files as they are now, without what git ignores."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
    )
    if listed.returncode:
        pytest.skip("not a git repository")
    folder = tmp_path / "clone"
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


def test_the_second_command_is_what_ci_runs() -> None:
    assert SECOND == "scripts/test\n"
    for script in (ROOT / "scripts" / "test", ROOT / ".ci" / "run"):
        assert os.access(script, os.X_OK)
    assert "scripts/test" in (ROOT / ".ci" / "run").read_text()


@pytest.mark.full
@needs_nano
def test_the_first_command_on_a_fresh_machine(clone: Path, tmp_path: Path) -> None:
    assert FIRST == 'pip install . && tinystarcoder complete "def print_hello_world():"\n'
    environment = tmp_path / "fresh"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    programs = environment / "bin"
    reach = f"pip download -q --no-deps -d '{tmp_path / 'reach'}' hatchling"
    if bash(reach, tmp_path, programs).returncode:
        pytest.skip("no package registry within reach")
    done = bash(FIRST, clone, programs)
    assert done.returncode == 0, done.stderr
    assert bash("python -c 'import torch'", tmp_path, programs).returncode
    alone = bash(FIRST.partition("&& ")[2], tmp_path, programs).stdout
    assert alone.strip() and done.stdout.endswith(alone)


@pytest.mark.full
@needs_nano
@pytest.mark.parametrize("block", TOUR, ids=lambda block: " ".join(block.split()[:3]))
def test_the_tour(block: str, clone: Path) -> None:
    if "validation-packages" in block and (ROOT / ".validation").is_dir():
        shutil.copytree(ROOT / ".validation", clone / ".validation")
    done = bash(block, clone, Path(sys.executable).parent)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


@needs_nano
@pytest.mark.parametrize("snippet", blocks("python"))
def test_snippets_run(snippet: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", snippet], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


@needs_nano
@pytest.mark.skipif("avx2" not in instruction_sets(), reason="they were written with AVX2")
def test_the_examples_are_what_comes_out() -> None:
    command = [sys.executable, ROOT / "scripts" / "readme-examples", "--check"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


PROMPTS = (
    "def print_hello_world():",
    "import os\n\ndef list_files(path):\n",
    "class Stack:\n    def __init__(self):\n",
)


def test_the_examples_parse() -> None:
    """As they stand there, up to the last line, which 64 tokens left unfinished."""
    examples = re.findall(r"^```console\n\$ [^\n]*\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    for prompt, text in zip(PROMPTS, examples, strict=True):
        assert text.startswith(prompt)
        verdict = judge(prompt, text.removeprefix(prompt).rstrip("\n"), ended=False)
        assert verdict.passed, verdict


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
