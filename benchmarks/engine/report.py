"""The result of a run: JSON for programs, a Markdown page of medians and ratios for people."""

import json
import platform
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from .measures import LLAMA, Bench, median
from .peers import OURS

# Measure, ours, whose figure it is compared with, target of the ratio; more is better.
TARGETS = (
    ("decode 128 after 128", f"{OURS} int8", LLAMA, 1.6),
    ("decode 128 after 128", f"{OURS} int4", ("llama.cpp Q4_0",), 1.4),
    ("decode 64 after 4096", f"{OURS} int8", (*LLAMA, "OpenVINO int8"), 1.5),
    ("prefill 512", f"{OURS} int8", ("OpenVINO int8",), 1.25),
    ("prefill 2048", f"{OURS} int8", ("OpenVINO int8",), 1.15),
    ("8 sequences, 64 after 128 each", f"{OURS} int8", LLAMA, 1.5),
)


# What a later run adds to, measure by measure, where an earlier one's file is there.
GROWING = ("found", "rows", "versions", "absent")


def write(result: dict[str, Any], page: Callable[[dict[str, Any]], str], output: Path) -> None:
    """JSON and page beside each other; again and again, so that what hangs costs itself alone."""
    data = output.with_suffix(".json")
    if data.exists():
        earlier = json.loads(data.read_text())
        result |= {part: {**earlier[part], **result[part]} for part in GROWING if part in result}
    output.parent.mkdir(parents=True, exist_ok=True)
    data.write_text(json.dumps(result, indent=1) + "\n")
    output.with_suffix(".md").write_text(page(result))


def as_json(bench: Bench) -> dict[str, Any]:
    """Everything that was measured, and on what."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "hardware": hardware(),
        "threads": bench.threads,
        "versions": {**bench.versions, **_versions()},
        "absent": bench.absent,
        "found": bench.found,
    }


def hardware() -> dict[str, object]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    facts = dict(line.split(":", 1) for line in lines if ":" in line)
    named = {key.strip(): value.strip() for key, value in facts.items()}
    flags = [f for f in named.get("flags", "").split() if f.startswith(("amx", "avx512_", "avx2"))]
    return {
        "processor": named.get("model name", platform.processor()),
        "cache": named.get("cache size", ""),
        "cpus": sum(line.startswith("processor") for line in lines),
        "instructions": " ".join(flags),
        "system": platform.platform(),
    }


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in ("numpy", "tokenizers"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def markdown(result: dict[str, Any]) -> str:
    """The page: hardware and versions, each measure's table, the targets."""
    facts = [f"- {name}: {value}" for name, value in result["hardware"].items()]
    facts += [f"- {name}: {value}" for name, value in sorted(result["versions"].items())]
    parts = [f"# The engine beside its peers, {result['date'][:10]}"]
    parts += [f"{result['threads']} threads; medians, with the least and the most of the rounds."]
    parts += ["\n".join(facts)]
    for measure, engines in result["found"].items():
        rows = [
            f"## {measure}",
            "",
            "| | median | least | most | rounds |",
            "|---|---|---|---|---|",
        ]
        for engine, values in sorted(engines.items(), key=lambda item: -median(item[1])):
            figures = [_shown(f(values)) for f in (median, min, max)]
            rows.append(f"| {engine} | {' | '.join(figures)} | {len(values)} |")
        parts.append("\n".join(rows))
    parts.append("\n".join(["## Targets", "", *_targets(result["found"])]))
    if result["absent"]:
        missing = [f"- {name}: {why}" for name, why in result["absent"].items()]
        parts.append("\n".join(["## Not measured", "", *missing]))
    return "\n\n".join(parts) + "\n"


def _targets(found: dict[str, dict[str, list[float]]]) -> list[str]:
    rows = ["| measure | against | target | ratio | |", "|---|---|---|---|---|"]
    for measure, ours, peers, target in TARGETS:
        engines = found.get(measure, {})
        present = [peer for peer in peers if peer in engines]
        if ours not in engines or not present:
            rows.append(f"| {ours}, {measure} | {' or '.join(peers)} | {target} | not measured | |")
            continue
        peer = max(present, key=lambda name: median(engines[name]))
        ratio = _paired(engines[ours], engines[peer])
        rows.append(_row(f"{ours}, {measure}", peer, target, ratio))
    for name, against, target, ratio in _other_targets(found):
        rows.append(_row(name, against, target, ratio))
    return rows


def _other_targets(
    found: dict[str, dict[str, list[float]]],
) -> list[tuple[str, str, float, float]]:
    """Those that are no plain ratio of two engines' speeds."""
    ours, rows = f"{OURS} int8", []

    def value(measure: str, engine: str) -> float | None:
        values = found.get(measure, {}).get(engine)
        return median(values) if values else None

    for measure, limit, engine, target in (
        ("decode 128 after 128", "streaming limit, 8 bits", f"{OURS} int8", 0.8),
        ("prefill 512", "prefill limit 512", "int8 GEMM + attention", 0.7),
        ("prefill 2048", "prefill limit 2048", "int8 GEMM + attention", 0.7),
    ):
        top, bottom = found.get(measure, {}).get(ours), found.get(limit, {}).get(engine)
        if top and bottom:
            rows.append((f"{ours}, {measure}", limit, target, _paired(top, bottom)))
    many, one = (
        value("8 sequences, 64 after 128 each", ours),
        value("1 sequence, 64 after 128", ours),
    )
    if many and one:
        rows.append((f"{ours}, 8 sequences", "one sequence", 4.0, many / one))
    seconds = "seconds from process start to first token"
    fast, slow = value(seconds, ours), value(seconds, "transformers bf16")
    if fast and slow:
        rows.append((f"{ours}, start to first token", "transformers bf16", 10.0, slow / fast))
    less, more = value("peak memory, MB", ours), value("peak memory, MB", "llama.cpp Q8_0")
    if less and more:
        rows.append((f"{ours}, memory (inverse)", "llama.cpp Q8_0", 1.0, more / less))
    for measure in found:
        if measure.startswith("prompt lookup"):
            target = 0.95 if "nothing" in measure else 1.7
            rows.append(
                (measure, "plain decoding", target, median(found[measure]["times as fast"]))
            )
    return rows


def _paired(ours: list[float], theirs: list[float]) -> float:
    """The median of the rounds' ratios, or the ratio of medians where rounds are not the same."""
    if len(ours) == len(theirs):
        return median([a / b for a, b in zip(ours, theirs, strict=True)])
    return median(ours) / median(theirs)


def _row(name: str, against: str, target: float, ratio: float) -> str:
    verdict = "met" if ratio >= target else "**missed**"
    return f"| {name} | {against} | {target} | {ratio:.2f} | {verdict} |"


def _shown(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
