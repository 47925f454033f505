"""Several tasks of one model into one folder, from which reports and comparisons are made.

Each task is a journal of scores in ``scores/``, those that write one of samples in
``samples/`` too: whatever was done before a kill is not done again, and a model
that has nothing left to do is not loaded. It gives up running two into one folder.
"""

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ..completion.postprocess import Filter, postprocess
from ..completion.service import CompletionService
from ..engine.packed_weights import Precision
from ..errors import EvaluationError, MissingExtraError
from ..fim import Order
from ..generation.sampling import SamplingOptions
from ..pretrained import Model, load
from .bits_per_byte import MIDDLES, Encoder, Score, Scorer, ScoringDecoder
from .boundaries import cut_holes, score_holes, write_holes
from .generators import FamilyModel, Generator
from .held_out import Source
from .journal import Journal, Record
from .keystrokes import (
    AT_ONCE,
    Write,
    as_written,
    by_generator,
    request_at,
    sample_lines,
    score_lines,
    write_lines,
)
from .parse_rate import cut_prompts, parse_rate
from .problems import BENCHMARKS, Task, line_task, read_task
from .scoring import Run, generate, score
from .speculation import measure

# Those that need held-out files.
KEYSTROKES = "keystrokes"
ON_FILES = ("bits-per-byte", "middles", "parse-rate", "line-match", KEYSTROKES)
# Of the completion service, which only models of this family have.
BOUNDARIES = "boundaries"
# With a draft model, or by prompt lookup without one.
SPECULATION = "speculation"
TASKS = (*ON_FILES, BOUNDARIES, *BENCHMARKS, SPECULATION)
# Who is no model of this family, by the word before the colon.
TRANSFORMERS, SERVERS, JEDI = "transformers", ("llama.cpp", "openai"), "jedi"
PEERS = (TRANSFORMERS, *SERVERS, JEDI)

# Takes a description, how many, and what comes; passes it on and shows how far it is.
Watch = Callable[[str, int, Iterable[Record]], Iterable[Record]]


@dataclass(frozen=True)
class Settings:
    """``samples`` a problem; ``limit``: at most so many problems a task, evenly spread."""

    samples: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    limit: int | None = None
    lines: int = 500
    prompts: int = 50

    def options(self) -> SamplingOptions:
        """For the sampler. RequestError for values out of range, or samples all the same."""
        if self.samples > 1 and not self.temperature:
            raise EvaluationError(
                "several samples at temperature 0 are all the same: give --temperature"
            )
        return SamplingOptions(temperature=self.temperature, top_p=self.top_p, seed=self.seed)


class Subject:
    """The model by its name, loaded when first asked for.

    ``nano``, a folder or a hub id; ``transformers:NAME``; ``llama.cpp:URL`` or
    ``openai:URL``, with ``#MODEL`` where the server wants a name; ``jedi``, for
    keystrokes alone.
    """

    def __init__(self, name: str, precision: Precision = "fp32", order: Order = "spm") -> None:
        """``precision`` in memory: a peer has its own. ``order`` of infilling: a server has its."""
        self.name, self._precision, self._order = name, precision, order
        self._kind, _, self._where = name.partition(":")

    @cached_property
    def _loaded(self) -> tuple[Generator, ScoringDecoder | None, Encoder | None]:
        if self._kind == TRANSFORMERS:
            # Not before it is asked for: it brings torch.
            try:
                from .peers.transformers_model import TransformersModel
            except ModuleNotFoundError as error:
                raise MissingExtraError(self.name, "evaluate") from error
            peer = TransformersModel(self._where, self._order)
            return peer, peer.decoder, peer.tokenizer
        if self._kind in SERVERS:
            from .peers.server import ServerModel

            url, _, model = self._where.partition("#")
            return ServerModel(url, self._kind, model), None, None  # type: ignore[arg-type]
        if self._kind == JEDI:
            raise EvaluationError(f"{JEDI} is no model: all it can be asked is --task {KEYSTROKES}")
        own = load(self.name, precision=self._precision)
        return FamilyModel(own, self._order), own.decoder, own.tokenizer

    @property
    def generator(self) -> Generator:
        """What writes."""
        return self._loaded[0]

    def protocol(self, *, infills: bool = False) -> Record:
        """Of what was asked for, that which it heeds."""
        has_order, is_own = self._kind not in (*SERVERS, JEDI), self._kind not in PEERS
        order = {"order": self._order} if infills and has_order else {}
        return {**order, **({"precision": self._precision} if is_own else {})}

    def own(self, task: str, draft: str | None = None) -> Model:
        """The model itself, with what guesses for it. EvaluationError for a peer."""
        if self._kind in PEERS:
            raise EvaluationError(f"{self.name}: {task} needs a model of this family")
        return load(self.name, precision=self._precision, draft=draft)

    def service(self, task: str) -> CompletionService:
        """The model behind the completion service, with slots to keep lines' prompts in."""
        return CompletionService(self.own(task), order=self._order, slots=2 * AT_ONCE)

    @property
    def is_filtered(self) -> bool:
        """Whether what it writes goes through the service's filters before it is shown."""
        return self._kind != JEDI

    @contextmanager
    def writer(self, sources: Sequence[Source]) -> Iterator[tuple[Write, int]]:
        """For lines of these sources: what is written at a place, and how many may ask at once."""
        if self._kind == JEDI:
            try:
                from .peers.jedi import jedi_writer
            except ModuleNotFoundError as error:
                raise MissingExtraError(JEDI, "evaluate") from error
            with jedi_writer(sources) as write:
                yield write, 1
        elif self._kind in PEERS:
            yield by_generator(self.generator), 1
        else:
            with self.service(KEYSTROKES) as service:
                yield lambda line, at: service.write(request_at(line, at)), AT_ONCE

    def scorer(self) -> Scorer:
        """EvaluationError for a server, which tells no probabilities."""
        _, decoder, tokenizer = self._loaded
        if decoder is None or tokenizer is None:
            raise EvaluationError(f"{self.name}: bits-per-byte needs the weights, not a server")
        return Scorer(decoder, tokenizer)


class Suite:
    """Runs tasks of one subject into ``output``."""

    def __init__(
        self,
        subject: Subject,
        output: Path,
        settings: Settings,
        sources: Sequence[Source],
        watch: Watch,
    ) -> None:
        self._subject, self._output, self._settings = subject, output, settings
        self._sources, self._watch = sources, watch

    def run(
        self,
        name: str,
        path: Path | None = None,
        *,
        draft: str | None = None,
        score: bool = True,
        run: Run | None = None,
        workers: int = 1,
    ) -> None:
        """One of TASKS, a benchmark from its file; with ``score`` off, its samples alone."""

        def written_and_scored() -> None:
            task = self.task(name, path)
            samples = self.generate(task)
            if score:
                self.score(task, samples, run, workers)

        others: dict[str, Callable[[], None]] = {
            "bits-per-byte": lambda: self.bits_per_byte(name),
            "middles": lambda: self.bits_per_byte(name),
            "parse-rate": self.parse_rate,
            KEYSTROKES: lambda: self.keystrokes(score=score),
            BOUNDARIES: lambda: self.boundaries(score=score),
            SPECULATION: lambda: self.speculation(draft),
        }
        others.get(name, written_and_scored)()

    def task(self, name: str, path: Path | None = None) -> Task:
        """A task whose samples are programs or lines, cut to the limit."""
        settings = self._settings
        if name == "line-match":
            return line_task(self._need_sources(name), settings.lines, settings.seed)
        task = read_task(name, path)
        return task if settings.limit is None else task.subset(settings.limit)

    def generate(self, task: Task) -> Journal:
        """The samples; those that are there already are kept."""
        settings = self._settings
        protocol: Record = {"samples": settings.samples, "temperature": settings.temperature}
        protocol |= {"top_p": settings.top_p, "seed": settings.seed, "max_tokens": task.max_tokens}
        infills = any(problem.suffix is not None for problem in task.problems)
        header = self._header(task.name, protocol, infills=infills)
        header |= {"problems": task.checksum()}
        journal = Journal(self._output / "samples" / f"{task.name}.jsonl", header)
        if len(journal.records) < len(task.problems):
            records = generate(
                task, self._subject.generator, settings.options(), settings.samples, journal
            )
            self._exhaust(f"{task.name}: writing", len(task.problems), records)
        return journal

    def score(self, task: Task, samples: Journal, run: Run | None, workers: int) -> None:
        """Scores what :meth:`generate` wrote; ``run`` runs programs."""
        scores = self._scores_of(samples)
        records = score(task, samples, scores, run, workers)
        self._exhaust(f"{task.name}: scoring", len(task.problems), records)

    def bits_per_byte(self, name: str) -> None:
        """``bits-per-byte`` left to right, or of ``middles``; an item is a file."""
        files = [(s.name, path, text) for s in self._need_sources(name) for path, text in s.files]
        journal = self._scores(name, {"seed": self._settings.seed})

        def records() -> Iterator[Record]:
            scorer: Scorer | None = None
            for source, path, text in files:
                item = f"{source}: {path}"
                if item not in journal.records:
                    scorer = scorer or self._subject.scorer()
                    columns = ("bits-per-byte",) if name == "bits-per-byte" else MIDDLES
                    scored = (
                        (scorer.text(text),)
                        if name == "bits-per-byte"
                        else scorer.middles(text, random.Random(f"{self._settings.seed} {item}"))
                    )
                    metrics = dict(zip(columns, map(_bits, scored), strict=True))
                    journal.append({"id": item, "group": source, "metrics": metrics})
                yield journal.records[item]

        self._exhaust(name, len(files), records())

    def parse_rate(self) -> None:
        """An item is a prompt."""
        settings, sources = self._settings, self._need_sources("parse-rate")
        prompts = cut_prompts(sources, settings.prompts, settings.seed)
        journal = self._scores("parse-rate", {"seed": settings.seed, "prompts": settings.prompts})

        def records() -> Iterator[Record]:
            todo = [prompt for prompt in prompts if prompt.id not in journal.records]
            results = parse_rate(todo, self._subject.generator) if todo else iter(())
            for prompt in prompts:
                if prompt.id not in journal.records:
                    result = next(results)
                    metrics = {"whole Python": (float(result.verdict.passed), 1)}
                    record = {"id": prompt.id, "metrics": metrics}
                    record |= {"failed": [result.verdict.reason], "text": result.completion}
                    journal.append(record)
                yield journal.records[prompt.id]

        self._exhaust("parse-rate", len(prompts), records())

    def speculation(self, draft: str | None) -> None:
        """Greedy, 128 tokens a prompt; by the model ``draft`` or, with None, prompt lookup."""
        settings, sources = self._settings, self._need_sources(SPECULATION)
        prompts = cut_prompts(sources, settings.prompts, settings.seed)
        protocol = {"seed": settings.seed, "prompts": settings.prompts, "draft": draft}
        journal = self._scores(SPECULATION, protocol)
        options = SamplingOptions(max_tokens=128)

        def records() -> Iterator[Record]:
            model: Model | None = None
            for prompt in prompts:
                if prompt.id not in journal.records:
                    model = model or self._subject.own(SPECULATION, draft)
                    assert model.new_drafter is not None
                    metrics = measure(model, model.new_drafter, prompt.text, options)
                    journal.append({"id": prompt.id, "metrics": metrics})
                yield journal.records[prompt.id]

        self._exhaust(SPECULATION, len(prompts), records())

    def keystrokes(self, *, score: bool = True) -> None:
        """An item is a line, typed again; with ``score`` off, only what is written in it."""
        settings, subject = self._settings, self._subject
        lines = sample_lines(self._need_sources(KEYSTROKES), settings.lines, settings.seed)
        samples = self._samples(KEYSTROKES)
        if len(samples.records) < len(lines):
            with subject.writer(self._sources) as (write, at_once):
                written = write_lines(lines, write, samples, at_once)
                self._exhaust(f"{KEYSTROKES}: writing", len(lines), written)
        if score:
            chains: dict[str, Filter] = {"": as_written}
            if subject.is_filtered:
                chains = {"": postprocess, " unfiltered": as_written}
            scored = score_lines(lines, samples, self._scores_of(samples), chains)
            self._exhaust(f"{KEYSTROKES}: scoring", len(lines), scored)

    def boundaries(self, *, score: bool = True) -> None:
        """An item is a hole; with ``score`` off, only what is written in it."""
        settings = self._settings
        holes = cut_holes(self._need_sources(BOUNDARIES), settings.lines, settings.seed)
        samples = self._samples(BOUNDARIES)
        if len(samples.records) < len(holes):
            with self._subject.service(BOUNDARIES) as service:
                written = write_holes(holes, service, samples)
                self._exhaust(f"{BOUNDARIES}: writing", len(holes), written)
        if score:
            scored = score_holes(holes, samples, self._scores_of(samples))
            self._exhaust(f"{BOUNDARIES}: scoring", len(holes), scored)

    def _samples(self, name: str) -> Journal:
        settings = self._settings
        protocol = {"lines": settings.lines, "seed": settings.seed}
        header = self._header(name, protocol, infills=True) | self._source_names()
        return Journal(self._output / "samples" / f"{name}.jsonl", header)

    def _scores_of(self, samples: Journal) -> Journal:
        return Journal(self._output / "scores" / samples.path.name, samples.header)

    def _scores(self, name: str, protocol: Record) -> Journal:
        header = self._header(name, protocol) | self._source_names()
        return Journal(self._output / "scores" / f"{name}.jsonl", header)

    def _source_names(self) -> Record:
        return {"sources": [source.name for source in self._sources]}

    def _header(self, name: str, protocol: Record, *, infills: bool = False) -> Record:
        subject = self._subject
        protocol = {**protocol, **subject.protocol(infills=infills)}
        return {"task": name, "model": subject.name, "protocol": protocol}

    def _need_sources(self, name: str) -> Sequence[Source]:
        if not self._sources:
            raise EvaluationError(f"{name}: needs files: name wheels, sdists, folders or .py files")
        return self._sources

    def _exhaust(self, description: str, total: int, records: Iterable[Record]) -> None:
        for _ in self._watch(description, total, records):
            pass


def _bits(scored: Score) -> tuple[float, int]:
    # Of nothing, nothing.
    return (scored.bits_per_byte * scored.bytes if scored.bytes else 0.0, scored.bytes)
