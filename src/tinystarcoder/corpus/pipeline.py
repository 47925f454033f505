"""From sources to a corpus folder: read, license, filter, deduplicate, write.

``STEPS`` below is the pipeline. Reading makes of each source a part: a Parquet
file of the documents that license and filters let pass, their keys and
sketches, and a report on those that they did not. ``duplicates.py`` tells what
is alike over all parts; what is left is written as shards beside a manifest.

Everything up to the last rename lies in ``OUTPUT.partial``, named by all that it
depends on: a build that was killed and is started again takes what is whole and
makes the rest. The output folder appears finished. Its content depends on the
sources, their order and the settings, never on the number of workers.

Memory is bounded, whatever the size of the sources: by a batch of documents in
each worker, and by what ``grouping.py`` sorts at once.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from itertools import compress
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow  # type: ignore[import-untyped]
from numpy.typing import NDArray
from packaging.utils import canonicalize_name

from .. import __version__
from ..errors import CorpusError
from ..files import write_atomically
from . import duplicates, filters, near_dedup, parquet, quality, redaction
from .decoding import SetAside
from .document import Document, batches
from .licenses import PERMISSIVE, Verdict, canonical, decide
from .open_source import Source, fetched, find_source
from .opt_out import REASON as OPTED_OUT
from .parquet import COLUMNS, MANIFEST, SCHEMA, new_file, sha256_of, table_of
from .pypi import default_cache
from .settings import Settings
from .sources import SKIPPED_FOLDERS, Opened
from .stages import Stages
from .steps import Progress, Step, run_steps

FORMAT = 2
DEFAULTS = Settings()
EXAMPLES = 3

_BYTES = pyarrow.field("bytes", pyarrow.int64())
_PART_SCHEMA = pyarrow.schema([*SCHEMA, _BYTES, *duplicates.FIELDS])


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
    licenses: dict[str, dict[str, int]] = field(default_factory=dict)
    """Files and bytes that stay, by license: a file may have one of its own."""
    redacted: dict[str, int] = field(default_factory=dict)
    """How many of each kind, in the files that passed the filters."""
    dropped: Drops = field(default_factory=Drops)

    @classmethod
    def of(cls, fields: dict[str, Any]) -> "Report":
        """The report whose ``asdict`` these are."""
        return cls(**fields | {"dropped": Drops(**fields["dropped"])})

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"dropped": self.dropped.summary()}


def build_corpus(
    said_sources: Sequence[str | Path],
    output: Path,
    *,
    settings: Settings = DEFAULTS,
    excluded: Sequence[str | Path] = (),
    cache: Path | None = None,
    jobs: int = 1,
    announce: Callable[[Sequence[str]], None] | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Builds ``output`` and returns its manifest.

    What a source may be tells ``open_source.py``; packages by name are downloaded
    into ``cache``, once ``announce`` was told which. Documents of the ``excluded``
    sources, whatever their license, never enter: neither their packages in any
    version nor near duplicates of their files.

    Raises CorpusError for what is no source, an output that exists, or where
    nothing is left. A broken archive is set aside.
    """
    build = prepare_build(
        said_sources,
        output,
        settings=settings,
        excluded=excluded,
        cache=cache,
        announce=announce,
        progress=progress,
    )
    try:
        run_steps(STEPS, build, jobs, progress)
    except OSError as error:
        raise CorpusError(f"{output}: cannot be built: {error}") from error
    return parquet.read_manifest(output)


def prepare_build(
    said_sources: Sequence[str | Path],
    output: Path,
    *,
    settings: Settings = DEFAULTS,
    excluded: Sequence[str | Path] = (),
    cache: Path | None = None,
    announce: Callable[[Sequence[str]], None] | None = None,
    progress: Progress | None = None,
) -> "Build":
    """Finds the sources of a build and checks what it is told: the job of STEPS."""
    if output.exists():
        raise CorpusError(f"{output}: exists; remove it or choose another --output")
    settings = replace(settings, license=_checked(settings.license))
    Stages(settings)  # A list that cannot be read is an error now, not in a worker.
    downloads = partial(progress or (lambda *_: None), "downloading")
    # Excluded sources come first, so that their files win over every copy; then they go.
    said = [[find_source(text) for text in texts] for texts in (excluded, said_sources)]
    _check_license_is_used(settings.license, said[1])
    names = [source for sources in said for source in sources if isinstance(source, str)]
    if names and announce is not None:
        announce(list(dict.fromkeys(names)))
    first, rest = (fetched(found, cache or default_cache(), downloads) for found in said)
    firsts = len(first)
    tasks = [_Task(source, settings, n < firsts) for n, source in enumerate([*first, *rest])]
    return Build(tuple(tasks), firsts, output, settings)


def _check_license_is_used(license_: str | None, sources: Sequence[Source | str]) -> None:
    """Who gives a license means a folder or a file: packages alone are mistyped ones, perhaps."""
    names = [source for source in sources if isinstance(source, str)]
    if license_ and names and len(names) == len(sources):
        raise CorpusError(
            f"--license {license_} speaks for files and folders, not for packages by name, and "
            f"there is no {' or '.join(names)} here: name what exists, or leave --license out"
        )


@dataclass(frozen=True)
class _Task:
    """One source to be made a part. ``raw`` takes every file that can be read, unjudged."""

    source: Source
    settings: Settings
    raw: bool = False

    @property
    def skipped(self) -> frozenset[str]:
        return SKIPPED_FOLDERS.union(self.settings.skipped)

    def key(self) -> str:
        """Changes with everything that the part depends on."""
        rules = self.settings.facts() | _thresholds()
        facts = (FORMAT, __version__, rules, self.raw, self.source.facts(self.skipped))
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Build:
    """One build: what it is made of, and where its files lie. The job of all STEPS."""

    tasks: tuple[_Task, ...]
    firsts: int
    """So many tasks, the first ones, are excluded sources."""
    output: Path
    settings: Settings

    @cached_property
    def partial(self) -> Path:
        return self.output.with_name(self.output.name + ".partial")

    @cached_property
    def parts(self) -> list[Path]:
        """The file of each source's documents."""
        return [self.partial / "parts" / f"{task.key()}.parquet" for task in self.tasks]

    @cached_property
    def work(self) -> Path:
        """Where the steps after the first write: changes with any part."""
        names = "".join([str(self.firsts), *(part.name for part in self.parts)])
        return self.partial / hashlib.sha256(names.encode()).hexdigest()[:16]

    @property
    def gathered(self) -> list[Path]:
        """The folder of all keys and sketches."""
        return [self.work / "duplicates"]

    @property
    def pairs(self) -> list[Path]:
        """The similar pairs that some bands find."""
        tasks = duplicates.TASKS if self.settings.near_dedup else 0
        return [self.work / f"pairs-{task:02}.npy" for task in range(tasks)]

    @property
    def chosen(self) -> list[Path]:
        """What stays, and in which shard."""
        return [self.work / "plan.json"]

    @property
    def shards(self) -> list[Path]:
        """The Parquet files of the corpus, before they take their place."""
        return [self.work / "corpus" / shard["file"] for shard in self.plan()["shards"]]

    @property
    def finished(self) -> list[Path]:
        """The corpus."""
        return [self.output]

    def plan(self) -> dict[str, Any]:
        """``reports`` and ``shards``, as :func:`_choose` wrote them."""
        plan: dict[str, Any] = json.loads(self.chosen[0].read_text(encoding="utf-8"))
        return plan

    def reports(self) -> list[Report]:
        """What the parts say of themselves; excluded packages set aside in every version."""
        reports = [Report.of(json.loads(parquet.note_of(part, "report"))) for part in self.parts]
        names = {canonicalize_name(report.package) for report in reports[: self.firsts]}
        for report in reports[self.firsts :]:
            if report.set_aside is None and canonicalize_name(report.package) in names:
                report.set_aside = "excluded package"
        return reports


def _read(build: Build, task: int) -> None:
    """Reads, judges and filters one source: a part, with its report."""
    report = Report(source=build.tasks[task].source.name)
    rest = _documents(build.tasks[task], report)
    with new_file(build.parts[task], _PART_SCHEMA) as writer:
        for batch in batches(rest):
            texts = [document.text for document in batch]
            sizes = [len(text.encode()) for text in texts]
            alike = duplicates.columns_of(texts, near=build.settings.near_dedup)
            columns = [*table_of(batch).columns, sizes, *alike]
            writer.write_table(pyarrow.table(columns, schema=_PART_SCHEMA))
        writer.add_key_value_metadata({"report": json.dumps(asdict(report))})


def _gather(build: Build, _: int) -> None:
    """Brings the keys and sketches of all parts together."""
    parts = zip(build.parts, build.reports(), strict=True)
    used = (part for part, report in parts if report.set_aside is None)
    duplicates.gather(used, build.gathered[0])


def _compare(build: Build, task: int) -> None:
    """Finds near duplicates among what meets in some bands."""
    duplicates.compare(build.gathered[0], task, build.pairs[task])


def _choose(build: Build, _: int) -> None:
    """Decides which documents stay, and in which shard; duplicates go into the reports."""
    reports = build.reports()
    sizes = [
        0 if report.set_aside is not None else parquet.number_of_rows(part)
        for part, report in zip(build.parts, reports, strict=True)
    ]
    end = sum(sizes[: build.firsts])
    codes = duplicates.judge(build.gathered[0], build.pairs, excluded=end)
    shards: list[dict[str, Any]] = []
    written = 0
    for index in range(build.firsts, len(reports)):
        start, end = end, end + sizes[index]
        if start < end:
            pieces = _account(build.parts[index], reports[index], codes[start:end], written)
            for number, piece in pieces:
                _plan(shards, number, {"part": index, "offset": start} | piece)
            written += reports[index].bytes
    if not shards:
        raise CorpusError(_nothing_left(reports[build.firsts :]))
    codes.tofile(build.work / "codes.u8")
    for number, shard in enumerate(shards):
        shard["file"] = f"documents-{number:05}.parquet"
    plan = {"reports": [asdict(report) for report in reports], "shards": shards}
    write_atomically(build.chosen[0], json.dumps(plan).encode())


def _account(
    part: Path, report: Report, codes: NDArray[np.uint8], written: int
) -> Iterator[tuple[int, dict[str, int]]]:
    """Counts what stays of a part, and cuts it where a shard ends.

    Yields the number of a shard, and the rows that come to stand in it. A document
    belongs to the shard in which its first byte falls.
    """
    table = parquet.read_columns(part, ["path", "license", "bytes"])
    sizes = table["bytes"].to_numpy()
    for row in np.flatnonzero(codes != duplicates.KEPT):
        reason, path = duplicates.REASONS[codes[row]], table["path"][int(row)].as_py()
        report.dropped.add(reason, path, int(sizes[row]))
    rows = np.flatnonzero(codes == duplicates.KEPT)
    ends = np.cumsum(sizes[rows])
    report.files, report.bytes = len(rows), int(sizes[rows].sum())
    for license_, size in zip(table["license"].take(rows).to_pylist(), sizes[rows], strict=True):
        entry = report.licenses.setdefault(license_, {"files": 0, "bytes": 0})
        entry["files"] += 1
        entry["bytes"] += int(size)
    numbers = (written + ends - sizes[rows]) // parquet.SHARD_BYTES
    for number in np.unique(numbers):
        inside = rows[numbers == number]
        yield (
            int(number),
            {
                "first": int(inside[0]),
                "end": int(inside[-1]) + 1,
                "documents": len(inside),
                "bytes": int(sizes[inside].sum()),
            },
        )


def _plan(shards: list[dict[str, Any]], number: int, piece: dict[str, int]) -> None:
    """Adds a piece to the shard that is being filled, or begins the next."""
    if not shards or shards[-1]["number"] != number:
        shards.append({"number": number, "pieces": []})
    shards[-1]["pieces"].append(piece)


def _write(build: Build, task: int) -> None:
    """Writes one shard of the corpus."""
    codes = np.memmap(build.work / "codes.u8", dtype=np.uint8, mode="r")
    with new_file(build.shards[task]) as writer:
        for batch in batches(_survivors(build, build.plan()["shards"][task], codes)):
            writer.write_table(table_of(batch))


def _survivors(build: Build, shard: dict[str, Any], codes: NDArray[np.uint8]) -> Iterator[Document]:
    """The documents of one shard, in order."""
    for piece in shard["pieces"]:
        stays = codes[piece["offset"] :][piece["first"] : piece["end"]] == duplicates.KEPT
        rows = parquet.documents_of(build.parts[piece["part"]], piece["first"], piece["end"])
        yield from compress(rows, stays)


def _finish(build: Build, _: int) -> None:
    """Writes the manifest and gives the corpus its name."""
    plan, staging = build.plan(), build.shards[0].parent
    reports = [Report.of(fields) for fields in plan["reports"]]
    shards = [
        {
            "file": shard["file"],
            "documents": sum(piece["documents"] for piece in shard["pieces"]),
            "bytes": sum(piece["bytes"] for piece in shard["pieces"]),
            "sha256": sha256_of(staging / shard["file"]),
        }
        for shard in plan["shards"]
    ]
    manifest = _manifest(reports[build.firsts :], reports[: build.firsts], shards, build.settings)
    write_atomically(staging / MANIFEST, (json.dumps(manifest, indent=1) + "\n").encode())
    for left in staging.glob(".*.tmp"):  # By a writer that was killed.
        left.unlink()
    staging.rename(build.output)
    shutil.rmtree(build.partial, ignore_errors=True)


def _size(build: Build, task: int) -> int:
    return build.tasks[task].source.size()


# The pipeline: each step's name, the files that its tasks make, and what makes them.
STEPS: Sequence[Step[Build]] = (
    Step("reading sources", attrgetter("parts"), _read, _size),
    Step("gathering sketches", attrgetter("gathered"), _gather),
    Step("comparing", attrgetter("pairs"), _compare),
    Step("choosing", attrgetter("chosen"), _choose),
    Step("writing", attrgetter("shards"), _write),
    Step("finishing", attrgetter("finished"), _finish),
)


def _documents(task: _Task, report: Report) -> Iterator[Document]:
    """The documents of one source that pass, the others noted in ``report``.

    A source that breaks off is set aside whole: what it gave before does not count.
    """
    try:
        yield from _judged(task, report)
    except CorpusError as error:
        # An exclusion that cannot be honoured must not be passed over, nor a hub out of reach.
        if task.raw or task.source.kind == "dataset":
            raise
        report.set_aside = str(error).removeprefix(f"{task.source.path}: ")


def _judged(task: _Task, report: Report) -> Iterator[Document]:
    """The documents of one source whose license lets it in. Raises CorpusError where it breaks."""
    opened = task.source.open(task.skipped)
    report.package, report.version = opened.name, opened.version
    if task.source.path.is_file():
        report.sha256 = sha256_of(task.source.path)
    lent = task.settings.license if task.source.borrows_license else None
    verdict = Verdict(lent or "") if opened.claims is None else decide(opened.claims, lent)
    report.license = verdict.license
    stages = Stages(task.settings, task.raw)
    if not task.raw:
        out = stages.opt_outs.wants_out(opened.name, opened.authors)
        report.set_aside = OPTED_OUT if out else verdict.reason
    if report.set_aside is None:
        yield from _passed(opened, verdict.license, stages, report)
        report.redacted = dict(stages.redacted)


def _passed(opened: Opened, license_: str, stages: Stages, report: Report) -> Iterator[Document]:
    """What all stages pass on of an opened source."""
    for file in opened.records():
        report.read_files += 1
        if isinstance(file.content, SetAside):
            report.dropped.add(str(file.content), file.path, 0)
            continue
        size = len(file.content.encode())
        report.read_bytes += size
        document = Document(
            text=file.content,
            path=file.path,
            package=file.package or opened.name,
            version=file.version or opened.version,
            license=file.license or license_,
            stars=file.stars,
        )
        passed = stages(document)
        if isinstance(passed, SetAside):
            report.dropped.add(str(passed), file.path, size)
        else:
            yield passed


def _nothing_left(reports: list[Report]) -> str:
    """What became of the first source, which is all of them where it is mistyped or broken."""
    first, more = reports[0], len(reports) - 1
    why = first.set_aside or "no Python file in it"
    if not first.set_aside and first.dropped.files:
        reason = max(first.dropped.files, key=lambda name: first.dropped.files[name])
        count, example = first.dropped.files[reason], first.dropped.examples[reason][0]
        why = f"{count} of {first.read_files} files dropped, such as {example}: {reason}"
    others = f", nor of {more} more" if more else ""
    return f"nothing is left of {first.source}{others}: {why}"


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
        for license_, counts in report.licenses.items():
            entry = licenses.setdefault(license_, {"packages": 0, "files": 0, "bytes": 0})
            entry["packages"] += 1
            entry["files"] += counts["files"]
            entry["bytes"] += counts["bytes"]
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
        "settings": settings.facts() | _thresholds(),
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
        "quality": quality.WEIGHTS,
        "permissive_licenses": sorted(PERMISSIVE),
    }


def _checked(license_: str | None) -> str | None:
    return None if license_ is None else canonical(license_)
