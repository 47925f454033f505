"""Tokens on the disk: memory-mapped uint16 shards, an index of document ends, checksums.

    tokens-00000.bin …  ids, little-endian uint16, document after document
    ends.npy            int64 [N]: tokens up to and with each document's end
    bytes.npy           int64 [N]: bytes of each document's text
    documents.jsonl     FACTS of each document, a line each
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
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import CorpusError
from ..files import atomic_file, write_atomically
from ..tokenizer import MAX_VOCABULARY, Tokenizer
from .bulk_encoding import BulkEncoder
from .document import Document, batches, segments

FORMAT = 1
INDEX = "index.json"
FACTS = ("path", "package", "license", "stars", "quality")
SHARD_TOKENS = 1 << 27

_DTYPE = np.dtype("<u2")


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

    def documents(self) -> Iterator[dict[str, Any]]:
        """FACTS of each document, in order, those that are known."""
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
    check_vocabulary(tokenizer)
    staging = output.with_name(output.name + ".partial")
    shutil.rmtree(staging, ignore_errors=True)
    try:
        encode, rest = BulkEncoder(tokenizer), batches(documents)
        pieces = done = 0
        while count := write_piece(rest, encode, staging, pieces, shard_tokens):
            pieces, done = pieces + 1, done + count
            if progress:
                progress(done)
        if not done:
            raise CorpusError("no document to tokenize")
        write_index(staging, tokenizer, pieces).rename(output)
    except OSError as error:
        raise CorpusError(f"{output}: cannot be written: {error}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return TokenShards.open(output)


def check_vocabulary(tokenizer: Tokenizer) -> None:
    """Raises CorpusError where ids do not fit 16 bits."""
    if tokenizer.vocab_size > MAX_VOCABULARY:
        raise CorpusError(
            f"a vocabulary of {tokenizer.vocab_size} ids does not fit token shards; "
            f"they hold at most {MAX_VOCABULARY}"
        )


def write_piece(
    batches_: Iterator[list[Document]],
    encode: BulkEncoder,
    folder: Path,
    number: int,
    limit: int = 1 << 62,
) -> int:
    """Writes one shard, until it has ``limit`` tokens or there are no more documents.

    What the index needs of it is written last: then it is whole. Returns how many
    documents; without any nothing is written.
    """
    first = next(batches_, None)
    if first is None:
        return 0
    ends: list[NDArray[np.int64]] = []
    sizes: list[int] = []
    end = 0
    with (
        atomic_file(folder / "tokens" / _shard_name(number)) as stream,
        atomic_file(piece_file(folder, number).with_suffix(".jsonl")) as lines,
    ):
        for batch in chain([first], batches_):
            ids = encode(batch)
            stream.write(np.concatenate(ids).astype(_DTYPE).tobytes())
            ends.append(end + np.cumsum([len(document) for document in ids], dtype=np.int64))
            end = int(ends[-1][-1])
            for document in batch:
                sizes.append(len(document.text.encode()) - len(segments(document.text)) // 2)
                known = ((name, getattr(document, name)) for name in FACTS)
                facts = {name: value for name, value in known if value is not None}
                lines.write(f"{json.dumps(facts)}\n".encode())
            if end >= limit:
                break
    with atomic_file(piece_file(folder, number)) as stream:
        np.savez(stream, ends=np.concatenate(ends), bytes=np.array(sizes, dtype=np.int64))
    return len(sizes)


def write_index(folder: Path, tokenizer: Tokenizer, pieces: int) -> Path:
    """Joins what is known of the shards ``0`` to ``pieces - 1`` into an index.

    Returns the folder of shards and index, which needs nothing else.
    """
    whole = folder / "tokens"
    ends, sizes, shards = [], [], []
    base = 0
    with atomic_file(whole / "documents.jsonl") as lines:
        for number in range(pieces):
            with np.load(piece_file(folder, number)) as piece:
                ends.append(base + piece["ends"])
                sizes.append(piece["bytes"])
            tokens = int(ends[-1][-1]) - base
            shards.append({"file": _shard_name(number), "tokens": tokens})
            base += tokens
            with piece_file(folder, number).with_suffix(".jsonl").open("rb") as part:
                shutil.copyfileobj(part, lines)
    np.save(whole / "ends.npy", np.concatenate(ends))
    np.save(whole / "bytes.npy", np.concatenate(sizes))
    tokenizer.save(whole)
    for half in whole.glob(".*.tmp"):  # Of a task that was killed.
        half.unlink()
    names = sorted(path.name for path in whole.iterdir() if path.name != INDEX)
    index = {
        "format": FORMAT,
        "vocab_size": tokenizer.vocab_size,
        "eos_id": tokenizer.eos_id,
        "documents": sum(map(len, sizes)),
        "tokens": base,
        "bytes": int(sum(map(np.sum, sizes))),
        "shards": shards,
        "files": {name: _entry(whole / name) for name in names},
    }
    write_atomically(whole / INDEX, (json.dumps(index, indent=1) + "\n").encode())
    return whole


def piece_file(folder: Path, number: int) -> Path:
    """What the index needs to know of one shard."""
    return folder / "pieces" / f"{number:05}.npz"


def _shard_name(number: int) -> str:
    return f"tokens-{number:05}.bin"


def _entry(path: Path) -> dict[str, Any]:
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return {"size": path.stat().st_size, "sha256": digest}


def _load(path: Path, count: int) -> NDArray[np.int64]:
    array: NDArray[np.int64] = np.load(path, allow_pickle=False)
    if array.shape != (count,) or array.dtype != np.int64:
        raise CorpusError(f"{path}: disagrees with {INDEX}; tokenize again")
    return array
