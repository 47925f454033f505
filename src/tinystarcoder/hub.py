"""Models from the Hugging Face hub: fetched into the user's own cache, listed, removed.

The cache, its place (``HF_HOME``), the token and the offline switch
(``HF_HUB_OFFLINE``) are huggingface_hub's, so what another program has fetched
is found here too. It gives up pickled weights: they are never fetched.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path

from .errors import ModelNotFoundError

_ID = re.compile(r"\w[\w.-]*/[\w.-]+")
_ARCHITECTURE = "gpt_bigcode"
# Never pickles, nor other frameworks' weights.
_FILES = [
    *("config.json", "generation_config.json", "*.safetensors", "*.safetensors.index.json"),
    *("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "README.md"),
]


@dataclass(frozen=True)
class CachedModel:
    """A model of this family in the cache; ``bytes`` on disk, of all its revisions."""

    name: str
    folder: Path
    bytes: int


def is_id(name: str) -> bool:
    """Whether a name has a hub id's form, ``owner/name``."""
    return _ID.fullmatch(name) is not None


def fetch(name: str) -> Path:
    """A model's folder in the cache, fetched where it is not there yet.

    Raises ModelNotFoundError where neither the hub nor the cache has it.
    """
    # Imported here alone: it takes as long as everything else together.
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=_FILES))
    # Its HTTP library's errors, its own and the system's: all mean the same here.
    except Exception as error:
        raise ModelNotFoundError(
            f"{name}: not a folder, and not to be had from the hub or its cache: {error}"
        ) from error


def cached() -> list[CachedModel]:
    """The models of this family in the cache, by name."""
    from huggingface_hub import constants, scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repositories = scan_cache_dir(constants.HF_HUB_CACHE).repos
    except CacheNotFound:
        return []
    found = []
    for repository in repositories:
        revisions = sorted(repository.revisions, key=lambda one: one.last_modified)
        folders = [one.snapshot_path for one in revisions if _is_ours(one.snapshot_path)]
        if folders:
            size = repository.size_on_disk
            found.append(CachedModel(repository.repo_id, folders[-1], size))
    return sorted(found, key=lambda model: model.name)


def remove(name: str) -> int:
    """Deletes a model from the cache, all revisions; returns the bytes set free.

    Raises ModelNotFoundError where the cache has no model of this family by that name.
    """
    from huggingface_hub import constants, scan_cache_dir

    if name not in [model.name for model in cached()]:
        raise ModelNotFoundError(
            f"{name}: not in the cache; 'tinystarcoder models list' shows what is"
        )
    cache = scan_cache_dir(constants.HF_HUB_CACHE)
    hashes = [
        revision.commit_hash
        for repository in cache.repos
        if repository.repo_id == name and repository.repo_type == "model"
        for revision in repository.revisions
    ]
    strategy = cache.delete_revisions(*hashes)
    strategy.execute()
    return int(strategy.expected_freed_size)


def _is_ours(folder: Path) -> bool:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and config.get("model_type") == _ARCHITECTURE
