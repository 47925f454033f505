#!/usr/bin/env python3
"""A scaling ladder: which size of nano learns most from so many FLOPs.

    python benchmarks/training/ladder.py TOKENS VALIDATION [--flops 6e13 --flops 1.2e14]

TOKENS and VALIDATION are folders of token shards with the tokenizer inside. Each size of
SIZES is trained by nano's recipe on the same data until it has done --flops floating-point
operations, as `train --plan` counts them; so a larger model sees fewer tokens. All are
judged by the same bits-per-byte over VALIDATION (windows of 512).

Prints a table, the size where a parabola over log(parameters) is lowest, and writes
ladder.svg into --runs, where the runs land too. It may be stopped and started again, and run
beside other work, since no second is compared. What it gives up: the rates are nano's for
all sizes, tuned for none.
"""

import math

import numpy as np
from comparison import RECIPE, Result, measure, overrides, parser

from tinystarcoder.training.plan import hardware, plan
from tinystarcoder.training.recipe import Recipe

# Width and layers: 2.6, 3.6, 6.8 and 10.8 million parameters. Heads of 64, inner four times.
SIZES = ((128, 7), (192, 4), (256, 6), (320, 7))


def main() -> None:
    options = parser(__doc__.splitlines()[0], runs="runs/ladder")
    options.add_argument("--flops", type=float, action="append", help="of each run [6e13]")
    arguments = options.parse_args()
    shared = overrides(arguments)

    def rung(size: tuple[int, int], flops: float) -> Result:
        name = f"{size[0]}x{size[1]}-{flops:.2g}"
        return measure(recipe(size, flops, shared), arguments.runs / name)

    budgets = arguments.flops or [6e13]
    ladders = {flops: [rung(size, flops) for size in SIZES] for flops in budgets}
    (arguments.runs / "ladder.svg").write_text(plot(ladders))
    print(table(ladders))


def recipe(size: tuple[int, int], flops: float, shared: dict[str, str]) -> Recipe:
    """nano's recipe for another size, as long as ``flops`` last."""
    width, layers = size
    model = {"n_embd": width, "n_layer": layers, "n_head": width // 64, "n_inner": 4 * width}
    changes = {f"model.overrides.{name}": str(value) for name, value in model.items()}
    changes |= {"checkpoint.every": "200", "checkpoint.keep": "1", "validation.every": "0"}
    changes |= shared
    thousand = Recipe.read(RECIPE, changes | {"schedule.steps": "1000"})
    steps = max(round(1000 * flops / plan(thousand, hardware("cpu-amx")).flops), 10)
    changes |= {"schedule.steps": str(steps), "schedule.warmup": str(max(steps // 25, 1))}
    return Recipe.read(RECIPE, changes)


def table(ladders: dict[float, list[Result]]) -> str:
    """A Markdown table of all runs; under it, for each budget, the size to choose."""
    lines = ["| FLOPs | parameters | tokens | bits-per-byte |", "|---|---|---|---|"]
    for results in ladders.values():
        for r in results:
            counts = f"{r['parameters']:,} | {r['tokens']:,}"
            lines.append(f"| {r['flops']:.2g} | {counts} | {r['bits_per_byte']:.4f} |")
    for flops, results in ladders.items():
        lines.append(f"{flops:.2g} FLOPs: lowest at {lowest(results)}")
    return "\n".join(lines)


def lowest(results: list[Result]) -> str:
    """Where a parabola through bits over log(parameters) has its lowest point."""
    sizes = np.log([r["parameters"] for r in results])
    bend, slope, _ = np.polyfit(sizes, [r["bits_per_byte"] for r in results], 2)
    at = -slope / (2 * bend) if bend > 0 else -math.inf
    if not sizes.min() <= at <= sizes.max():
        best = min(results, key=lambda r: r["bits_per_byte"])
        return f"an end of the ladder; of these, {best['parameters']:,} parameters"
    return f"{math.exp(at):,.0f} parameters"


def plot(ladders: dict[float, list[Result]]) -> str:
    """SVG: bits-per-byte over parameters (logarithmic), a line for each budget."""
    width, height, margin = 480, 300, 48
    every = [r for results in ladders.values() for r in results]
    xs = [math.log(r["parameters"]) for r in every]
    ys = [r["bits_per_byte"] for r in every]

    def place(r: Result) -> tuple[float, float]:
        x = (math.log(r["parameters"]) - min(xs)) / (max(xs) - min(xs))
        y = (r["bits_per_byte"] - min(ys)) / ((max(ys) - min(ys)) or 1.0)
        return margin + x * (width - 2 * margin), height - margin - y * (height - 2 * margin)

    parts = []
    for flops, results in ladders.items():
        spots = [place(r) for r in results]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
        parts.append(f'<polyline points="{path}" fill="none" stroke="#2f6db5"/>')
        for (x, y), r in zip(spots, results, strict=True):
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="#2f6db5"/>')
            parts.append(f'<text x="{x:.1f}" y="{y - 8:.1f}">{r["bits_per_byte"]:.3f}</text>')
            name = f"{r['parameters'] / 1e6:.1f}M"
            parts.append(f'<text x="{x:.1f}" y="{height - margin / 2}">{name}</text>')
        x, y = spots[-1]
        parts.append(f'<text x="{x:.1f}" y="{y - 22:.1f}">{flops:.2g} FLOPs</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'font-family="sans-serif" font-size="12" text-anchor="middle">{"".join(parts)}</svg>\n'
    )


if __name__ == "__main__":
    main()
