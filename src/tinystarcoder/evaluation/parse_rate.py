"""Parse rate: how often what a model writes into a real file is Python that does something.

**Prompts** are cut from held-out files, deterministically by a seed, the same
for every model, evenly over the sources and over each source's files:

- where a statement begins, first on its line, anywhere in a function's body;
  the prompt ends with the line break before it;
- where one ``pass`` there would make the prompt whole (so not inside an open
  ``try``, which would also need its ``except``);
- from the start of the file, or, where that is more than 3,000 characters
  (about 1,000 tokens), from the first top-level statement from which it is not.

**The verdict** on a completion of at most 64 tokens, greedy, is :mod:`~tinystarcoder.verdict`'s;
how many passed by a docstring alone is told beside the rate.
"""

import ast
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from ..generation.sampling import SamplingOptions
from ..verdict import Verdict, judge, one_pass_makes_it_whole, parse
from .generators import Ask, Generator
from .held_out import Source, deal

MAX_CHARACTERS = 3000
MAX_TOKENS = 64


@dataclass(frozen=True)
class Prompt:
    """The beginning of a real file, up to where ``line`` (from 1) begins."""

    source: str
    path: str
    line: int
    text: str

    @property
    def id(self) -> str:
        """Tells it from all others of its sources."""
        return f"{self.source}: {self.path}:{self.line}"


@dataclass(frozen=True)
class Result:
    """One prompt, what the model wrote after it, and what that is worth."""

    prompt: Prompt
    completion: str
    verdict: Verdict


def parse_rate(
    prompts: Sequence[Prompt], generator: Generator, max_tokens: int = MAX_TOKENS
) -> Iterator[Result]:
    """The verdict on what is written, greedily, after each prompt, as they come."""
    options = SamplingOptions(max_tokens=max_tokens)
    asked = (Ask(prompt.text, None, options) for prompt in prompts)
    for prompt, (text,) in zip(prompts, generator.generate(asked), strict=True):
        yield Result(prompt, text.text, judge(prompt.text, text.text, ended=text.ended))


def cut_prompts(sources: Sequence[Source], count: int, seed: int = 0) -> list[Prompt]:
    """``count`` prompts, as evenly over the sources as they come.

    Raises CorpusError where a source has not enough places to cut.
    """
    return deal(sources, count, seed, _cut_file)


def _cut_file(source: str, path: str, text: str, rng: random.Random) -> Iterator[Prompt]:
    """Every prompt that one file can give, in shuffled order."""
    try:
        tree = parse(text)
    except SyntaxError:
        return
    lines = text.split("\n")
    boundaries = [1, *map(_first_line, tree.body)]
    places = sorted(
        {
            _first_line(statement)
            for function in ast.walk(tree)
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
            for statement in chain.from_iterable(map(_statements, function.body))
        }
    )
    for place in rng.sample(places, len(places)):
        start = _context_start(lines, boundaries, place)
        prompt = "".join(line + "\n" for line in lines[start - 1 : place - 1])
        if start < place and one_pass_makes_it_whole(prompt, lines[place - 1]):
            yield Prompt(source, path, place, prompt)


def _statements(node: ast.stmt) -> Iterator[ast.stmt]:
    return (inner for inner in ast.walk(node) if isinstance(inner, ast.stmt))


def _first_line(node: ast.stmt) -> int:
    decorators: list[ast.expr] = getattr(node, "decorator_list", [])
    return min([node.lineno, *(decorator.lineno for decorator in decorators)])


def _context_start(lines: list[str], boundaries: list[int], place: int) -> int:
    """The first of the boundaries from which ``place`` is near enough; ``place`` if none is."""
    for start in boundaries:
        size = sum(len(line) + 1 for line in lines[start - 1 : place - 1])
        if 0 < size <= MAX_CHARACTERS:
            return start
    return place
