#!/usr/bin/env python3
"""Compute to a loss: nano's recipe beside a usual one, and each of its levers left out once.

    python benchmarks/training/time_to_loss.py TOKENS VALIDATION [--budget 8_000_000]

TOKENS and VALIDATION are folders of token shards with the tokenizer inside. Architecture,
data, precision and threads are the same for all.

- baseline: AdamW as BigCode, cosine to a tenth, rows of one length; the best of three peak
  rates, chosen with three sixteenths of the budget, with the whole budget of tokens
- ours: Muon, a fall to zero, a ladder of row lengths; at shares of that budget
- without a lever: ours at a quarter of the budget, that lever as the baseline has it

Every run is judged at its end by the same bits-per-byte over VALIDATION (windows of 512).
It may be stopped and started again; tokens to a loss compare beside other work, seconds do
not.
"""

import json
import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import comparison
from comparison import RECIPE, Result

from tinystarcoder.training.recipe import Recipe

STEP_TOKENS = 4096
BASELINE_CONTEXT = 512

BASELINE_RATES = (5e-4, 1e-3, 2e-3)
RATE_SHARE = 0.1875
# The half first: its seconds are compared, the others' tokens only.
SHARES = (0.5, 0.375, 0.25)
LEVER_SHARE = SHARES[-1]

# A run's name, what differs from nano's recipe, and its tokens.
Contender = tuple[str, dict[str, Any], int]

ADAMW = {"optimizer.kind": "adamw", "optimizer.weight_decay": 0.1}
COSINE = {"schedule.shape": "cosine", "schedule.floor": 0.1}
ONE_LENGTH = {
    "phases": [{"until": 1.0, "context": BASELINE_CONTEXT, "rows": STEP_TOKENS // BASELINE_CONTEXT}]
}
BASELINE = {**ADAMW, **COSINE, **ONE_LENGTH}

# What ours lacks in each: the lever as the baseline has it.
LEVERS = {
    "Muon": ADAMW,
    "fall to zero": {"schedule.floor": 0.1},
    "early fall": {"schedule.decay": 0.2},
    "ladder of row lengths": ONE_LENGTH,
}


def main() -> None:
    options = comparison.parser(__doc__.splitlines()[0], runs="runs/time-to-loss")
    options.add_argument("--budget", type=int, default=8_000_000, help="the baseline's tokens")
    arguments = options.parse_args()
    shared = comparison.overrides(arguments)

    def measure(contender: Contender) -> Result:
        name, changes, tokens = contender
        made = recipe(changes, tokens, shared)
        return comparison.measure(made, arguments.runs / name.replace(" ", "-"))

    tried = {c[1]["optimizer.lr"]: _bits(measure(c)) for c in rates(arguments.budget)}
    best = min(tried, key=tried.__getitem__)
    print(summary({c[0]: measure(c) for c in contenders(arguments.budget, best)}))


def rates(budget: int) -> Iterator[Contender]:
    """The baseline at each peak rate, shorter."""
    for rate in BASELINE_RATES:
        yield f"rate {rate:g}", {**BASELINE, "optimizer.lr": rate}, int(budget * RATE_SHARE)


def contenders(budget: int, rate: float) -> Iterator[Contender]:
    """The baseline at its best rate, ours, and ours without each lever."""
    yield f"baseline {rate:g}", {**BASELINE, "optimizer.lr": rate}, budget
    for share in SHARES:
        yield f"ours {share:g}", {}, int(budget * share)
    for lever, changes in LEVERS.items():
        if lever == "Muon":
            changes = {**changes, "optimizer.lr": rate}
        yield f"without {lever}", changes, int(budget * LEVER_SHARE)


def recipe(changes: dict[str, Any], tokens: int, shared: dict[str, str]) -> Recipe:
    """nano's recipe with its ladder, so long that it takes in ``tokens``."""
    values: dict[str, Any] = {"checkpoint.every": 1000, "validation.every": 0}
    # AdamW has a single huge gradient early on, which a clipped step passes and a skip does not.
    values |= {"optimizer.spike": 0}
    values |= {"schedule.steps": 1000} | changes
    overrides = {name: toml(value) for name, value in values.items()} | shared
    steps_of_thousand = Recipe.read(RECIPE, overrides).total_tokens() / 1000
    steps = max(round(tokens / steps_of_thousand), 10)
    overrides["schedule.steps"] = toml(steps)
    overrides["schedule.warmup"] = toml(max(steps // 25, 1))
    return Recipe.read(RECIPE, overrides)


def toml(value: Any) -> str:
    """A TOML value; tables in one line."""
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name} = {toml(inner)}" for name, inner in value.items()) + "}"
    return json.dumps(value)


def summary(results: dict[str, Result]) -> str:
    """The baseline, and how much of its tokens and seconds each other needs or misses."""
    name, best = next(item for item in results.items() if item[0].startswith("baseline"))
    ours = [r for name, r in results.items() if name.startswith("ours")]
    ours.sort(key=lambda result: result["tokens"])
    lines = [f"{name}: {_bits(best):.4f} bits-per-byte after {best['tokens']:,} tokens"]
    for result in ours:
        tokens, seconds = (result[unit] / best[unit] for unit in ("tokens", "seconds"))
        shares = f"{tokens:.3f} of its tokens, {seconds:.3f} of its seconds"
        lines.append(f"ours: {_bits(result):.4f} after {shares}")
    if (share := share_to(_bits(best), ours)) is not None:
        lines.append(f"ours reaches it with {share / best['tokens']:.3f} of its tokens")
    whole = results[f"ours {LEVER_SHARE:g}"]
    for name, result in results.items():
        if name.startswith("without"):
            lines.append(f"{name}: {_bits(result) - _bits(whole):+.4f} at {LEVER_SHARE:g} of them")
    return "\n".join(lines)


def share_to(bits: float, runs: list[Result]) -> float | None:
    """Tokens at which runs of rising length reach ``bits``, between two of them; None: not."""
    for shorter, longer in pairwise(runs):
        if _bits(longer) <= bits <= _bits(shorter):
            part = (_bits(shorter) - bits) / (_bits(shorter) - _bits(longer))
            return math.exp(
                (1 - part) * math.log(shorter["tokens"]) + part * math.log(longer["tokens"])
            )
    return None


def _bits(result: Result) -> float:
    return result["bits_per_byte"]


if __name__ == "__main__":
    main()
