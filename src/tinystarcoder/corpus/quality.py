"""How much like code worth learning from a file looks: a number from 0 to 1.

Readable heuristics, no model: each signal is a share or a ratio that is mapped
to 0 … 1, and the score is their weighted mean. It is stored with every document,
so that a build can cut by it (``--min-quality``) and a recipe can weight by it.

What it gives up: it knows nothing of what the code does. Whether it helps is
for a training run to say; nothing uses it by default.
"""

import re
import zlib

from .filters import DATA_LINE

# Signal: weight. They add up to 1.
WEIGHTS = {
    "explained": 0.25,  # Comments and docstrings: a twentieth of the text at least, not most.
    "structured": 0.20,  # Functions and classes: one in 30 lines.
    "logic": 0.25,  # Lines that are more than a literal, a bracket or an import.
    "varied": 0.15,  # How badly it compresses: tables and boilerplate do well.
    "narrow": 0.10,  # Lines of at most 100 characters.
    "typed": 0.05,  # Functions with annotations.
}

_SAMPLE = 1 << 16
_EXPLANATION = re.compile(r"\"\"\".*?\"\"\"|'''.*?'''|#[^\n]*", re.DOTALL)
_DEFINITION = re.compile(r"^[ \t]*+(?:async )?((?:def|class) [^\n]*+)", re.MULTILINE)
_ANNOTATION = re.compile(r"->|\w: \w")
_IMPORT = re.compile(r"^[ \t]*(?:import|from)[ \t]", re.MULTILINE)


def quality(text: str) -> float:
    """The score of one file."""
    found = signals(text)
    return round(sum(weight * found[name] for name, weight in WEIGHTS.items()), 4)


def signals(text: str) -> dict[str, float]:
    """Each signal by its name, from 0 to 1."""
    text = text[:_SAMPLE]
    lines = [line for line in text.split("\n") if line.strip()]
    if not lines:
        return dict.fromkeys(WEIGHTS, 0.0)
    explained = sum(map(len, _EXPLANATION.findall(text))) / len(text)
    definitions = _DEFINITION.findall(text)
    functions = [line for line in definitions if line.startswith("def")]
    annotated = sum(1 for line in functions if _ANNOTATION.search(line))
    plain = len(DATA_LINE.findall(text)) + len(_IMPORT.findall(text))
    compressed = len(zlib.compress(text.encode(), 1)) / len(text.encode())
    return {
        "explained": _ramp(explained, 0, 0.05) * _ramp(explained, 1, 0.7),
        "structured": _ramp(30 * len(definitions) / len(lines), 0, 1),
        "logic": _ramp(plain / len(lines), 0.9, 0.3),
        "varied": _ramp(compressed, 0.1, 0.25),
        "narrow": _ramp(sum(len(line) > 100 for line in lines) / len(lines), 0.25, 0),
        "typed": annotated / len(functions) if functions else 0.0,
    }


def _ramp(value: float, zero: float, one: float) -> float:
    """0 at ``zero`` and before it, 1 at ``one`` and past it, straight between."""
    return min(1.0, max(0.0, (value - zero) / (one - zero)))
