"""What raises the keystrokes that a model saves: each lever on the same held-out lines.

    python benchmarks/levers.py PACKAGE… --output FOLDER --part measure --lines 200

What the model writes at every place of a line is computed once for each way of
asking it and kept in FOLDER (a killed run goes on there); which part of it is shown is
decided afterwards, so that all rules see the same texts. The sources' files are split in
two by the hash of their path: parameters are chosen on ``tune``, told on ``measure``.
The interval resamples the lines; a difference is of pairs, to the first row.

As in the service, a text that is typed into is not asked for again. Neighbors are the
files beside a line's own, as if they were open.
"""

import argparse
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from tinystarcoder.completion.doubt import ends, first_part
from tinystarcoder.completion.postprocess import filtered
from tinystarcoder.completion.repository import Neighbors
from tinystarcoder.completion.request import CompletionRequest, Snippet, Suggestion
from tinystarcoder.completion.service import CompletionService
from tinystarcoder.completion.syntax import scan, scan_prefix
from tinystarcoder.evaluation.held_out import Source, read_sources
from tinystarcoder.evaluation.journal import Journal, Record
from tinystarcoder.evaluation.keystrokes import (
    MAX_TOKENS,
    Line,
    Typed,
    replay,
    request_at,
    restored,
    sample_lines,
    stored,
)
from tinystarcoder.evaluation.statistics import difference, ratio
from tinystarcoder.fim import Order
from tinystarcoder.generation.sampling import SamplingOptions
from tinystarcoder.pretrained import load

PARTS = ("tune", "measure")
OPEN_FILES = 8
CANDIDATES, TEMPERATURE = 4, 0.5
NOTHING = Suggestion("", "end")


class Way(NamedTuple):
    """A way of asking. ``whole``: with all of the file, not with what an editor's plugin sends."""

    order: Order = "spm"
    ngrams: bool = False
    whole: bool = False
    neighbors: bool = False
    candidates: int = 1


WAYS = {
    "SPM": Way(),
    "PSM": Way("psm"),
    "n-grams": Way(ngrams=True),
    "n-grams, PSM": Way("psm", ngrams=True),
    "n-grams, whole file": Way(ngrams=True, whole=True),
    "n-grams, neighbors": Way(ngrams=True, neighbors=True),
    "candidates": Way(candidates=CANDIDATES),
}

Rule = Callable[[Suggestion], int]  # How many characters are shown.


def likely(least: float, rule: Rule) -> Rule:
    """What a rule shows, withheld where it is less likely to be right."""

    def shown(made: Suggestion) -> int:
        size = rule(made)
        return size if replace(made, text=made.text[:size]).probability >= least else 0

    return shown


def sure(least: float) -> Rule:
    """The first word, and each next one that is at least so probable."""

    def shown(made: Suggestion) -> int:
        size, known = 0, 0.0
        for stop, logprob in ends(made):
            if size and logprob - known < math.log(least):
                break
            size, known = stop, logprob
        return size

    return shown


def whole(made: Suggestion) -> int:
    return len(made.text)


def word(made: Suggestion) -> int:
    found = ends(made)
    return found[0][0] if found else 0


def expected(made: Suggestion, *, torn: bool = False) -> int:
    found = ends(made, torn=torn)
    return first_part(found) if found else 0


RULES: Mapping[str, Rule] = {
    "whole line": whole,
    **{f"whole line, if ≥ {p}": likely(p, whole) for p in (0.1, 0.5)},
    "one word": word,
    **{f"words while ≥ {p}": sure(p) for p in (0.3, 0.5, 0.7, 0.9)},
    "expected keys": expected,
    "expected keys, inside words": partial(expected, torn=True),
    **{f"expected keys, if ≥ {p}": likely(p, expected) for p in (0.05, 0.1, 0.2, 0.3, 0.5)},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("sources", nargs="+", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--part", choices=PARTS, default="measure")
    parser.add_argument("--lines", type=int, default=200)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--rules", nargs="+", default=list(RULES), choices=list(RULES))
    parser.add_argument("--jedi", action="store_true", help="beside them Jedi's first completion")
    parser.add_argument("--threads", type=int, default=4)
    options = parser.parse_args()
    sources = list(read_sources(options.sources))
    lines = sample_lines([part_of(s, options.part) for s in sources], options.lines)
    header = {"task": "levers", "model": options.model}
    rows: dict[str, list[Typed]] = {}
    for name in options.ways:
        path = options.output / f"{options.part}-{name.replace(', ', '-')}.jsonl"
        journal = Journal(path, header | {"way": [*WAYS[name]]})
        write(journal, lines, sources, WAYS[name], options.model, options.threads)
        for rule in options.rules:
            shown = partial(show, journal.records, RULES[rule])
            rows[f"{name} | {rule}"] = [replay(line, shown) for line in lines]
    if options.jedi:
        path = options.output / f"{options.part}-jedi.jsonl"
        rows["Jedi | first completion"] = by_jedi(path, lines, sources)
    print_table(rows)


def part_of(source: Source, part: str) -> Source:
    chosen = [f for f in source.files if PARTS[zlib.crc32(f[0].encode()) % 2] == part]
    return Source(source.name, tuple(chosen), ())


def write(
    journal: Journal,
    lines: Sequence[Line],
    sources: Sequence[Source],
    way: Way,
    model: str,
    threads: int,
) -> None:
    """What is suggested at every place of the lines that the journal does not have yet."""
    missing = [line for line in lines if line.id not in journal.records]
    if not missing:
        return
    files = {source.name: source.files for source in sources}
    loaded, slots = load(model), 2 * threads
    with (
        CompletionService(loaded, order=way.order, ngrams=way.ngrams, slots=slots) as service,
        ThreadPoolExecutor(threads) as pool,
    ):
        for record in pool.map(partial(type_line, service, way, files), missing):
            journal.append(record)


def type_line(
    service: CompletionService,
    way: Way,
    files: Mapping[str, Sequence[tuple[str, str]]],
    line: Line,
) -> Record:
    neighbors, others = Neighbors(), open_files(line, files) if way.neighbors else []
    places, asked, made = [], 0, NOTHING
    for at in range(len(line.text)):
        made = made.after(1) if at and made.text[:1] == line.text[at - 1] else NOTHING
        if not made.text:
            request = request_at(line, at)
            if way.whole:
                prefix, suffix = line.above + request.prefix, request.suffix + line.below
                request = replace(request, prefix=prefix, suffix=suffix)
            if others:
                chosen = neighbors.choose(line.path, request.prefix, request.suffix, others)
                request = replace(request, snippets=chosen)
            made, asked = suggest(service, request, way.candidates), asked + 1
        places.append(stored(made))
    return {"id": line.id, "asked": asked, "places": places}


def open_files(line: Line, files: Mapping[str, Sequence[tuple[str, str]]]) -> list[Snippet]:
    """The files of the line's folder, those first whose names come next."""
    here = PurePosixPath(line.path)
    beside = [
        Snippet(path, text)
        for path, text in files[line.source]
        if PurePosixPath(path).parent == here.parent and path != line.path
    ]
    return sorted(beside, key=lambda snippet: (snippet.path < line.path, snippet.path))[:OPEN_FILES]


def suggest(service: CompletionService, request: CompletionRequest, candidates: int) -> Suggestion:
    """The filtered suggestion; of the greedy one and samples, the one that promises most."""
    sampled = (SamplingOptions(MAX_TOKENS, TEMPERATURE, seed=n) for n in range(1, candidates))
    asked = [request, *(replace(request, sampling=options) for options in sampled)]
    found = [filtered(service.write(one), one) for one in asked]
    return max(found, key=lambda made: promise(made, request))


def promise(made: Suggestion, request: CompletionRequest) -> float:
    """Saved keys that the shown part promises; none where it closes what nothing opens."""
    found = ends(made)
    if not found:
        return 0.0
    size = first_part(found)
    head = request.prefix[scan_prefix(request.prefix).lines[-1] :]
    if scan(head + made.text[:size]).unmatched:
        return 0.0
    return (size - 1) * math.exp(dict(found)[size])


def show(records: Mapping[str, Record], rule: Rule, line: Line, at: int) -> str:
    made = restored(records[line.id]["places"][at])
    return made.text[: rule(made)]


def by_jedi(path: Path, lines: Sequence[Line], sources: Sequence[Source]) -> list[Typed]:
    """Jedi is given all of the package, and all of the file."""
    from tinystarcoder.evaluation.peers.jedi import jedi_writer

    journal, typed = Journal(path, {"task": "levers", "model": "jedi"}), []
    with jedi_writer(sources) as writer:
        for line in lines:
            if line.id not in journal.records:
                found = replay(line, lambda line, at: writer(line, at).text)
                journal.append({"id": line.id, "typed": [*vars(found).values()]})
            typed.append(Typed(*journal.records[line.id]["typed"]))
    return typed


def print_table(rows: Mapping[str, Sequence[Typed]]) -> None:
    first = pairs(next(iter(rows.values())))
    print("| asked | shown | saved | 95% | to the first | right of shown | shown | whole lines |")
    print("|---|---|---|---|---|---|---|---|")
    for name, typed in rows.items():
        saved, gain = ratio(pairs(typed)), difference(first, pairs(typed))
        places, shown = sum(t.places for t in typed), sum(t.shown for t in typed)
        accepted, lines = sum(t.accepted for t in typed), sum(t.whole for t in typed)
        print(
            f"| {name} | {saved.value:.1%} | {saved.low:.1%} to {saved.high:.1%} "
            f"| {gain.value:+.1%} ({gain.low:+.1%} to {gain.high:+.1%}) "
            f"| {accepted / max(1, shown):.0%} | {shown / places:.0%} | {lines / len(typed):.0%} |"
        )


def pairs(typed: Sequence[Typed]) -> list[tuple[float, float]]:
    return [(t.saved, t.characters) for t in typed]


if __name__ == "__main__":
    main()
