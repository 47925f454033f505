"""The result of a run: JSON for programs, a Markdown page for people."""

import statistics
import subprocess
from datetime import UTC, datetime
from typing import Any

from benchmarks.engine.report import hardware

from tinystarcoder import __version__

from .bench import Bench, quantile
from .replay import CONTEXT, LLAMA_DEFAULT, LLAMA_SPM, LLAMA_SPM_PLAIN, NANO, OURS_164M, PAUSE

# A peer's variants, and how many times as fast as the best of them ours is to be, at p50.
TARGETS = (((LLAMA_SPM, LLAMA_SPM_PLAIN), 1.5), ((LLAMA_DEFAULT,), 5.0))
NANO_P50_MS = 20.0


def as_json(bench: Bench) -> dict[str, Any]:
    """Everything that was measured, and on what."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "hardware": hardware(),
        "threads": bench.threads,
        "versions": _versions(bench),
        "absent": bench.absent,
        "found": bench.found,
        "rows": bench.rows,
    }


def _versions(bench: Bench) -> dict[str, str]:
    found = {"tinystarcoder": __version__}
    binary = bench.home / "llama-server" / "bin" / "llama-server"
    if binary.exists():
        told = subprocess.run([binary, "--version"], capture_output=True, text=True).stderr
        lines = [line for line in told.splitlines() if line.startswith("version")]
        found["llama-server"] = " ".join(lines).removeprefix("version: ")
    return found


def markdown(result: dict[str, Any]) -> str:
    """The page: hardware and versions, each measure's table, the targets."""
    facts = [f"- {name}: {value}" for name, value in result["hardware"].items()]
    facts += [f"- {name}: {value}" for name, value in sorted(result["versions"].items())]
    parts = [
        f"# From a keystroke to a suggestion, {result['date'][:10]}",
        f"Over HTTP on loopback, {result['threads']} threads, {CONTEXT:,} tokens of context, "
        f"{PAUSE * 1000:.0f} ms between an answer and the next key.",
        "\n".join(facts),
    ]
    for measure, servers in result["found"].items():
        parts.append("\n".join([f"## {measure}", "", *_table(servers)]))
    if result["found"]:
        parts.append("\n".join(["## Targets", "", *_targets(result["found"])]))
    for name, row in result["rows"].items():
        lines = [f"| {key} | {value} |" for key, value in row.items()]
        parts.append("\n".join([f"## {name}", "", "| | |", "|---|---|", *lines]))
    if result["absent"]:
        missing = [f"- {name}: {why}" for name, why in result["absent"].items()]
        parts.append("\n".join(["## Not measured", "", *missing]))
    return "\n\n".join(parts) + "\n"


def _table(servers: dict[str, dict[str, list[float]]]) -> list[str]:
    rows = [
        "| | p50 ms | p95 ms | tokens computed a key | tokens written | keys |",
        "|---|---|---|---|---|---|",
    ]
    for name, figures in servers.items():
        rows.append(_row(name, figures))
        asked = _asked(figures)
        if len(asked["ms"]) < len(figures["ms"]):
            rows.append(_row(f"{name}: keys that asked the model", asked))
    return rows


def _row(name: str, figures: dict[str, list[float]]) -> str:
    times, computed = figures["ms"], statistics.mean(figures["computed"])
    written = statistics.mean(figures["written"])
    return (
        f"| {name} | {quantile(times, 0.5):.1f} | {quantile(times, 0.95):.1f} | {computed:.1f} | "
        f"{written:.1f} | {len(times)} |"
    )


def _targets(found: dict[str, dict[str, dict[str, list[float]]]]) -> list[str]:
    rows = ["| p50 of | against | target | found | |", "|---|---|---|---|---|"]
    for measure, servers in found.items():
        for peers, target in TARGETS:
            present = [peer for peer in peers if peer in servers]
            if OURS_164M in servers and present:
                ratios = {peer: _ratio(servers[OURS_164M], servers[peer]) for peer in present}
                peer = min(ratios, key=lambda name: ratios[name])
                verdict = "met" if ratios[peer] >= target else "**missed**"
                rows.append(
                    f"| {measure} | {peer} | {target} times | {ratios[peer]:.2f} | {verdict} |"
                )
        if NANO in servers:
            milliseconds = quantile(_asked(servers[NANO])["ms"], 0.5)
            verdict = "met" if milliseconds < NANO_P50_MS else "**missed**"
            rows.append(
                f"| {NANO}, keys that asked the model | | {NANO_P50_MS:.0f} ms | "
                f"{milliseconds:.1f} ms | {verdict} |"
            )
    return rows


def _asked(figures: dict[str, list[float]]) -> dict[str, list[float]]:
    """Those of the keys for which the model wrote; the others' suggestions were known."""
    asked = [at for at, written in enumerate(figures["written"]) if written]
    return {key: [values[at] for at in asked] for key, values in figures.items()}


def _ratio(ours: dict[str, list[float]], theirs: dict[str, list[float]]) -> float:
    """Of the p50s, over the keys for which both wrote as many tokens."""
    both = zip(ours["ms"], ours["written"], theirs["ms"], theirs["written"], strict=True)
    same = [(mine, other) for mine, wrote, other, they_wrote in both if wrote == they_wrote]
    return quantile([other for _, other in same], 0.5) / quantile([mine for mine, _ in same], 0.5)
