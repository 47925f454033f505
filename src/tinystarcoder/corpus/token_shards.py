"""Tokens on the disk: memory-mapped uint16 shards, an index of document ends, checksums.

    tokens-00000.bin …  ids, little-endian uint16, document after document
    ends.npy            int64 [N]: tokens up to and with each document's end
    bytes.npy           int64 [N]: bytes of each document's text
    documents.jsonl     path, package and license of each document, a line each
    tokenizer.json      the vocabulary that made them
    index.json          sizes and sha256 of all of these

Each document ends with the end-of-text id. A document's other ids decode to
its text exactly, so that training can cut it at characters. Reading needs
numpy alone.

What it gives up: vocabularies of more than 65,536 ids.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import CorpusError
from ..files import write_atomically
from ..tokenizer import Tokenizer
from .document import Document

FORMAT = 1
INDEX = "index.json"
MAX_VOCABULARY = 1 << 16
SHARD_TOKENS = 1 << 27

_DTYPE = np.dtype("<u2")
_BATCH = 256


class TokenShards:
    """A folder of token shards, memory-mapped. Safe to share between threads."""

    def __init__(self, folder: Path, index: dict[str, Any]) -> None:
        self.folder = folder
        self._index = index
        self.vocab_size: int = index["vocab_size"]
        self.eos_id: int = index["eos_id"]
        self.num_tokens: int = index["tokens"]
        self.num_bytes: int = index["bytes"]
        self.fingerprint = hashlib.sha256(json.dumps(index, sort_keys=True).encode()).hexdigest()
        """Equal for equal content, tokenizer included."""
        self.ends: NDArray[np.int64] = _load(folder / "ends.npy", index["documents"])
        self.byte_lengths: NDArray[np.int64] = _load(folder / "bytes.npy", index["documents"])
        """Bytes of text of each document [N]."""
        self.lengths: NDArray[np.int64] = np.diff(self.ends, prepend=0)
        """Tokens of each document [N], its end of text included."""
        self._shards = [
            np.memmap(folder / shard["file"], dtype=_DTYPE, mode="r") for shard in index["shards"]
        ]
        sizes = [shard["tokens"] for shard in index["shards"]]
        self._shard_ends = np.cumsum(sizes, dtype=np.int64)
        if not len(self.ends) or self.ends[-1] != self.num_tokens or self.lengths.min() < 1:
            raise CorpusError(f"{folder / 'ends.npy'}: disagrees with {INDEX}; tokenize again")

    @classmethod
    def open(cls, folder: Path) -> "TokenShards":
        """Maps a folder, the size of every file checked.

        Raises CorpusError, naming the file, where one is missing, cut or not of this format.
        """
        path = folder / INDEX
        try:
            index = json.loads(path.read_text(encoding="utf-8"))
            if index["format"] != FORMAT:
                raise CorpusError(f"{path}: format {index['format']}, not {FORMAT}; tokenize again")
            for name, entry in index["files"].items():
                size = (folder / name).stat().st_size
                if size != entry["size"]:
                    raise CorpusError(
                        f"{folder / name}: {size} bytes instead of {entry['size']}; tokenize again"
                    )
            return cls(folder, index)
        except FileNotFoundError as error:
            raise CorpusError(f"{error.filename}: missing; no token shards here") from error
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CorpusError(f"{path}: cannot be read as token shards: {error!r}") from error

    def verify(self) -> None:
        """Reads every file. Raises CorpusError for the first whose checksum is wrong."""
        for name, entry in self._index["files"].items():
            with (self.folder / name).open("rb") as stream:
                if hashlib.file_digest(stream, "sha256").hexdigest() != entry["sha256"]:
                    raise CorpusError(f"{self.folder / name}: wrong checksum; tokenize again")

    def __len__(self) -> int:
        """Documents."""
        return len(self.ends)

    def document(self, index: int) -> NDArray[np.uint16]:
        """The ids of one document, its end of text included; a view of the map."""
        end = int(self.ends[index])
        start = end - int(self.lengths[index])
        shard = int(np.searchsorted(self._shard_ends, start, side="right"))
        base = int(self._shard_ends[shard - 1]) if shard else 0
        return self._shards[shard][start - base : end - base]

    def documents(self) -> Iterator[dict[str, str]]:
        """``path``, ``package`` and ``license`` of each document, in order."""
        with (self.folder / "documents.jsonl").open(encoding="utf-8") as lines:
            yield from map(json.loads, lines)


def build_token_shards(
    documents: Iterable[Document],
    tokenizer: Tokenizer,
    output: Path,
    *,
    shard_tokens: int = SHARD_TOKENS,
    progress: Callable[[int], None] | None = None,
) -> TokenShards:
    """Tokenizes documents into a new folder ``output``, which appears when it is whole.

    Raises CorpusError where the output exists or cannot be written, there is no
    document, or the vocabulary does not fit 16 bits.
    """
    if output.exists():
        raise CorpusError(f"{output}: exists; remove it or choose another --output")
    if tokenizer.vocab_size > MAX_VOCABULARY:
        raise CorpusError(
            f"a vocabulary of {tokenizer.vocab_size} ids does not fit token shards; "
            f"they hold at most {MAX_VOCABULARY}"
        )
    staging = output.with_name(output.name + ".partial")
    shutil.rmtree(staging, ignore_errors=True)
    try:
        staging.mkdir(parents=True)
        _write(documents, tokenizer, staging, shard_tokens, progress)
        staging.rename(output)
    except OSError as error:
        raise CorpusError(f"{output}: cannot be written: {error}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return TokenShards.open(output)


def _write(
    documents: Iterable[Document],
    tokenizer: Tokenizer,
    folder: Path,
    shard_tokens: int,
    progress: Callable[[int], None] | None,
) -> None:
    lengths: list[int] = []
    byte_lengths: list[int] = []
    shards: list[dict[str, Any]] = []
    with (folder / "documents.jsonl").open("w", encoding="utf-8") as lines:
        rest = iter(documents)
        while batch := list(islice(rest, _BATCH)):
            encoded = tokenizer.encode_batch([document.text for document in batch])
            ids = [[*document_ids, tokenizer.eos_id] for document_ids in encoded]
            if not shards or shards[-1]["tokens"] >= shard_tokens:
                shards.append({"file": f"tokens-{len(shards):05}.bin", "tokens": 0})
            shards[-1]["tokens"] += _append(folder / shards[-1]["file"], ids)
            lengths += map(len, ids)
            for document in batch:
                byte_lengths.append(len(document.text.encode()))
                facts = {name: getattr(document, name) for name in ("path", "package", "license")}
                lines.write(json.dumps(facts) + "\n")
            if progress:
                progress(len(lengths))
    if not lengths:
        raise CorpusError("no document to tokenize")
    np.save(folder / "ends.npy", np.cumsum(lengths, dtype=np.int64))
    np.save(folder / "bytes.npy", np.array(byte_lengths, dtype=np.int64))
    tokenizer.save(folder)
    names = sorted(path.name for path in folder.iterdir())
    index = {
        "format": FORMAT,
        "vocab_size": tokenizer.vocab_size,
        "eos_id": tokenizer.eos_id,
        "documents": len(lengths),
        "tokens": sum(lengths),
        "bytes": sum(byte_lengths),
        "shards": shards,
        "files": {name: _entry(folder / name) for name in names},
    }
    write_atomically(folder / INDEX, (json.dumps(index, indent=1) + "\n").encode())


def _append(path: Path, ids: Sequence[Sequence[int]]) -> int:
    """Adds documents to the end of a shard; returns how many tokens."""
    tokens = np.fromiter((token for document in ids for token in document), dtype=_DTYPE)
    with path.open("ab") as stream:
        tokens.tofile(stream)
    return len(tokens)


def _entry(path: Path) -> dict[str, Any]:
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return {"size": path.stat().st_size, "sha256": digest}


def _load(path: Path, count: int) -> NDArray[np.int64]:
    array: NDArray[np.int64] = np.load(path, allow_pickle=False)
    if array.shape != (count,) or array.dtype != np.int64:
        raise CorpusError(f"{path}: disagrees with {INDEX}; tokenize again")
    return array
