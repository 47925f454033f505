"""Tables as sources: Parquet, JSONL and Hugging Face datasets, a file of code a row.

Columns are StarCoderData's (``content``, ``max_stars_repo_path``,
``max_stars_repo_name``, ``max_stars_count``), The Stack's
(``max_stars_repo_licenses``), or a corpus's own (``content``, ``path``,
``package``, …). Rows are read a batch at a time; a row that names no license of
its own has the one given with ``--license``, or is set aside.

What it gives up: a row of JSON longer than 16 MiB is not read.
"""

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import CorpusError, MissingExtraError
from .decoding import SetAside, mended, normalized
from .licenses import canonical
from .notebooks import notebook_text
from .sources import MAX_MEMBER_BYTES, File

try:
    import pyarrow  # type: ignore[import-untyped]
    from pyarrow import parquet
except ModuleNotFoundError as error:
    raise MissingExtraError("reading tables", "corpus") from error

SUFFIXES = (".parquet", ".jsonl", ".jsonl.gz", ".jsonl.zst")

MAX_ROW_BYTES = 16 << 20
_BATCH_ROWS = 256

# What a file of code says, and the columns that may say it, the first found wins.
_COLUMNS: Mapping[str, Sequence[str]] = {
    "content": ("content",),
    "path": ("max_stars_repo_path", "path"),
    "package": ("max_stars_repo_name", "package", "repo_name"),
    "version": ("version", "max_stars_repo_head_hexsha"),
    "license": ("license", "max_stars_repo_licenses", "licenses"),
    "stars": ("max_stars_count", "stars"),
}

Row = Mapping[str, Any]


class Table:
    """An opened table: every row says its own package and license."""

    claims = None
    authors: frozenset[str] = frozenset()
    version = ""

    def __init__(self, name: str, rows: Iterator[Row | SetAside]) -> None:
        self.name, self._rows = name, rows

    def records(self) -> Iterator[File]:
        """A file for each row. Raises CorpusError where the table breaks off or has no code."""
        for number, row in enumerate(self._rows):
            if isinstance(row, SetAside):
                yield File(f"row-{number}", row)
                continue
            if "content" not in row:
                raise CorpusError(
                    f"{self.name}: no column 'content' but {', '.join(row) or 'none'}"
                )
            yield _file(number, row)


def open_table(path: Path) -> Table:
    """Raises CorpusError where a file is no Parquet and no lines of JSON."""
    return Table(path.name, rows_of(path))


def open_dataset(name: str, revision: str | None = None, split: str = "train") -> Table:
    """A dataset of a Hugging Face hub, or a local folder of one, streamed row by row.

    Raises MissingExtraError without the ``datasets`` package, CorpusError where
    the dataset cannot be reached or read.
    """
    try:
        import datasets  # type: ignore[import-not-found, unused-ignore]
    except ModuleNotFoundError as error:
        raise CorpusError(
            f"hf:{name}: reading a dataset by name needs a package: pip install datasets"
        ) from error

    def rows() -> Iterator[Row | SetAside]:
        try:
            yield from datasets.load_dataset(name, revision=revision, split=split, streaming=True)
        # The library raises what its file systems and its HTTP client raise.
        except Exception as error:
            raise CorpusError(f"hf:{name}: cannot be read: {_first_line(error)}") from error

    return Table(name, rows())


def rows_of(path: Path) -> Iterator[Row | SetAside]:
    """The rows of a Parquet or JSONL file. Raises CorpusError where it cannot be read."""
    try:
        yield from _parquet_rows(path) if path.suffix == ".parquet" else _json_rows(path)
    except (OSError, EOFError, pyarrow.ArrowException) as error:
        raise CorpusError(f"{path}: cannot be read as a table: {_first_line(error)}") from error


def _parquet_rows(path: Path) -> Iterator[Row]:
    with parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=_BATCH_ROWS):
            yield from batch.to_pylist()


def _json_rows(path: Path) -> Iterator[Row | SetAside]:
    with pyarrow.input_stream(str(path), compression="detect") as stream:
        buffered = io.BufferedReader(stream)
        while line := buffered.readline(MAX_ROW_BYTES):
            if len(line) == MAX_ROW_BYTES and not line.endswith(b"\n"):
                while len(buffered.readline(MAX_ROW_BYTES)) == MAX_ROW_BYTES:
                    pass
                yield SetAside("larger than 16 MiB")
            elif line.strip():
                yield _json_row(line)


def _json_row(line: bytes) -> Row | SetAside:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return SetAside("broken row")
    return row if isinstance(row, dict) else SetAside("broken row")


def _file(number: int, row: Row) -> File:
    fields = {name: _first(row, columns) for name, columns in _COLUMNS.items()}
    path = _name(fields["path"]) or f"row-{number}.py"
    return File(
        path,
        _content(path, fields["content"]),
        package=_name(fields["package"]),
        version=_name(fields["version"]),
        license=_license(fields["license"]),
        stars=_stars(fields["stars"]),
    )


def _first(row: Row, columns: Sequence[str]) -> Any:
    return next((row[name] for name in columns if row.get(name) is not None), None)


def _name(said: Any) -> str:
    return mended(str(said or ""))


def _stars(said: Any) -> int | None:
    """A count that a column of 64 bits holds, however it is spelled: pandas makes them floats."""
    try:
        count = int(said)
    except (TypeError, ValueError, OverflowError):
        return None
    return count if 0 <= count < 1 << 63 else None


def _content(path: str, content: Any) -> str | SetAside:
    if not isinstance(content, str):
        return SetAside("broken row")
    if len(content) > MAX_MEMBER_BYTES:
        return SetAside("larger than 8 MiB")
    try:
        return notebook_text(content.encode()) if path.endswith(".ipynb") else normalized(content)
    except SetAside as reason:
        return reason
    except UnicodeEncodeError:
        return SetAside("wrong encoding")


def _license(said: Any) -> str:
    """An expression, or a list of ids that hold together; nothing where one is unknown."""
    names = said if isinstance(said, list) else [said]
    try:
        return " AND ".join(sorted({canonical(str(name)) for name in names if name}))
    except CorpusError:
        return ""


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
