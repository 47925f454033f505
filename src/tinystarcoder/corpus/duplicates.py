"""Duplicates in a whole build: keys and sketches gathered into files, compared, judged.

Every part (one source's documents, see ``pipeline.py``) has columns for it. Rows
are numbered over all parts in order; the lowest of what is alike is kept. Memory
does not grow with the texts: what grows lies in files, 600 bytes a document and
4 a different 5-gram, and is memory-mapped.
"""

import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow  # type: ignore[import-untyped]
from numpy.typing import NDArray

from ..files import atomic_file
from . import dedup
from .grouping import Forest, mapped
from .near_dedup import BANDS, PERMUTATIONS, Sketch, SketchFiles
from .parquet import rows_of

FIELDS = (
    pyarrow.field("key", pyarrow.binary(dedup.KEY_BYTES)),
    pyarrow.field("bands", pyarrow.binary(8 * BANDS)),
    pyarrow.field("agreement", pyarrow.binary(PERMUTATIONS)),
    pyarrow.field("grams", pyarrow.binary()),
)

BANDS_A_TASK = 3
TASKS = BANDS // BANDS_A_TASK
"""Of comparing."""

KEPT = 0
REASONS = (
    "",
    "near duplicate",
    "near duplicate of excluded",
    "exact duplicate",
    "exact duplicate of excluded",
)
"""What the codes of :func:`judge` mean."""


def columns_of(texts: Sequence[str], *, near: bool) -> list[Sequence[bytes | None]]:
    """The columns FIELDS of some documents; without ``near`` the keys alone."""
    keys = [dedup.content_key(text) for text in texts]
    if not near:
        return [keys, *[[None] * len(texts)] * 3]
    sketches = [Sketch.of(text) for text in texts]
    return [
        keys,
        [sketch.bands.astype("<u8").tobytes() for sketch in sketches],
        [sketch.agreement.tobytes() for sketch in sketches],
        [sketch.grams.astype("<u4").tobytes() for sketch in sketches],
    ]


def gather(parts: Iterable[Path], folder: Path) -> None:
    """Writes what all parts say into a new ``folder``, which appears when it is whole."""
    staging = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    with (staging / "keys.u64").open("wb") as keys, (staging / "rows.i64").open("wb") as rows:
        SketchFiles.write(_sketches(parts, keys, rows), staging / "sketches")
    staging.rename(folder)


def compare(folder: Path, task: int, output: Path) -> None:
    """Writes the pairs of rows [M, 2] that are similar and met in one of a task's bands."""
    rows = mapped(folder / "rows.i64", "<i8")
    sketches = SketchFiles(folder / "sketches")
    bands = range(task * BANDS_A_TASK, (task + 1) * BANDS_A_TASK)
    pairs = np.concatenate([sketches.similar_pairs(band) for band in bands])
    with atomic_file(output) as stream:
        np.save(stream, rows[pairs])


def judge(folder: Path, pairs: Iterable[Path], excluded: int) -> NDArray[np.uint8]:
    """The code of each row's reason; the first ``excluded`` rows are of excluded sources."""
    keys = mapped(folder / "keys.u64", "<u8").reshape(-1, 2)
    exact = _forest(folder / "exact.i64", len(keys))
    near = _forest(folder / "near.i64", len(keys))
    dedup.join_equal(keys, exact)
    for path in pairs:
        near.join(*np.load(path).T)
    codes = np.zeros(len(keys), dtype=np.uint8)
    for start in range(0, len(keys), 1 << 20):
        rows = np.arange(start, min(start + (1 << 20), len(keys)))
        for forest, code in ((near, 1), (exact, 3)):
            roots = forest.find(rows)
            codes[rows[roots != rows]] = code
            codes[rows[(roots != rows) & (roots < excluded)]] = code + 1
    return codes


def _sketches(parts: Iterable[Path], keys: IO[bytes], rows: IO[bytes]) -> Iterator[list[Sketch]]:
    """The sketches of documents with 5-grams; keys and row numbers go into their files."""
    read = np.frombuffer
    count = 0
    for part in parts:
        for columns in rows_of(part, [field.name for field in FIELDS]):
            keys.write(b"".join(columns[0]))
            sketched = [row for row, grams in enumerate(columns[3]) if grams]
            rows.write(np.array([count + row for row in sketched], dtype="<i8").tobytes())
            count += len(columns[0])
            if sketched:
                yield [
                    Sketch(
                        read(columns[1][row], "<u8"),
                        read(columns[2][row], np.uint8),
                        read(columns[3][row], "<u4"),
                    )
                    for row in sketched
                ]


def _forest(path: Path, count: int) -> Forest:
    """0 … N-1 in a file, so that it may exceed memory."""
    np.arange(count, dtype="<i8").tofile(path)
    return Forest(mapped(path, "<i8", "r+"))
