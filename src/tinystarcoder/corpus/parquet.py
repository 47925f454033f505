"""The corpus on the disk: documents in sharded Parquet files beside a manifest.

Columns ``content``, ``path``, ``package``, ``version``, ``license``, all text;
``stars`` and ``quality``, numbers where they are known.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import CorpusError, MissingExtraError
from ..files import atomic_file
from .document import Document

try:
    import pyarrow  # type: ignore[import-untyped]
    from pyarrow import parquet
except ModuleNotFoundError as error:
    raise MissingExtraError("reading and writing a corpus", "corpus") from error

MANIFEST = "manifest.json"
TEXTS = ("content", "path", "package", "version", "license")
SCHEMA = pyarrow.schema(
    [
        *((name, pyarrow.string()) for name in TEXTS),
        ("stars", pyarrow.int64()),
        ("quality", pyarrow.float32()),
    ]
)
COLUMNS = tuple(SCHEMA.names)

SHARD_BYTES = 128 << 20


@contextmanager
def new_file(path: Path, schema: pyarrow.Schema = SCHEMA) -> Iterator[parquet.ParquetWriter]:
    """A Parquet file to be written, which appears when it is whole."""
    texts = [field.name for field in schema if pyarrow.types.is_string(field.type)]
    # What is not text are hashes: they do not compress, and no two are alike.
    codecs = {name: "zstd" if name in texts else "none" for name in schema.names}
    with (
        atomic_file(path) as stream,
        parquet.ParquetWriter(stream, schema, compression=codecs, use_dictionary=texts) as writer,
    ):
        yield writer


def read_documents(folder: Path) -> Iterator[Document]:
    """All documents of a corpus folder, in order.

    Raises CorpusError where the manifest or a shard is missing, cut or broken.
    """
    for shard in read_manifest(folder)["shards"]:
        yield from read_shard(folder / shard["file"])


def read_shard(path: Path) -> Iterator[Document]:
    """All documents of one shard, in order. Raises CorpusError where it is missing or broken."""
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


def documents_of(path: Path, first: int = 0, end: int | None = None) -> Iterator[Document]:
    """The documents of one Parquet file, or of its rows from ``first`` to before ``end``."""
    start = 0
    with parquet.ParquetFile(path, pre_buffer=False) as file:
        # The last columns are newer than the first corpora.
        names = [name for name in COLUMNS if name in file.schema_arrow.names]
        for group in range(file.num_row_groups):
            size = file.metadata.row_group(group).num_rows
            low, high = max(first - start, 0), size if end is None else min(end - start, size)
            start += size
            if low < high:
                rows = list(zip(*_lists(file, group, names), strict=True))
                yield from (Document(*row) for row in rows[low:high])


def rows_of(path: Path, names: Sequence[str]) -> Iterator[list[list[Any]]]:
    """Columns of a Parquet file as lists, a group of rows at a time."""
    with parquet.ParquetFile(path, pre_buffer=False) as file:
        for group in range(file.num_row_groups):
            yield _lists(file, group, names)


def read_columns(path: Path, names: Sequence[str]) -> pyarrow.Table:
    """Columns of a Parquet file, whole."""
    return parquet.read_table(path, columns=list(names), use_threads=False)


def number_of_rows(path: Path) -> int:
    """How many rows a Parquet file has, by its footer."""
    count: int = parquet.read_metadata(path).num_rows
    return count


def note_of(path: Path, name: str) -> str:
    """A note that was left in a Parquet file's footer."""
    note: bytes = parquet.read_metadata(path).metadata[name.encode()]
    return note.decode()


def _lists(file: parquet.ParquetFile, group: int, names: Sequence[str]) -> list[list[Any]]:
    table = file.read_row_group(group, columns=list(names), use_threads=False)
    return [table[name].to_pylist() for name in names]


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
