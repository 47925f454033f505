"""The curves of training runs as one HTML page that stands by itself. No torch.

Plots are SVG inside of the page, over the tokens seen so that runs of different batches
compare; nothing is loaded and nothing runs. A curve is drawn through averages over
equal stretches of its run. What it gives up: the first steps of a loss, which would
press the rest flat, are cut off at the top.
"""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from statistics import fmean
from typing import Any

from ..errors import TrainingError
from .run_log import LOG

# Points of a curve, and of how many steps at the end the table's averages are.
POINTS = 300
_LAST_STEPS = 50

_WIDTH, _HEIGHT = 640, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 12, 12, 36

_CSS = """
:root { color-scheme: light dark; --ink: #1c2330; --paper: #fff; --line: #d5dae2;
  --c0: #2f6db5; --c1: #c2571a; --c2: #2d8a57; --c3: #8a4fb0; --c4: #a8862a; --c5: #b83a55; }
@media (prefers-color-scheme: dark) { :root { --ink: #dde3ec; --paper: #14181f;
  --line: #343c48; --c0: #79b0f0; --c1: #f0965a; --c2: #6ccb95; --c3: #c79be8; --c4: #dcc067;
  --c5: #f08aa0; } }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 84rem;
  padding: 0 1rem; color: var(--ink); background: var(--paper); }
main { display: grid; grid-template-columns: repeat(auto-fit, minmax(22rem, 1fr)); gap: 1rem; }
figure { margin: 0; } figcaption { font-weight: 600; }
svg { display: block; width: 100%; height: auto; }
svg text { font: 12px system-ui, sans-serif; fill: var(--ink); }
svg .grid { stroke: var(--line); } svg polyline { fill: none; stroke-width: 1.6; }
svg .pale { opacity: 0.45; stroke-width: 1.1; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { text-align: right; padding: .15rem .9rem .15rem 0; font-variant-numeric: tabular-nums; }
th { border-bottom: 1px solid var(--line); } th:first-child, td:first-child { text-align: left; }
"""

Record = dict[str, Any]
Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Run:
    """One run: a record a step, in order."""

    name: str
    records: Sequence[Record]

    def points(self, field: str) -> Points:
        """Tokens and value wherever ``field`` was logged, averaged to at most POINTS."""
        found = [(r["tokens"], r[field]) for r in self.records if _is_number(r.get(field))]
        size = -(-len(found) // POINTS) or 1
        parts = (found[at : at + size] for at in range(0, len(found), size))
        return [(fmean(x for x, _ in part), fmean(y for _, y in part)) for part in parts]

    def last(self, field: str) -> float | None:
        """The average over the last steps that have it."""
        values = [r[field] for r in self.records if _is_number(r.get(field))]
        return fmean(values[-_LAST_STEPS:]) if values else None


@dataclass(frozen=True)
class Curve:
    """What one plot shows of each run; ``pale`` stands behind ``field``."""

    title: str
    field: str
    pale: str = ""
    falls: bool = False
    """Whether it falls from a height that is not worth seeing."""


CURVES = (
    Curve("loss, nats a token", "loss", falls=True),
    Curve(
        "bits-per-byte: validation, and pale training",
        "validation_bits_per_byte",
        pale="bits_per_byte",
        falls=True,
    ),
    Curve("bits-per-byte of middles, validation", "validation_fim_bits_per_byte", falls=True),
    Curve("learning rate, share of its peak", "lr_factor"),
    Curve("tokens a second", "tokens_per_second"),
    Curve("MFU: share of the device's measured peak", "mfu"),
    Curve("gradient norm", "grad_norm", falls=True),
)


def read_run(path: Path) -> Run:
    """A run's folder, or its log. Raises TrainingError where there is none, or nothing in it."""
    log = path / LOG if path.is_dir() else path
    records = []
    try:
        lines = log.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingError(f"{log}: no run's log can be read there: {error}") from error
    for line in lines:
        try:
            record = json.loads(line)
            if _is_number(record["step"]) and _is_number(record["tokens"]):
                records.append(record)
        except (ValueError, KeyError, TypeError):  # What a killed run was writing.
            continue
    if not records:
        raise TrainingError(f"{log}: holds no step of a run")
    return Run(path.resolve().name if path.is_dir() else log.resolve().parent.name, records)


def joined(runs: Sequence[Run]) -> Run:
    """Runs of which each began from the weights of the one before, as one."""
    records: list[Record] = []
    for run in runs:
        before = records[-1]["tokens"] if records else 0
        records += [record | {"tokens": before + record["tokens"]} for record in run.records]
    return Run(runs[-1].name, records)


def page(runs: Sequence[Run]) -> str:
    """HTML of all runs, one color each."""
    plots = "".join(_figure(curve, runs) for curve in CURVES)
    title = escape(", ".join(run.name for run in runs))
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_CSS}</style></head><body><h1>{title}</h1>{_table(runs)}"
        f"<main>{plots}</main></body></html>\n"
    )


def _table(runs: Sequence[Run]) -> str:
    columns: dict[str, Callable[[Run], str]] = {
        "run": lambda run: f"{_swatch(runs.index(run))} {escape(run.name)}",
        "steps": lambda run: f"{run.records[-1]['step']:,}",
        "tokens": lambda run: f"{run.records[-1]['tokens']:,}",
        "hours": lambda run: f"{run.records[-1].get('seconds', 0) / 3600:.2f}",
        f"loss, last {_LAST_STEPS} steps": lambda run: _number(run.last("loss")),
        "validation": lambda run: _number(_final(run, "validation_bits_per_byte")),
        "tokens/s": lambda run: _number(run.last("tokens_per_second"), ",.0f"),
        "MFU": lambda run: _number(run.last("mfu"), ".1%"),
        "steps left out": lambda run: str(sum(bool(r.get("skipped")) for r in run.records)),
    }
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    rows = ("".join(f"<td>{cell(run)}</td>" for cell in columns.values()) for run in runs)
    return f"<table><tr>{head}</tr>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"


def _swatch(index: int) -> str:
    return f'<span style="color:{_color(index)}">■</span>'


def _color(index: int) -> str:
    return f"var(--c{index % 6})"


def _final(run: Run, field: str) -> float | None:
    return next((r[field] for r in reversed(run.records) if _is_number(r.get(field))), None)


def _number(value: float | None, form: str = ".4f") -> str:
    return "-" if value is None else format(value, form)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def picture(curve: Curve, runs: Sequence[Run]) -> str:
    """One plot as an SVG file of its own; empty where no run has logged it."""
    size = f'xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}" '
    svg = _svg(curve, runs, size, f"<style>{_CSS}svg {{ background: var(--paper); }}</style>")
    return f"{svg}\n" if svg else ""


def _figure(curve: Curve, runs: Sequence[Run]) -> str:
    """One plot, or nothing where no run has logged it."""
    svg = _svg(curve, runs)
    return f"<figure><figcaption>{escape(curve.title)}</figcaption>{svg}</figure>" if svg else ""


def _svg(curve: Curve, runs: Sequence[Run], attributes: str = "", style: str = "") -> str:
    drawn = _drawn(curve, runs)
    if not drawn:
        return ""
    box = f'{attributes}viewBox="0 0 {_WIDTH} {_HEIGHT}"'
    return f'<svg {box} role="img" aria-label="{escape(curve.title)}">{style}{drawn}</svg>'


def _drawn(curve: Curve, runs: Sequence[Run]) -> str:
    """Axes and lines."""
    lines = [
        (index, field == curve.pale, points)
        for index, run in enumerate(runs)
        for field in (curve.pale, curve.field)
        if field and (points := run.points(field))
    ]
    if not lines:
        return ""
    last = max(x for _, _, points in lines for x, _ in points)
    low, high = _range([[y for _, y in points] for _, _, points in lines], falls=curve.falls)

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            _LEFT + x / last * (_WIDTH - _LEFT - _RIGHT),
            _HEIGHT - _BOTTOM - (y - low) / (high - low) * (_HEIGHT - _TOP - _BOTTOM),
        )

    drawn = "".join(_polyline(points, place, index, pale) for index, pale, points in lines)
    clip = f"clip-{curve.field}"
    frame = (
        f'<clipPath id="{clip}"><rect x="{_LEFT}" y="{_TOP}" '
        f'width="{_WIDTH - _LEFT - _RIGHT}" height="{_HEIGHT - _TOP - _BOTTOM}"/></clipPath>'
    )
    axes = "".join(_axes(last, low, high, place))
    return f'{frame}{axes}<g clip-path="url(#{clip})">{drawn}</g>'


def _range(curves: Sequence[Sequence[float]], *, falls: bool) -> tuple[float, float]:
    """Lowest and highest value to show, never equal."""
    # Of a falling curve, its first twentieth may leave the plot at the top.
    tails = [curve[len(curve) // 20 :] for curve in curves] if falls else curves
    low = min(min(curve) for curve in curves)
    high = max(max(tail) for tail in tails)
    low = low if falls else min(low, 0.0)
    return (low, high) if high > low else (low, low + (abs(low) or 1.0))


Place = Callable[[float, float], tuple[float, float]]


def _polyline(points: Points, place: Place, index: int, pale: bool) -> str:
    spots = [place(x, y) for x, y in points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
    kind = "pale" if pale else "full"
    line = f'<polyline class="{kind}" points="{path}" style="stroke:{_color(index)}"/>'
    if pale or len(points) > 60:
        return line
    # Few points, as of validation, are measurements of their own: each tells its value.
    dots = (
        f'<circle cx="{px:.1f}" cy="{py:.1f}" r="2.6" style="fill:{_color(index)}">'
        f"<title>{x:,.0f} tokens: {y:.4g}</title></circle>"
        for (x, y), (px, py) in zip(points, spots, strict=True)
    )
    return line + "".join(dots)


def _axes(last: float, low: float, high: float, place: Place) -> Iterator[str]:
    bottom = _HEIGHT - _BOTTOM
    for value in ticks(low, high):
        _, y = place(0, value)
        yield f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{_short(value)}</text>'
    for value in ticks(0, last):
        x, _ = place(value, low)
        yield f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{_short(value)}</text>'
    yield f'<text x="{_WIDTH - _RIGHT}" y="{_HEIGHT - 4}" text-anchor="end">tokens</text>'


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers within ``[low, high]``, about so many."""
    rough = (high - low) / about
    unit = 10.0 ** math.floor(math.log10(rough))
    step = unit * next(factor for factor in (1, 2, 5, 10) if factor * unit >= rough * 0.999)
    first, end = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [number * step for number in range(first, end + 1)]


def _short(value: float) -> str:
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.4g}{letter}"
    return f"{value:.4g}"
