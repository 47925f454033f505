"""What an editor asks and what it gets: one cursor in one text, one suggestion."""

import math
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from .. import fim
from ..errors import RequestError
from ..generation.sampling import SamplingOptions

Mode = Literal["line", "block", "auto"]

# "end": a special token; "stop": a stop string; "boundary": the place where a
# person would have stopped; "deadline" and "length": a limit of the request.
Finish = Literal["end", "stop", "boundary", "length", "deadline", "cancelled"]


@dataclass(frozen=True)
class Snippet:
    """Text of another file that may tell something about the one at the cursor."""

    path: str
    text: str


@dataclass(frozen=True)
class CompletionRequest:
    """A cursor between two texts. Raises RequestError for a value out of range.

    ``path`` tells documents apart. ``mode``: one line, a block of lines, or
    what the cursor's place asks for. ``deadline``: seconds from the first
    token on, past which generation ends as soon as it has a whole line.
    ``snippets``: of other files, the most telling first. All texts are held
    with LF, as a model reads and writes them; ``line_break`` is what the
    document has, found where it is not given.
    """

    prefix: str
    suffix: str = ""
    path: str | None = None
    mode: Mode = "auto"
    sampling: SamplingOptions = field(default_factory=SamplingOptions)
    deadline: float | None = None
    snippets: tuple[Snippet, ...] = ()
    line_break: str = ""

    def __post_init__(self) -> None:
        self._take_lf()
        if self.mode not in get_args(Mode):
            raise RequestError(f"mode {self.mode!r}: must be one of {', '.join(get_args(Mode))}")
        if self.deadline is not None and not (math.isfinite(self.deadline) and self.deadline > 0):
            raise RequestError(f"deadline {self.deadline!r}: must be seconds above 0, or None")

    def _take_lf(self) -> None:
        stop = tuple(map(fim.with_lf, self.sampling.stop))
        values = {
            "line_break": self.line_break or fim.line_break(self.prefix, self.suffix),
            "prefix": fim.with_lf(self.prefix),
            "suffix": fim.with_lf(self.suffix),
            "sampling": replace(self.sampling, stop=stop),
            "snippets": tuple(Snippet(one.path, fim.with_lf(one.text)) for one in self.snippets),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)


@dataclass(frozen=True)
class Cost:
    """What an answer took: tokens, those of the prompt that were not computed anew, seconds."""

    prompt_tokens: int = 0
    reused_tokens: int = 0
    completion_tokens: int = 0
    prompt_seconds: float = 0.0
    completion_seconds: float = 0.0


@dataclass(frozen=True)
class Score:
    """A token: where its text ends in the suggestion's, and its natural log-probability."""

    stop: int
    logprob: float


@dataclass(frozen=True)
class Suggestion:
    """The text to insert at the cursor, maybe none. A ``cost`` of nothing: it was known.

    ``scores`` are of all tokens that were written, those behind the text's end too.
    """

    text: str
    finish: Finish
    stopping_word: str = ""
    cost: Cost = Cost()
    scores: tuple[Score, ...] = ()

    def after(self, count: int) -> "Suggestion":
        """What is left once the first ``count`` characters have been typed."""
        left = (Score(one.stop - count, one.logprob) for one in self.scores if one.stop > count)
        return replace(self, text=self.text[count:], scores=tuple(left))

    def spelled(self, line_break: str) -> "Suggestion":
        """With a document's own line breaks, where it was written with LF."""
        more, text = len(line_break) - 1, self.text
        stops = (one.stop + more * text.count("\n", 0, one.stop) for one in self.scores)
        scores = map(Score, stops, (one.logprob for one in self.scores))
        return replace(self, text=text.replace("\n", line_break), scores=tuple(scores))

    @property
    def probability(self) -> float:
        """That all of the text is right, by what its tokens were given; 1 where there is none."""
        return math.exp(sum(score.logprob for score in self.shown_scores))

    @property
    def shown_scores(self) -> tuple[Score, ...]:
        """Those of the tokens that begin within the text."""
        starts = (0, *(score.stop for score in self.scores))
        return tuple(
            score
            for score, start in zip(self.scores, starts, strict=False)
            if start < len(self.text)
        )
