"""``models`` over a cache as huggingface_hub lays it out, with the network switched off."""

import os
import shutil
from pathlib import Path

import pytest


@pytest.fixture
def cache(tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with ``someone/small``, ours, and ``someone/other``, of another architecture."""
    cache = tmp_path / "hub"
    for digit, name in enumerate(("small", "other")):
        repository = cache / f"models--someone--{name}"
        snapshot = repository / "snapshots" / (f"{digit}" * 40)
        for folder in (repository / "blobs", repository / "refs", snapshot):
            folder.mkdir(parents=True)
        (repository / "refs" / "main").write_text(snapshot.name)
        for path in tiny_checkpoint.iterdir():
            blob = repository / "blobs" / f"blob-of-{path.name}"
            shutil.copy(path, blob)
            (snapshot / path.name).symlink_to(os.path.relpath(blob, snapshot))
    (cache / "models--someone--other" / "blobs" / "blob-of-config.json").write_text("{}")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return cache


def test_only_this_family_is_listed(run, cache: Path) -> None:
    _, out, _ = run("models", "list")
    assert [line.split()[0] for line in out.splitlines()] == ["nano", "someone/small"]


def test_what_is_there_is_not_fetched_again(run, cache: Path) -> None:
    code, out, _ = run("models", "pull", "someone/small")
    assert code == 0
    assert Path(out.strip()).parent.parent == cache / "models--someone--small"


def test_removed_is_gone(run, cache: Path) -> None:
    assert "MB set free" in run("models", "rm", "someone/small")[1]
    assert not (cache / "models--someone--small").exists()
    assert (cache / "models--someone--other").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("rm", "someone/other"), "someone/other: not in the cache"),
        (("rm", "nano"), "nano: not a hub id"),
        (("pull", "someone/absent"), "someone/absent: not a folder, and not to be had"),
        (("pull", "../small"), "not a hub id"),
    ],
)
def test_what_is_not_there_is_one_line(run, cache: Path, arguments, told: str) -> None:
    code, _, err = run("models", *arguments)
    assert code == 2
    assert told in err and err.count("\n") == 1


def test_no_cache_at_all(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "none"))
    assert run("models", "list")[1].startswith("nano")
