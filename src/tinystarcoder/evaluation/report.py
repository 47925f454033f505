"""What a folder of scores says: JSON, Markdown tables, plots, and two folders compared.

Plots are SVG by hand, one bar a figure with its interval, so that a report needs
no library, no script and no network to be looked at. It gives up any other form.
"""

import html
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .. import __version__
from ..errors import EvaluationError
from ..files import write_atomically
from . import journal
from .statistics import Estimate, difference, ratio

Report = dict[str, Any]

# What fewer is better of, and what is so many times; all others are shares, from 0 to 1.
BITS = ("bits-per-byte", "prefix only", "psm", "spm")
TIMES = ("tokens a pass", "speed-up")


def read_scores(folder: Path) -> Iterator[tuple[journal.Record, list[journal.Record]]]:
    """Header and records of each task. Raises EvaluationError where there are none."""
    paths = sorted((folder / "scores").glob("*.jsonl"))
    if not paths:
        raise EvaluationError(f"{folder}: no scores in it; tinystarcoder evaluate writes them")
    for path in paths:
        header, records, _ = journal.read(path)
        if records:
            yield header, list(records.values())


def summarize(folder: Path) -> Report:
    """Every metric's value and 95% interval, over all items and, where they have groups, each."""
    report: Report = {"model": "", "tinystarcoder": __version__, "tasks": {}}
    for header, records in read_scores(folder):
        report["model"] = header["model"]
        groups: dict[str, list[journal.Record]] = {}
        for record in records:
            if "group" in record:
                groups.setdefault(record["group"], []).append(record)
        report["tasks"][header["task"]] = {
            "protocol": header["protocol"],
            "items": len(records),
            "metrics": _metrics(records),
            "groups": {name: _metrics(members) for name, members in groups.items()},
            "group_items": {name: len(members) for name, members in groups.items()},
        }
    return report


def _metrics(records: Sequence[journal.Record]) -> dict[str, dict[str, float]]:
    found = {
        name: [record["metrics"][name] for record in records] for name in records[0]["metrics"]
    }
    return {name: ratio(pairs)._asdict() for name, pairs in found.items() if _is_share(pairs)}


def _is_share(pairs: Sequence[tuple[float, float]]) -> bool:
    """A share of nothing is no figure: of no suggestion, none was accepted."""
    return any(below for _, below in pairs)


def write(folder: Path) -> Report:
    """``report.json``, ``report.md``, a plot for shares, one for bits, ``report.html``."""
    report = summarize(folder)
    texts = {"report.json": json.dumps(report, indent=1) + "\n", "report.md": markdown(report)}
    plots = plot(report)
    texts |= {f"{name}.svg": svg for name, svg in plots.items()}
    texts["report.html"] = _page(report, plots)
    for name, text in texts.items():
        write_atomically(folder / name, text.encode())
    return report


def rows(report: Report) -> Iterator[tuple[str, str, int, Estimate]]:
    """Task, metric, items and estimate, groups left out."""
    for task, entry in report["tasks"].items():
        for metric, value in entry["metrics"].items():
            yield task, metric, entry["items"], Estimate(**value)


def figure(metric: str, value: float) -> str:
    """Bits with four digits, times with two, shares in percent."""
    if metric in BITS:
        return f"{value:.4f}"
    return f"{value:.2f}" if metric in TIMES else f"{100 * value:.1f}%"


def table(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table of GitHub's Markdown."""
    cells = [heads, ["---"] * len(heads), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells) + "\n"


def markdown(report: Report) -> str:
    """A table of all, and one of each task's groups; the interval is that of resampled items."""
    lines = [
        (task, metric, figure(metric, e.value), _interval(metric, e), str(items))
        for task, metric, items, e in rows(report)
    ]
    heads = ("task", "metric", report["model"], "95%", "items")
    parts = [f"# {report['model']}\n", table(heads, lines)]
    for task, entry in report["tasks"].items():
        if len(entry["groups"]) > 1:
            parts += [f"## {task}\n", by_group(report, task)]
    return "\n".join(parts)


def by_group(report: Report, task: str, metrics: Sequence[str] = ()) -> str:
    """A table of a task's groups, with the metrics named, or with all."""
    entry = report["tasks"][task]
    names = metrics or list(entry["metrics"])
    lines = [
        (
            group,
            str(entry["group_items"][group]),
            *(_with_interval(name, found[name]) if name in found else "" for name in names),
        )
        for group, found in entry["groups"].items()
    ]
    return table(("group", "items", *names), lines)


def _with_interval(metric: str, found: dict[str, float]) -> str:
    estimate = Estimate(**found)
    return f"{figure(metric, estimate.value)} ({_interval(metric, estimate)})"


def _interval(metric: str, estimate: Estimate) -> str:
    return f"{figure(metric, estimate.low)} to {figure(metric, estimate.high)}"


def compare(first: Path, second: Path) -> Report:
    """Each metric that both have, over the items that both have."""
    found = [{h["task"]: (h, records) for h, records in read_scores(f)} for f in (first, second)]
    tasks: dict[str, Any] = {}
    for task in sorted(set(found[0]) & set(found[1])):
        sides = [{record["id"]: record["metrics"] for record in f[task][1]} for f in found]
        shared = [item for item in sides[0] if item in sides[1]]
        for metric in sides[0][shared[0]] if shared else ():
            if metric in sides[1][shared[0]]:
                one, other = ([side[item][metric] for item in shared] for side in sides)
                if not (_is_share(one) and _is_share(other)):
                    continue
                tasks.setdefault(task, {})[metric] = {
                    "items": len(shared),
                    "first": ratio(one)._asdict(),
                    "second": ratio(other)._asdict(),
                    "difference": difference(one, other)._asdict(),
                }
    if not tasks:
        raise EvaluationError(f"{first} and {second}: no task with the same items in both")
    models = [next(iter(f.values()))[0]["model"] for f in found]
    return {"first": models[0], "second": models[1], "tasks": tasks}


def comparison_table(comparison: Report) -> str:
    """A difference whose interval has no 0 in it is told by a mark."""
    lines = []
    for task, metrics in comparison["tasks"].items():
        for metric, entry in metrics.items():
            less = Estimate(**entry["difference"])
            values = [figure(metric, entry[side]["value"]) for side in ("first", "second")]
            sure = "yes" if less.low > 0 or less.high < 0 else "no"
            change = f"{_signed(metric, less.value)} ({_interval(metric, less)})"
            lines.append((task, metric, *values, change, sure, str(entry["items"])))
    heads = ("task", "metric", comparison["first"], comparison["second"])
    return table((*heads, "difference (95%)", "sure", "items"), lines)


def _signed(metric: str, value: float) -> str:
    return ("+" if value > 0 else "") + figure(metric, value)


def plot(report: Report) -> dict[str, str]:
    """``shares`` and ``bits``, each an SVG, where there is anything to show."""
    found = [(f"{task}: {metric}", metric, e) for task, metric, _, e in rows(report)]
    shares = [(label, m, e) for label, m, e in found if m not in (*BITS, *TIMES)]
    bits = [(label, m, e) for label, m, e in found if m in BITS]
    plots = {"shares": (shares, 1.0), "bits": (bits, max([e.high for *_, e in bits], default=0))}
    return {name: _bars(bars, full) for name, (bars, full) in plots.items() if bars}


_ROW, _LABEL, _WIDTH = 24, 240, 420


def _bars(bars: Sequence[tuple[str, str, Estimate]], full: float) -> str:
    parts = []
    for index, (label, metric, estimate) in enumerate(bars):
        middle = index * _ROW + _ROW / 2
        value, low, high = (_LABEL + _WIDTH * min(part / full, 1) for part in estimate)
        parts += [
            f'<text x="{_LABEL - 8}" y="{middle + 4}" text-anchor="end">'
            f"{html.escape(label)}</text>",
            f'<rect x="{_LABEL}" y="{middle - 7}" width="{value - _LABEL:.1f}" height="14" '
            'fill="#4878a8"/>',
            f'<path d="M{low:.1f} {middle}H{high:.1f}" stroke="#222" stroke-width="2"/>',
            f'<text x="{_LABEL + _WIDTH + 8}" y="{middle + 4}">'
            f"{figure(metric, estimate.value)}</text>",
        ]
    width, height = _LABEL + _WIDTH + 70, len(bars) * _ROW
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" font-family="sans-serif" font-size="13">\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def _page(report: Report, plots: dict[str, str]) -> str:
    cells = "".join(
        f"<tr><td>{html.escape(task)}<td>{html.escape(metric)}<td>{figure(metric, e.value)}"
        f"<td>{_interval(metric, e)}<td>{items}</tr>\n"
        for task, metric, items, e in rows(report)
    )
    title = html.escape(report["model"])
    return (
        f'<!doctype html><meta charset="utf-8"><title>{title}</title>\n<h1>{title}</h1>\n'
        "<table><tr><th>task<th>metric<th>value<th>95%<th>items</tr>\n"
        f"{cells}</table>\n{''.join(plots.values())}"
    )
