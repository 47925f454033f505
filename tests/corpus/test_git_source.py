"""Real repositories, made on the spot, some of them hostile."""

import shutil
import subprocess
import zlib
from pathlib import Path

import pytest

from tinystarcoder.corpus.decoding import SetAside
from tinystarcoder.corpus.git_source import commit_of, is_repository, open_commit
from tinystarcoder.errors import CorpusError

from .conftest import MIT

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=Ann", "-c", "user.email=ann@example.org")
    settings = ("-c", "init.defaultBranch=main", "-c", "commit.gpgsign=false")
    done = subprocess.run(
        ["git", *identity, *settings, *arguments], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    (folder / "pkg").mkdir(parents=True)
    (folder / "pkg" / "a.py").write_text("x = 1\n")
    (folder / "pyproject.toml").write_text('[project]\nname = "beta"\nlicense = "MIT"\n')
    (folder / "LICENSE").write_text(MIT)
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "first")
    return folder


def contents(repository: Path, revision: str = "HEAD", **options) -> dict[str, str]:
    package = open_commit(repository, commit_of(repository, revision), **options)
    return {
        file.path: f"<{file.content}>" if isinstance(file.content, SetAside) else file.content
        for file in package.records()
    }


def test_tracked_files_at_a_commit(repository):
    (repository / "untracked.py").write_text("y = 1\n")
    (repository / "pkg" / "a.py").write_text("changed = 1\n")
    package = open_commit(repository, commit_of(repository))
    assert contents(repository) == {"pkg/a.py": "x = 1\n"}
    assert (package.name, package.version) == ("beta", git(repository, "rev-parse", "HEAD"))
    assert package.claims.expression == "MIT"
    assert [name for name, _ in package.claims.files] == ["LICENSE"]


def test_revisions_by_every_name(repository):
    first = commit_of(repository)
    git(repository, "tag", "light")
    git(repository, "tag", "-a", "heavy", "-m", "tagged")
    git(repository, "branch", "feature/x")
    (repository / "b.py").write_text("y = 2\n")
    git(repository, "add", "b.py")
    git(repository, "commit", "--quiet", "-m", "second")
    names = ("light", "heavy", "feature/x", "refs/heads/feature/x", first, first[:8])
    for packed in (False, True):
        if packed:
            git(repository, "pack-refs", "--all")
            git(repository, "gc", "--quiet")
        assert {commit_of(repository, name) for name in names} == {first}
        assert commit_of(repository) == commit_of(repository, "main") != first
    assert set(contents(repository, "light")) == {"pkg/a.py"}
    assert set(contents(repository)) == {"pkg/a.py", "b.py"}


def test_bare_repositories_and_worktrees(repository, tmp_path):
    git(repository, "worktree", "add", "--quiet", str(tmp_path / "tree"), "-b", "other")
    git(tmp_path, "clone", "--quiet", "--bare", str(repository), str(tmp_path / "bare.git"))
    for place in (tmp_path / "tree", tmp_path / "bare.git"):
        assert is_repository(place)
        assert contents(place) == {"pkg/a.py": "x = 1\n"}
    assert not is_repository(tmp_path)


def test_links_large_files_and_skipped_folders(repository):
    (repository / "link.py").symlink_to("/etc/passwd")
    (repository / "large.py").write_text("#" * ((8 << 20) + 1))
    for folder in ("node_modules", ".hidden", "docs"):
        (repository / folder).mkdir()
        (repository / folder / "x.py").write_text("x = 1\n")
    git(repository, "add", "--force", ".")
    git(repository, "commit", "--quiet", "-m", "more")
    skipped = frozenset({"docs", "node_modules"})
    assert contents(repository, skipped=skipped) == {
        "pkg/a.py": "x = 1\n",
        "link.py": "<symlink>",
        "large.py": "<larger than 8 MiB>",
    }


def test_nothing_of_a_hostile_repository_runs(repository, tmp_path):
    """Config, filters, textconv, hooks, replacements and a promisor remote: all armed."""
    trap = tmp_path / "sprung"
    command = f"touch {trap}"
    (repository / ".gitattributes").write_text("*.py filter=evil diff=evil\n")
    git(repository, "add", ".gitattributes")
    git(repository, "commit", "--quiet", "-m", "attributes")
    config = f"""
[core]
    fsmonitor = {command}
    sshCommand = {command}
    pager = {command}
    editor = {command}
    hooksPath = {tmp_path}/hooks
[filter "evil"]
    smudge = {command}
    clean = {command}
    process = {command}
[diff "evil"]
    textconv = {command}
[alias]
    cat-file = !{command}
    ls-tree = !{command}
[remote "origin"]
    url = {tmp_path}
    uploadpack = {command};
    promisor = true
    partialclonefilter = blob:none
[extensions]
    partialClone = origin
"""
    with (repository / ".git" / "config").open("a") as stream:
        stream.write(config)
    assert contents(repository)["pkg/a.py"] == "x = 1\n"
    # An object that is not there would be fetched through the promisor's command.
    for path in (repository / ".git" / "objects").rglob("*"):
        if path.is_file() and zlib.decompress(path.read_bytes()).endswith(b"x = 1\n"):
            path.unlink()
    assert contents(repository)["pkg/a.py"] == "<missing from the repository>"
    assert not trap.exists()


def test_a_broken_object_costs_one_file(repository):
    for name in ("b", "c"):
        (repository / f"{name}.py").write_text(f"{name} = 1\n")
    git(repository, "add", ".")
    git(repository, "commit", "--quiet", "-m", "more")
    for path in (repository / ".git" / "objects").rglob("*"):
        if path.is_file() and zlib.decompress(path.read_bytes()).endswith(b"\0b = 1\n"):
            path.chmod(0o600)
            data = bytearray(path.read_bytes())
            data[-6] ^= 0xFF
            path.write_bytes(data)
    found = contents(repository)
    assert found.pop("b.py") in ("<broken object>", "<missing from the repository>")
    assert found == {"c.py": "c = 1\n", "pkg/a.py": "x = 1\n"}


@pytest.mark.parametrize(
    "revision", ["gone", "0" * 40, "--help", "../../../etc/passwd", "HEAD~1", "a b"]
)
def test_no_such_commit(repository, revision):
    with pytest.raises(CorpusError, match="no commit"):
        commit_of(repository, revision)


def test_an_empty_repository(tmp_path):
    git(tmp_path, "init", "--quiet")
    with pytest.raises(CorpusError, match="no commit 'HEAD'"):
        commit_of(tmp_path)
