"""What a document goes through between its source and the corpus: a list of stages.

Each stage is a plain callable that passes a document on, as it is or changed,
or sets it aside with a reason. Excluded sources are not judged, only changed
as all others are, so that copies of their files stay copies.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path

from . import redaction
from .decoding import SetAside
from .decontamination import Decontamination, needles_of
from .document import Document
from .filters import FILTERS, Filter
from .license_headers import without_license_header
from .licenses import header_license, header_reason, is_permissive
from .opt_out import OptOuts, read_opt_outs
from .quality import quality
from .settings import Settings
from .syntax import shared_judge

Stage = Callable[[Document], Document | SetAside]


class Stages:
    """The stages of one build, in order; made once in each worker for each source.

    ``raw``: an excluded source, whose documents are changed but not judged.
    Raises CorpusError where a list that the settings name cannot be read.
    """

    def __init__(self, settings: Settings, raw: bool = False) -> None:
        self.redacted: Counter[str] = Counter()
        """How many findings of each kind were replaced."""
        self.opt_outs = read_opt_outs(Path(settings.opt_out)) if settings.opt_out else OptOuts()
        self._stages = list(self._changes(settings) if raw else self._all(settings))

    def __call__(self, document: Document) -> Document | SetAside:
        """The document as the corpus holds it, or why it does not."""
        for stage in self._stages:
            passed = stage(document)
            if isinstance(passed, SetAside):
                return passed
            document = passed
        return document

    def _all(self, settings: Settings) -> Iterator[Stage]:
        if settings.opt_out:
            yield judging(self.opt_outs)
        yield judging(not_permissive)
        yield judging(license_header)
        yield own_license
        if settings.strip_license_headers:
            yield without_header
        yield from map(judging, FILTERS)
        yield judging(shared_judge())
        if settings.decontaminate:
            yield judging(_decontamination(str(settings.facts()["decontaminate"]), settings))
        if settings.redact:
            yield Redaction(self.redacted, still=shared_judge())
        yield partial(scored, settings.min_quality)

    def _changes(self, settings: Settings) -> Iterator[Stage]:
        if settings.strip_license_headers:
            yield without_header
        if settings.redact:
            yield Redaction(self.redacted)


@lru_cache(maxsize=1)
def _decontamination(facts: str, settings: Settings) -> Decontamination:  # noqa: ARG001
    """The one of this process: of large benchmarks it takes seconds to make.

    ``facts`` change with what the files say.
    """
    paths = map(Path, settings.decontaminate)
    return Decontamination(needle for path in paths for needle in needles_of(path))


def judging(keep: Filter) -> Stage:
    """A filter as a stage."""

    def stage(document: Document) -> Document | SetAside:
        reason = keep(document)
        return SetAside(reason) if reason else document

    return stage


def not_permissive(document: Document) -> str | None:
    """A filter for files that come with another license than their source: rows, subfolders."""
    if not document.license:
        return "license unknown"
    return None if is_permissive(document.license) else "license not permissive"


def license_header(document: Document) -> str | None:
    """A filter: a copyleft header inside a permissive package."""
    return header_reason(document.text)


def own_license(document: Document) -> Document:
    """A stage: what a file's SPDX tags say holds for it."""
    license_ = header_license(document.text)
    return replace(document, license=license_) if license_ else document


def without_header(document: Document) -> Document:
    """A stage: see ``license_headers.py``."""
    return replace(document, text=without_license_header(document.text))


def scored(minimum: float, document: Document) -> Document | SetAside:
    """A stage: notes the quality; below the minimum, a document is set aside."""
    score = quality(document.text)
    return SetAside("low quality") if score < minimum else replace(document, quality=score)


class Redaction:
    """A stage: replaces personal data and secrets, and counts them into ``counts``.

    ``still`` judges what was changed: a product of matrices may look like an
    address, x@w.me.
    """

    def __init__(self, counts: Counter[str], still: Filter = lambda _: None) -> None:
        self._counts, self._still = counts, still

    def __call__(self, document: Document) -> Document | SetAside:
        text, counts = redaction.redact(document.text)
        redacted = replace(document, text=text)
        if counts and self._still(redacted):
            return SetAside("redaction broke it")
        self._counts.update(counts)
        return redacted
