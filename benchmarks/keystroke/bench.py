"""Settings of a run and what it has found so far."""

import math
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

from tinystarcoder.pretrained import locate
from tinystarcoder.tokenizer import Tokenizer

from .servers import Answer

Figures = dict[str, list[float]]


class Bench:
    """``home``: the peers'; ``folder``: the models'; ``tokens``: how many a suggestion has."""

    def __init__(self, home: Path, folder: Path, wheels: list[Path], **settings: Any) -> None:
        self.home, self.folder, self.wheels = home, folder, wheels
        self.threads: int = settings["threads"]
        self.sessions: int = settings["sessions"]
        self.keys: int = settings["keys"]
        self.tokens: list[int] = settings["tokens"]
        self.clients: int = settings["clients"]
        self.seconds: float = settings["seconds"]
        self.leaving: int = settings["leaving"]
        # Measure -> server -> what each of its answers was.
        self.found: dict[str, dict[str, Figures]] = {}
        # What the loads have found, a row each.
        self.rows: dict[str, dict[str, Any]] = {}
        self.absent: dict[str, str] = {}
        self.save: Callable[[], None] = lambda: None  # Writes down what there is.

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """nano's, which the random weights are asked with too."""
        return Tokenizer.from_folder(locate("nano"))

    def add(self, measure: str, server: str, answer: Answer) -> None:
        if answer.status != 200:
            raise RuntimeError(f"{measure}, {server}: status {answer.status}")
        figures = self.found.setdefault(measure, {}).setdefault(server, {})
        figures.setdefault("ms", []).append(round(answer.seconds * 1000, 3))
        figures.setdefault("computed", []).append(answer.computed)
        figures.setdefault("written", []).append(answer.written)


def quantile(values: list[float], share: float) -> float:
    """The value that so many of them reach or stay below; not a number for none."""
    ordered = sorted(values)
    return ordered[math.ceil(share * len(ordered)) - 1] if ordered else math.nan
