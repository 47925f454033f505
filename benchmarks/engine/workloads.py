"""Prompts for prompt lookup: nano's own text over real files, since random weights say nothing.

Three kinds. *Edit-like*: a file of this repository, then its beginning again with one
name changed, to be gone on with, as an editor asks that rewrites a file. *Repeated
patterns*: files whose lines follow a pattern, cut in its middle. *Nothing to guess*:
the same prompts' first lines, sampled hot.
"""

import re
from pathlib import Path

from tinystarcoder.tokenizer import Tokenizer

ROOT = Path(__file__).resolve().parents[2]
LONGEST = 1600  # Of nano's 2,048 positions.

FILES = (
    "src/tinystarcoder/fim.py",
    "src/tinystarcoder/files.py",
    "src/tinystarcoder/engine/prefix_cache.py",
    "src/tinystarcoder/generation/stopping.py",
    "src/tinystarcoder/training/schedule.py",
    "src/tinystarcoder/completion/request.py",
    "src/tinystarcoder/completion/suggestion_cache.py",
    "src/tinystarcoder/generation/healing.py",
)
PATTERNS = (
    "src/tinystarcoder/errors.py",
    "src/tinystarcoder/generation/sampling.py",
    "src/tinystarcoder/cli/options.py",
    "tests/generation/test_stopping.py",
    "tests/training/test_schedule.py",
    "tests/completion/test_stopping.py",
)


def prompts(tokenizer: Tokenizer) -> dict[str, tuple[list[list[int]], float]]:
    """Kind -> its prompts and the temperature to go on with."""
    edits = [_edit(tokenizer, (ROOT / name).read_text()) for name in FILES]
    patterns = [tokenizer.encode((ROOT / name).read_text())[:700] for name in PATTERNS]
    heads = [tokenizer.encode((ROOT / name).read_text())[:60] for name in (*FILES, *PATTERNS)]
    return {
        "edit-like": (edits, 0.0),
        "repeated patterns": (patterns, 0.0),
        "nothing to guess (nano, temperature 1)": (heads, 1.0),
    }


def _edit(tokenizer: Tokenizer, text: str) -> list[int]:
    """The file, and its first third once more, in which one name is another."""
    ids = tokenizer.encode(text)[: LONGEST * 3 // 4]
    text = tokenizer.decode(ids)
    again = text[: len(text) // 3]
    names = re.findall(r"\b[a-z_]{5,}\b", again)
    renamed = re.sub(rf"\b{max(names, key=names.count)}\b", "renamed", again)
    return tokenizer.encode(f"{text}\n\n{renamed}")
