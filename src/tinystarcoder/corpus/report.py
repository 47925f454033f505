"""A corpus described from its manifest: one HTML page with plots, and the same as Markdown.

The page stands by itself: plots are SVG inside of it, and nothing is loaded.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

EXAMPLES = 4
LARGEST = 30

_COUNTS = ("dropped_files", "dropped_bytes")

Manifest = dict[str, Any]
Row = Sequence[str]

_CSS = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 64rem; padding: 0 1rem;
       color: #1c2330; background: #fff; }
h2 { margin-top: 2.5rem; border-bottom: 1px solid #ccd3dd; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { text-align: left; padding: .15rem .8rem .15rem 0; vertical-align: top; }
th { border-bottom: 1px solid #ccd3dd; }
td { overflow-wrap: anywhere; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
svg { display: block; width: 100%; max-width: 52rem; height: auto; margin: 1rem 0; }
svg text { font: 12px system-ui, sans-serif; fill: #1c2330; }
svg rect { fill: #3d6fb6; }
"""


@dataclass(frozen=True)
class Bars:
    """A plot: one bar for each label."""

    unit: str
    values: Sequence[tuple[str, float]]


@dataclass(frozen=True)
class Table:
    """Columns that are named in ``numbers`` are set flush right."""

    header: Row
    rows: Sequence[Row]
    numbers: frozenset[str] = frozenset({"files", "MB", "packages", "dropped", "replaced"})


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it."""

    title: str
    text: str = ""
    parts: Sequence[Bars | Table] = ()


def sections(manifest: Manifest) -> list[Section]:
    """What there is to say about a corpus, from its ``manifest.json``."""
    found = [
        _stages(manifest),
        _licenses(manifest),
        _drops(manifest),
        _set_aside(manifest),
        _redacted(manifest),
        _packages(manifest),
        _settings(manifest),
    ]
    return [section for section in found if section.text or section.parts]


def markdown(title: str, manifest: Manifest) -> str:
    """The report as Markdown; tables say what the plots show."""
    parts = [f"# {title}", _summary(manifest)]
    for section in sections(manifest):
        parts += [f"## {section.title}", section.text]
        parts += [_table_lines(part) for part in section.parts if isinstance(part, Table)]
    return "\n\n".join(filter(None, parts)) + "\n"


def html(title: str, manifest: Manifest) -> str:
    """The report as one page of HTML."""
    body = [f"<h1>{escape(title)}</h1>", f"<p>{escape(_summary(manifest))}</p>"]
    for section in sections(manifest):
        body.append(f"<h2>{escape(section.title)}</h2>")
        if section.text:
            body.append(f"<p>{escape(section.text)}</p>")
        body += [_svg(part) if isinstance(part, Bars) else _table(part) for part in section.parts]
    head = (
        f'<meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_CSS}</style>'
    )
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n'
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def _summary(manifest: Manifest) -> str:
    totals = manifest["totals"]
    return (
        f"{_mb(totals['bytes'])} MB of text in {totals['files']:,} files of "
        f"{totals['packages']:,} packages; read were {_mb(totals['read_bytes'])} MB in "
        f"{totals['read_files']:,} files of {len(manifest['packages']):,} sources. "
        f"Built by tinystarcoder {manifest['tinystarcoder']}."
    )


def _stages(manifest: Manifest) -> Section:
    """Sizes before and after each stage; bytes where the manifest counts those of drops."""
    totals = manifest["totals"]
    files, size = totals["read_files"], totals["read_bytes"]
    rows: list[tuple[str, int, int | None]] = [("read", files, size)]
    gone = [entry for entry in manifest["packages"] if entry["set_aside"]]
    aside = sum(e["read_files"] for e in gone), sum(e["read_bytes"] for e in gone)
    stages: list[tuple[str, int, int | None]] = [("after packages set aside", *aside)]
    for stage in ("filters", "exact dedup", "near-dedup"):
        dropped, sizes = (_of_stage(manifest, name, stage) for name in _COUNTS)
        stages.append((f"after {stage}", dropped or 0, sizes))
    for stage, fewer, smaller in stages:
        files -= fewer
        size = None if size is None or smaller is None else size - smaller
        rows.append((stage, files, size))
    if size is None:  # An older manifest counts files alone, but knows the end.
        rows[-1] = (*rows[-1][:2], totals["bytes"])
    table = Table(
        ("stage", "files", "MB"),
        [(stage, f"{count:,}", "" if b is None else _mb(b)) for stage, count, b in rows],
    )
    bars = [Bars("files", [(stage, count) for stage, count, _ in rows])]
    if size is not None:
        bars.append(Bars("MB", [(stage, (b or 0) / 1e6) for stage, _, b in rows]))
    return Section("Sizes, stage by stage", parts=[*bars, table])


def _of_stage(manifest: Manifest, counts: str, stage: str) -> int | None:
    """What one stage dropped; None where the manifest does not count it."""
    if counts not in manifest:
        return None
    dropped: dict[str, int] = manifest[counts]
    return sum(count for reason, count in dropped.items() if _stage_of(reason) == stage)


def _stage_of(reason: str) -> str:
    if reason.startswith("exact duplicate"):
        return "exact dedup"
    return "near-dedup" if reason.startswith("near duplicate") else "filters"


def _licenses(manifest: Manifest) -> Section:
    entries = manifest["licenses"].items()
    table = Table(
        ("license", "packages", "files", "MB"),
        [(n, f"{e['packages']:,}", f"{e['files']:,}", _mb(e["bytes"])) for n, e in entries],
    )
    bars = Bars("MB", [(name, entry["bytes"] / 1e6) for name, entry in entries])
    return Section("Licenses", "By the license of the package.", [bars, table])


def _drops(manifest: Manifest) -> Section:
    """Why files were dropped, with examples from as many packages as there are."""
    dropped, sizes = manifest["dropped_files"], manifest.get("dropped_bytes", {})
    if not dropped:
        return Section("Dropped files")
    rows = [
        (
            reason,
            f"{count:,}",
            _mb(sizes[reason]) if reason in sizes else "",
            ", ".join(_examples(manifest, reason)),
        )
        for reason, count in dropped.items()
    ]
    table = Table(("reason", "files", "MB", "for example"), rows)
    bars = Bars("files", list(dropped.items()))
    return Section("Dropped files", "Each by the first reason that was found.", [bars, table])


def _examples(manifest: Manifest, reason: str) -> list[str]:
    of_each = [
        [f"{entry['package']}: {path}" for path in entry["dropped"][reason]["examples"]]
        for entry in manifest["packages"]
        if reason in entry["dropped"]
    ]
    firsts = [examples[0] for examples in of_each if examples]
    others = [example for examples in of_each for example in examples[1:]]
    return [*firsts, *others][:EXAMPLES]


def _set_aside(manifest: Manifest) -> Section:
    rows = [
        (entry["source"], entry["set_aside"])
        for entry in manifest["packages"]
        if entry["set_aside"]
    ]
    return Section("Sources set aside", parts=[Table(("source", "why"), rows)] if rows else ())


def _redacted(manifest: Manifest) -> Section:
    rows = [(kind, f"{count:,}") for kind, count in manifest["redacted"].items()]
    return Section("Redaction", parts=[Table(("kind", "replaced"), rows)] if rows else ())


def _packages(manifest: Manifest) -> Section:
    kept = [entry for entry in manifest["packages"] if not entry["set_aside"]]
    kept.sort(key=lambda entry: -entry["bytes"])
    rows = [
        (
            f"{entry['package']} {entry['version']}",
            entry["license"],
            f"{entry['files']:,}",
            _mb(entry["bytes"]),
            f"{sum(drop['files'] for drop in entry['dropped'].values()):,}",
        )
        for entry in kept
    ]
    bars = Bars("MB", [(entry["package"], entry["bytes"] / 1e6) for entry in kept[:LARGEST]])
    text = f"The plot shows the largest {len(bars.values)} of {len(kept)}."
    table = Table(("package", "license", "files", "MB", "dropped"), rows)
    return Section("Packages", text, [bars, table])


def _settings(manifest: Manifest) -> Section:
    rows = [
        (name, ", ".join(map(str, value)) if isinstance(value, list) else str(value))
        for name, value in _flat(manifest["settings"])
    ]
    rows.append(("excluded", ", ".join(manifest["excluded"])))
    return Section("Settings", parts=[Table(("setting", "value"), rows)])


def _flat(settings: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from ((f"{name}: {inner}", x) for inner, x in value.items())
        else:
            yield name, value


def _table_lines(table: Table) -> str:
    rule = ["---:" if name in table.numbers else "---" for name in table.header]
    rows = [table.header, rule, *table.rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows
    )


def _table(table: Table) -> str:
    kinds = [' class="number"' if name in table.numbers else "" for name in table.header]

    def line(tag: str, row: Row) -> str:
        cells = zip(kinds, row, strict=True)
        return "".join(f"<{tag}{kind}>{escape(cell)}</{tag}>" for kind, cell in cells)

    head = f"<tr>{line('th', table.header)}</tr>"
    return "\n".join(
        ["<table>", head, *(f"<tr>{line('td', row)}</tr>" for row in table.rows), "</table>"]
    )


def _svg(bars: Bars, *, height: int = 20, left: int = 260, width: int = 400) -> str:
    """Horizontal bars; lengths in proportion to the values."""
    most = max((value for _, value in bars.values), default=0) or 1
    lines = []
    for row, (label, value) in enumerate(bars.values):
        y, end = row * height, left + width * value / most
        shown = f"{value:,.1f}" if isinstance(value, float) else f"{value:,}"
        short = label if len(label) <= 34 else label[:33] + "…"
        lines += [
            f'<text x="{left - 8}" y="{y + 14}" text-anchor="end">{escape(short)}',
            f"<title>{escape(label)}</title></text>",
            f'<rect x="{left}" y="{y + 3}" width="{end - left:.1f}" height="{height - 6}"/>',
            f'<text x="{end + 6:.1f}" y="{y + 14}">{shown} {bars.unit}</text>',
        ]
    total = len(bars.values) * height
    view = f"0 0 {left + width + 120} {total}"
    return f'<svg viewBox="{view}" role="img">' + "\n".join(lines) + "</svg>"


def _mb(size: int) -> str:
    return f"{size / 1e6:,.1f}"
