"""From sources to a corpus folder: read, license, filter, deduplicate, write.

    each source, on all cores     open -> license -> filters -> redaction if asked for
                                  -> part (text, key, signature)
    all parts together            exact duplicates -> near duplicates -> shards + manifest

Parts are Parquet files in ``OUTPUT.partial``, named by everything that they
depend on: a build that was killed and is started again reads those that are
whole and makes the others. The output folder appears in one rename, finished.
Its content depends on the sources, their order and the settings, never on the
number of workers.

What it gives up: keys and signatures of all documents are held in memory (1 KiB
a document); texts are not.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow  # type: ignore[import-untyped]
from numpy.typing import NDArray
from pyarrow import parquet

from .. import __version__
from ..errors import CorpusError
from ..files import atomic_file, write_atomically
from . import dedup, filters, near_dedup, redaction, sources
from .document import Document
from .licenses import PERMISSIVE, canonical, decide
from .parquet import (
    BATCH,
    COLUMNS,
    MANIFEST,
    SCHEMA,
    documents_of,
    sha256_of,
    table_of,
    write_documents,
)

FORMAT = 2
EXAMPLES = 3

Progress = Callable[[str, int, int], None]
"""Called with a stage's name, and how much of how much of it is done."""

_PART_SCHEMA = pyarrow.schema(
    [
        *SCHEMA,
        pyarrow.field("key", pyarrow.binary(dedup.KEY_BYTES)),
        pyarrow.field("signature", pyarrow.binary(4 * near_dedup.PERMUTATIONS)),
        pyarrow.field("bytes", pyarrow.int64()),
    ]
)


@dataclass(frozen=True)
class Settings:
    """What a build may be told."""

    license: str | None = None
    """SPDX expression of folders that have no license of their own."""
    skipped: tuple[str, ...] = ()
    """Names of folders that are left out of folder sources, besides the usual ones."""
    near_dedup: bool = True
    redact: bool = False
    """Replace personal data and secrets, in the excluded sources too: copies stay copies."""


@dataclass
class Drops:
    """Files set aside, by reason: how many, their bytes of text, and the first few paths."""

    files: dict[str, int] = field(default_factory=dict)
    bytes: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, reason: str, path: str, size: int) -> None:
        self.files[reason] = self.files.get(reason, 0) + 1
        self.bytes[reason] = self.bytes.get(reason, 0) + size
        examples = self.examples.setdefault(reason, [])
        if len(examples) < EXAMPLES:
            examples.append(path)

    def summary(self) -> dict[str, dict[str, Any]]:
        return {
            reason: {
                "files": self.files[reason],
                "bytes": self.bytes[reason],
                "examples": self.examples[reason],
            }
            for reason in sorted(self.files)
        }


@dataclass
class Report:
    """What became of one source: goes into the manifest, package by package."""

    source: str
    package: str = ""
    version: str = ""
    license: str = ""
    sha256: str = ""
    set_aside: str | None = None
    read_files: int = 0
    read_bytes: int = 0
    files: int = 0
    bytes: int = 0
    redacted: dict[str, int] = field(default_factory=dict)
    """How many of each kind, in the files that passed the filters."""
    dropped: Drops = field(default_factory=Drops)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"dropped": self.dropped.summary()}


def build_corpus(
    source_paths: Sequence[Path],
    output: Path,
    *,
    settings: Settings = Settings(),
    excluded: Sequence[Path] = (),
    jobs: int = 1,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Builds ``output`` and returns its manifest.

    Documents of the ``excluded`` sources, whatever their license, never enter:
    neither their packages in any version nor near duplicates of their files.

    Raises CorpusError for a source that is no wheel, sdist or folder, an output
    that exists, or where nothing is left. A broken archive is set aside.
    """
    if output.exists():
        raise CorpusError(f"{output}: exists; remove it or choose another --output")
    settings = Settings(**asdict(settings) | {"license": _checked(settings.license)})
    for path in (*source_paths, *excluded):
        sources.kind_of(path)
    # Excluded sources come first, so that their files win over every copy; then they go.
    tasks = [_Task(path, settings, raw=True) for path in dict.fromkeys(excluded)]
    firsts = len(tasks)
    tasks += [_Task(path, settings) for path in dict.fromkeys(source_paths)]
    try:
        return _build(tasks, firsts, output, settings, jobs, progress or (lambda *_: None))
    except OSError as error:
        raise CorpusError(f"{output}: cannot be built: {error}") from error


def _build(
    tasks: list["_Task"],
    firsts: int,
    output: Path,
    settings: Settings,
    jobs: int,
    progress: Progress,
) -> dict[str, Any]:
    """Builds from ``tasks``, the first ``firsts`` of which are excluded sources."""
    partial = output.with_name(output.name + ".partial")
    parts = _make_parts(tasks, partial / "parts", jobs, progress)
    reports = [_report_of(part) for part in parts]
    _set_aside_excluded(reports, firsts)
    progress("finding duplicates", 0, 1)
    kept = _kept(parts, reports, firsts, settings)
    progress("finding duplicates", 1, 1)

    staging = partial / "corpus"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    shards = write_documents(_survivors(parts, reports, kept, progress), staging)
    if not shards:
        reasons = [report.set_aside for report in reports[firsts:] if report.set_aside]
        raise CorpusError(
            f"nothing is left of {len(reports) - firsts} sources: "
            f"{reasons[0] if reasons else 'every file was set aside'}"
        )
    manifest = _manifest(reports[firsts:], reports[:firsts], shards, settings)
    write_atomically(staging / MANIFEST, (json.dumps(manifest, indent=1) + "\n").encode())
    staging.rename(output)
    shutil.rmtree(partial, ignore_errors=True)
    return manifest


@dataclass(frozen=True)
class _Task:
    """One source to be made a part. ``raw`` takes every file that can be read, unjudged."""

    path: Path
    settings: Settings
    raw: bool = False

    def key(self) -> str:
        """Changes with everything that the part depends on."""
        if self.path.is_dir():
            skipped = sources.SKIPPED_FOLDERS.union(self.settings.skipped)
            files = [self.path / name for name in sources.names_in(self.path, skipped)]
        else:
            files = [self.path]
        stats = [(str(file), file.lstat().st_size, file.lstat().st_mtime_ns) for file in files]
        rules = asdict(self.settings) | _thresholds()
        facts = (FORMAT, __version__, rules, self.raw, stats)
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def _make_parts(tasks: list[_Task], folder: Path, jobs: int, progress: Progress) -> list[Path]:
    """Makes those parts that are not there yet, the largest sources first."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = [folder / f"{task.key()}.parquet" for task in tasks]
    missing = [(task, part) for task, part in zip(tasks, parts, strict=True) if not part.exists()]
    missing.sort(key=lambda pair: -pair[0].path.stat().st_size)
    there = len(tasks) - len(missing)
    progress("reading sources", there, len(tasks))
    for done in _on_all_cores(missing, jobs):
        progress("reading sources", there + done, len(tasks))
    return parts


def _on_all_cores(work: list[tuple[_Task, Path]], jobs: int) -> Iterator[int]:
    """Makes parts in worker processes; yields how many are made."""
    if jobs == 1 or len(work) <= 1:
        for done, (task, part) in enumerate(work, 1):
            _make_part(task, part)
            yield done
        return
    pool = ProcessPoolExecutor(min(jobs, len(work)), mp_context=get_context("spawn"))
    try:
        futures = [pool.submit(_make_part, task, part) for task, part in work]
        for done, future in enumerate(as_completed(futures), 1):
            future.result()
            yield done
    except BrokenProcessPool as error:
        raise CorpusError(
            "a worker died, perhaps for want of memory; start again with a smaller --jobs: "
            "what is finished is kept"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _make_part(task: _Task, part: Path) -> None:
    """Reads, judges and filters one source, and writes what is left with its report."""
    report = Report(source=task.path.name)
    rest = _documents(task, report)
    with (
        atomic_file(part) as stream,
        parquet.ParquetWriter(stream, _PART_SCHEMA, compression="zstd") as writer,
    ):
        while batch := list(islice(rest, BATCH)):
            keys = [dedup.content_key(document.text) for document in batch]
            signatures = [near_dedup.signature(document.text).tobytes() for document in batch]
            sizes = [len(document.text.encode()) for document in batch]
            columns = [*table_of(batch).columns, keys, signatures, sizes]
            writer.write_table(pyarrow.table(columns, schema=_PART_SCHEMA))
        writer.add_key_value_metadata({"report": json.dumps(asdict(report))})


def _documents(task: _Task, report: Report) -> Iterator[Document]:
    """The documents of one source that pass, the others noted in ``report``."""
    try:
        package = sources.open_package(
            task.path, sources.SKIPPED_FOLDERS.union(task.settings.skipped)
        )
    except CorpusError as error:
        if task.raw:  # An exclusion that cannot be honoured must not be passed over.
            raise
        report.set_aside = str(error).removeprefix(f"{task.path}: ")
        return
    report.package, report.version = package.name, package.version
    if task.path.is_file():
        report.sha256 = sha256_of(task.path)
    folder = task.path.is_dir()
    verdict = decide(package.claims, fallback=task.settings.license if folder else None)
    report.license = verdict.license
    if verdict.reason and not task.raw:
        report.set_aside = verdict.reason
        return
    for path, text in package.files():
        report.read_files += 1
        if isinstance(text, sources.SetAside):
            report.dropped.add(str(text), path, 0)
            continue
        size = len(text.encode())
        report.read_bytes += size
        document = Document(text, path, package.name, package.version, verdict.license)
        reason = None if task.raw else filters.reason_against(document)
        if reason is None and task.settings.redact:
            document, counts = _redacted(document)
            # A product of matrices may look like an address: x@w.me
            if counts and not task.raw and filters.not_python3(document):
                reason = "redaction broke it"
            else:
                for kind, count in counts.items():
                    report.redacted[kind] = report.redacted.get(kind, 0) + count
        if reason:
            report.dropped.add(reason, path, size)
        else:
            yield document


def _redacted(document: Document) -> tuple[Document, dict[str, int]]:
    text, counts = redaction.redact(document.text)
    return replace(document, text=text), counts


def _set_aside_excluded(reports: list[Report], firsts: int) -> None:
    """An excluded package must not enter in any version."""
    names = {_normal(report.package) for report in reports[:firsts]}
    for report in reports[firsts:]:
        if report.set_aside is None and _normal(report.package) in names:
            report.set_aside = "excluded package"


def _kept(
    parts: list[Path], reports: list[Report], firsts: int, settings: Settings
) -> list[NDArray[np.bool_]]:
    """For each part, which rows stay; duplicates go into their package's report."""
    columns = ["path", "key", "signature", "bytes"]
    tables = [parquet.read_table(part, columns=columns) for part in parts]
    tables = [
        table if report.set_aside is None else table.slice(0, 0)
        for table, report in zip(tables, reports, strict=True)
    ]
    offsets = np.cumsum([0, *map(len, tables)])
    excluded = int(offsets[firsts])
    reasons = _duplicates(pyarrow.concat_tables(tables), excluded, settings.near_dedup)
    kept = []
    for index, (table, report) in enumerate(zip(tables, reports, strict=True)):
        of_part = reasons[offsets[index] : offsets[index + 1]]
        if index >= firsts:
            for row in np.flatnonzero(of_part != ""):
                path, size = (table[name][int(row)].as_py() for name in ("path", "bytes"))
                report.dropped.add(str(of_part[row]), path, size)
        kept.append((of_part == "") & (index >= firsts))
    return kept


def _duplicates(table: pyarrow.Table, excluded: int, near: bool) -> NDArray[np.str_]:
    """Why each document is a duplicate of an earlier one; empty where it is none.

    The first ``excluded`` documents are those of the excluded sources.
    """
    roots = np.array(dedup.first_of_each(table["key"].to_pylist()), dtype=np.int64)
    unique = np.flatnonzero(roots == np.arange(len(roots)))
    reasons = np.full(len(roots), "exact duplicate", dtype="<U27")
    reasons[roots < excluded] = "exact duplicate of excluded"
    reasons[unique] = ""
    if near and len(unique):
        signatures = np.frombuffer(b"".join(table["signature"].take(unique).to_pylist()), "<u4")
        roots = unique[near_dedup.components(signatures.reshape(len(unique), -1))]
        reasons[unique[roots != unique]] = "near duplicate"
        reasons[unique[(roots != unique) & (roots < excluded)]] = "near duplicate of excluded"
    return reasons


def _survivors(
    parts: list[Path],
    reports: list[Report],
    kept: list[NDArray[np.bool_]],
    progress: Progress,
) -> Iterator[Document]:
    """The documents that stay, in order, counted into their package's report."""
    for index, (part, report, stays) in enumerate(zip(parts, reports, kept, strict=True), 1):
        progress("writing", index, len(parts))
        if not stays.any():
            continue
        for document, stay in zip(documents_of(part), stays, strict=True):
            if stay:
                report.files += 1
                report.bytes += len(document.text.encode())
                yield document


def _report_of(part: Path) -> Report:
    fields = json.loads(parquet.read_metadata(part).metadata[b"report"])
    return Report(**fields | {"dropped": Drops(**fields["dropped"])})


def _manifest(
    reports: list[Report], excluded: list[Report], shards: list[dict[str, Any]], settings: Settings
) -> dict[str, Any]:
    """Everything about the corpus but its text."""
    licenses: dict[str, dict[str, int]] = {}
    dropped: dict[str, int] = {}
    dropped_bytes: dict[str, int] = {}
    set_aside: dict[str, int] = {}
    redacted = dict.fromkeys(redaction.KINDS, 0) if settings.redact else {}
    for report in reports:
        if report.set_aside is not None:
            reason = report.set_aside.split(":")[0]
            set_aside[reason] = set_aside.get(reason, 0) + 1
            continue
        entry = licenses.setdefault(report.license, {"packages": 0, "files": 0, "bytes": 0})
        entry["packages"] += 1
        entry["files"] += report.files
        entry["bytes"] += report.bytes
        for reason, count in report.dropped.files.items():
            dropped[reason] = dropped.get(reason, 0) + count
        for reason, size in report.dropped.bytes.items():
            dropped_bytes[reason] = dropped_bytes.get(reason, 0) + size
        for kind, count in report.redacted.items():
            redacted[kind] += count
    return {
        "format": FORMAT,
        "tinystarcoder": __version__,
        "columns": list(COLUMNS),
        "totals": {
            "packages": sum(report.files > 0 for report in reports),
            "files": sum(report.files for report in reports),
            "bytes": sum(report.bytes for report in reports),
            "read_files": sum(report.read_files for report in reports),
            "read_bytes": sum(report.read_bytes for report in reports),
        },
        "licenses": dict(sorted(licenses.items(), key=lambda item: -item[1]["bytes"])),
        "dropped_files": dict(sorted(dropped.items(), key=lambda item: -item[1])),
        "dropped_bytes": dict(sorted(dropped_bytes.items(), key=lambda item: -item[1])),
        "redacted": redacted,
        "packages_set_aside": dict(sorted(set_aside.items(), key=lambda item: -item[1])),
        "settings": asdict(settings) | _thresholds(),
        "excluded": [f"{report.package} {report.version}" for report in excluded],
        "shards": shards,
        "packages": [report.as_dict() for report in reports],
    }


def _thresholds() -> dict[str, Any]:
    named = {name: value for name, value in vars(filters).items() if name[:4] in ("MIN_", "MAX_")}
    return {
        "filters": [keep.__name__ for keep in filters.FILTERS],
        "thresholds": {name.lower(): value for name, value in named.items()},
        "minhash": {
            "ngram": near_dedup.NGRAM,
            "permutations": near_dedup.PERMUTATIONS,
            "bands": near_dedup.BANDS,
            "rows": near_dedup.ROWS,
            "jaccard": near_dedup.THRESHOLD,
        },
        "permissive_licenses": sorted(PERMISSIVE),
    }


def _checked(license_: str | None) -> str | None:
    return None if license_ is None else canonical(license_)


def _normal(package: str) -> str:
    """A project's name as package indexes compare it."""
    return package.lower().replace("_", "-").replace(".", "-")
