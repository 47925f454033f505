"""The corpus on the disk: documents in sharded Parquet files beside a manifest.

Columns ``content``, ``path``, ``package``, ``version``, ``license``, all text.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from ..errors import CorpusError, MissingExtraError
from .document import Document

try:
    import pyarrow  # type: ignore[import-untyped]
    from pyarrow import parquet
except ModuleNotFoundError as error:
    raise MissingExtraError("reading and writing a corpus", "corpus") from error

MANIFEST = "manifest.json"
COLUMNS = ("content", "path", "package", "version", "license")
SCHEMA = pyarrow.schema([(name, pyarrow.string()) for name in COLUMNS])

SHARD_BYTES = 128 << 20
BATCH = 512


def write_documents(documents: Iterable[Document], folder: Path) -> list[dict[str, Any]]:
    """Writes ``documents-00000.parquet`` and on, about 128 MiB of text each.

    Returns for each shard its file name, sha256, number of documents and bytes of text.
    """
    shards: list[dict[str, Any]] = []
    writer: parquet.ParquetWriter | None = None
    try:
        rest = iter(documents)
        while rows := list(islice(rest, BATCH)):
            if writer is None or shards[-1]["bytes"] >= SHARD_BYTES:
                if writer is not None:
                    writer.close()
                name = f"documents-{len(shards):05}.parquet"
                writer = parquet.ParquetWriter(folder / name, SCHEMA, compression="zstd")
                shards.append({"file": name, "documents": 0, "bytes": 0})
            writer.write_table(table_of(rows))
            shards[-1]["documents"] += len(rows)
            shards[-1]["bytes"] += sum(len(document.text.encode()) for document in rows)
    finally:
        if writer is not None:
            writer.close()
    for shard in shards:
        shard["sha256"] = sha256_of(folder / shard["file"])
    return shards


def read_documents(folder: Path) -> Iterator[Document]:
    """All documents of a corpus folder, in order.

    Raises CorpusError where the manifest or a shard is missing, cut or broken.
    """
    for shard in read_manifest(folder)["shards"]:
        path = folder / shard["file"]
        try:
            yield from documents_of(path)
        except (OSError, pyarrow.ArrowException) as error:
            raise CorpusError(f"{path}: cannot be read as a corpus shard: {error}") from error


def read_manifest(folder: Path) -> dict[str, Any]:
    """``manifest.json`` of a corpus folder. Raises CorpusError where there is none."""
    path = folder / MANIFEST
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CorpusError(f"{path}: no readable manifest; is {folder} a corpus?") from error
    if not isinstance(manifest, dict) or not isinstance(manifest.get("shards"), list):
        raise CorpusError(f"{path}: not the manifest of a corpus")
    return manifest


def documents_of(path: Path) -> Iterator[Document]:
    """The documents of one Parquet file."""
    with parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=BATCH, columns=list(COLUMNS)):
            for row in zip(*(batch.column(name).to_pylist() for name in COLUMNS), strict=True):
                yield Document(*row)


def table_of(documents: list[Document]) -> pyarrow.Table:
    """The documents as a table with the corpus's columns."""
    columns = {
        "content": [document.text for document in documents],
        **{name: [getattr(document, name) for document in documents] for name in COLUMNS[1:]},
    }
    return pyarrow.table(columns, schema=SCHEMA)


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
