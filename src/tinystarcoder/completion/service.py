"""From a request to a suggestion: cache, context, prompt, engine, stopping, filters.

A scheduler owns the engine and batches all texts, so a service may be asked
from many threads at once; what begins like an earlier prompt is computed from
where it differs. A client's newer request of a document cancels the older. Since
the engine writes while its text is read, it may be a token or two ahead where a
suggestion ends.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from contextvars import ContextVar
from dataclasses import astuple, dataclass, replace
from functools import lru_cache, partial
from threading import Lock
from time import monotonic
from typing import Self

from .. import fim
from ..errors import RequestError
from ..generation.generate import FinishReason, Piece, pieces_of
from ..generation.healing import Healing, take_back
from ..generation.sampling import SamplingOptions
from ..generation.scheduler import Generation, Scheduler
from ..generation.sequence import (
    NEVER,
    Cancellation,
    Mixture,
    Token,
    check_fits,
    room_for_prompt,
)
from ..pretrained import Model
from ..tokenizer import LineEncoder
from .context import fit, header
from .documents import Documents
from .ngrams import NgramCache
from .postprocess import MIN_PROBABILITY, filtered, shown
from .request import CompletionRequest, Cost, Finish, Score, Snippet, Suggestion
from .stopping import boundary, extent
from .suggestion_cache import SuggestionCache

# Who asks, where several do: slots go to them in fair turns, and their documents are apart.
CLIENT: ContextVar[str] = ContextVar("client", default="")


@dataclass(frozen=True)
class Prompt:
    """What the model reads at a cursor, and whether that is all of the texts around it."""

    ids: list[int]
    is_whole: bool


class CompletionService:
    """A model that many may ask at once. To be closed, or used as a context.

    ``order`` is the prompt's: in SPM order a keystroke only appends. ``slots``
    texts are written at once; ``waiting`` more may wait. A suggestion that is
    less likely to be right than ``min_probability`` is withheld. With
    ``prefetch``, the engine computes what follows an accepted suggestion while
    it has nothing else to do. ``ngrams``: what the open file and its snippets
    repeat counts for suggestions too, see :mod:`~.ngrams`.
    """

    def __init__(
        self,
        model: Model,
        *,
        order: fim.Order = "spm",
        slots: int = 8,
        waiting: int = 64,
        min_probability: float = MIN_PROBABILITY,
        prefetch: bool = False,
        ngrams: bool = True,
    ) -> None:
        self.model = model
        self.order = order
        self.slots = slots
        self.min_probability = min_probability
        self.prefetch = prefetch
        self.ngrams = ngrams
        self.suggestions = SuggestionCache()
        self.scheduler = Scheduler(
            model.decoder, slots=slots, waiting=waiting, new_drafter=model.new_drafter
        ).start()
        self.counts = Counts()
        self._documents = Documents()
        # Nearly all stays from key to key, and encoding it would be most of a key's work.
        self._encode = LineEncoder(model.tokenizer)
        self._above = lru_cache(maxsize=2 * slots)(partial(header, encode=self._encode))
        # One request asks for its prompt several times.
        self._prompt = lru_cache(maxsize=2 * slots)(self._made_prompt)

    @property
    def most_tokens(self) -> int:
        """Half of the context: as many as a suggestion takes, however many are asked for."""
        return self.model.config.n_positions // 2

    def close(self) -> None:
        """Ends what is being written, and the engine's thread."""
        self.scheduler.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def suggest(self, request: CompletionRequest, cancelled: Cancellation = NEVER) -> Suggestion:
        """What belongs at the cursor.

        Raises RequestError where that cannot be asked, BusyError where too many ask.
        """
        # What has no path has no newer request.
        document = (CLIENT.get(), request.path) if request.path else object()
        with self._documents.newest(document, cancelled) as current:
            if (ready := self.known(request)) is not None:
                return ready
            written = self.write(request, current)
        known = filtered(written, request)
        suggestion = shown(known, self.min_probability)
        if known.finish != "cancelled":
            # All of it is kept: what stands behind the point of doubt is the next suggestion.
            self.suggestions.store(request, known)
            self._compute_accepted(request, suggestion)
        return suggestion.spelled(request.line_break)

    def known(self, request: CompletionRequest) -> Suggestion | None:
        """What :meth:`suggest` would return without asking the model, if it could."""
        found = self.suggestions.find(request)
        if found is None:
            return None
        return shown(found, self.min_probability).spelled(request.line_break)

    def _compute_accepted(self, request: CompletionRequest, suggestion: Suggestion) -> None:
        """Has the engine compute, if it is idle, what it would read were the suggestion taken."""
        if self.prefetch and suggestion.text and sum(self.scheduler.load) <= 1:
            accepted = replace(request, prefix=request.prefix + suggestion.text)
            self.scheduler.prefetch(partial(self.prompt_ids, accepted))

    def write(self, request: CompletionRequest, cancelled: Cancellation = NEVER) -> Suggestion:
        """What the model writes at the cursor up to its natural end: not cached, not filtered.

        Its lines end in LF.
        """
        mixture = partial(NgramCache, self.model.tokenizer, request) if self.ngrams else None
        run = self.run(self.prompt_ids(request), request.sampling, cancelled, mixture=mixture)
        return _until_boundary(run, request)

    def run(
        self,
        ids: Sequence[int],
        options: SamplingOptions,
        cancelled: Cancellation = NEVER,
        *,
        sample: int = 0,
        mixture: Callable[[str], Mixture] | None = None,
        line_break: str = "\n",
    ) -> "Run":
        """The plain continuation of prompt ids, by no rule but the options'.

        ``sample`` numbers the texts of one prompt and seed; ``mixture`` makes what
        is known besides the model, given the end of the prompt that is written again;
        ``line_break`` stands in the text where the model writes LF.
        Raises RequestError where prompt and ``max_tokens`` do not fit the context,
        BusyError where too many ask.
        """
        ids = list(ids) or [self.model.config.bos_token_id]
        check_fits(self.model.config, len(ids), options.max_tokens)
        self.scheduler.check_room(CLIENT.get())
        return Run(self, ids, options, cancelled, sample, mixture, line_break)

    def fill(
        self, request: CompletionRequest, cancelled: Cancellation = NEVER, *, sample: int = 0
    ) -> "Run":
        """The same of the prompt for a request's cursor, by the request's sampling options."""
        ids, options = self.prompt_ids(request), request.sampling
        return self.run(ids, options, cancelled, sample=sample, line_break=request.line_break)

    def warm_up(self, ids: Sequence[int], cancelled: Cancellation = NEVER) -> Cost:
        """Computes a prompt, so that what begins with it is answered sooner."""
        run = self.run(ids, SamplingOptions(max_tokens=1), cancelled).whole()
        return Cost(len(ids), run.cost.reused_tokens, prompt_seconds=run.cost.prompt_seconds)

    def prompt(self, request: CompletionRequest) -> Prompt:
        """The prompt for a request's cursor, what other files say included.

        Its texts are cut to what the context holds.
        """
        limit, path, snippets = request.sampling.max_tokens, request.path, request.snippets
        return self._prompt(request.prefix, request.suffix, limit, path, snippets)

    def prompt_ids(self, request: CompletionRequest) -> list[int]:
        """The ids of :meth:`prompt`."""
        return self.prompt(request).ids

    def _made_prompt(
        self,
        prefix: str,
        suffix: str,
        max_tokens: int,
        path: str | None,
        snippets: tuple[Snippet, ...],
    ) -> Prompt:
        tokens = self.model.tokenizer.fim
        if tokens is None:
            raise RequestError("this model cannot infill: its vocabulary has no FIM tokens")
        room = max(0, room_for_prompt(self.model.config, max_tokens) - fim.SENTINELS)
        above = self._above(path, snippets, room)
        fitted = fit(prefix, suffix, room - len(above), self._encode)
        before = [*above, *fitted.before]
        return Prompt(fim.prompt(before, fitted.after, tokens, self.order), fitted.is_whole)


class Run:
    """One text being generated: go through :meth:`pieces`, once, close them, and read the rest.

    ``beginning`` is the text of the prompt's last token, which ``tokens`` write again.
    """

    def __init__(
        self,
        service: CompletionService,
        ids: list[int],
        options: SamplingOptions,
        cancelled: Cancellation,
        sample: int,
        mixture: Callable[[str], Mixture] | None,
        line_break: str,
    ) -> None:
        self.prompt_ids = ids
        self._tokenizer, self._scheduler = service.model.tokenizer, service.scheduler
        self._counts = service.counts
        self._ids, self.beginning = take_back(self._tokenizer, ids)
        self.options = options
        self.line_break = line_break
        self.tokens: list[Token] = []
        self.scores: list[Score] = []
        self.finish: Finish = "cancelled"
        self.cost = Cost(len(ids))
        self._text = ""  # As the model writes it.
        self._cancelled = cancelled
        self._sample = sample
        self._mixture = mixture(self.beginning) if mixture else None
        self._generation: Generation | None = None

    @property
    def text(self) -> str:
        """What has come so far."""
        return self.spelled(self._text)

    def spelled(self, text: str) -> str:
        """A text that the model has written, with the document's line breaks."""
        return text.replace("\n", self.line_break)

    def start(self) -> "Run":
        """Queues the text; texts started together are written together. Raises BusyError."""
        self._begun = monotonic()
        self._generation = self._scheduler.submit(
            self._ids,
            self.options,
            stop_ids=self._tokenizer.special_ids,
            sample=self._sample,
            healing=Healing(self._tokenizer, self.beginning) if self.beginning else None,
            mixture=self._mixture,
            cancelled=self._cancelled,
            client=CLIENT.get(),
        )
        return self

    def pieces(self) -> Generator[Piece, None, None]:
        """The text as it comes. Ends early, without a finish reason, once cancelled."""
        if self._generation is None:
            self.start()
        generation = self._generation
        assert generation is not None
        first = 0.0
        try:
            for piece in pieces_of(generation, self._tokenizer, self.options, self.beginning):
                if self._cancelled.is_set():
                    return
                first = first or monotonic()
                self._take(piece, generation.reused, first)
                yield replace(piece, text=self.spelled(piece.text))
        finally:  # Whoever closes the pieces wants no more of them.
            generation.cancel()
            self._counts.add(self.cost)

    def whole(self) -> "Run":
        """This run, with all its text."""
        with closing(self.pieces()) as pieces:
            for _ in pieces:
                pass
        return self

    @property
    def finish_reason(self) -> FinishReason:
        """The same in two words: a text that ran out of time ends as one that ran out of tokens."""
        return "stop" if self.finish in ("end", "stop") else "length"

    @property
    def stopping_word(self) -> str:
        """The stop string that ended the text; empty where none did."""
        if self.finish != "stop":
            return ""
        written = self._tokenizer.decode([token.id for token in self.tokens])
        end = len(self.beginning) + len(self._text)
        found = (stop for stop in self.options.stop if written.startswith(stop, end))
        return max(found, key=len, default="")

    def _take(self, piece: Piece, reused: int, first: float) -> None:
        self._text += piece.text
        self.tokens += piece.tokens
        self.scores += [Score(len(self._text), token.logprob) for token in piece.tokens]
        times = (first - self._begun, monotonic() - first)
        self.cost = Cost(len(self.prompt_ids), reused, len(self.tokens), *times)
        if piece.finish_reason == "stop":
            is_special = self.tokens[-1].id in self._tokenizer.special_ids
            self.finish = "end" if is_special else "stop"
        elif piece.finish_reason == "length":
            self.finish = "length"


class Counts:
    """What all answers so far have cost together."""

    def __init__(self) -> None:
        self.total = Cost()
        self._lock = Lock()

    def add(self, cost: Cost) -> None:
        """Adds one answer's. From any thread."""
        with self._lock:
            both = zip(astuple(self.total), astuple(cost), strict=True)
            self.total = Cost(*(before + more for before, more in both))


def _until_boundary(run: Run, request: CompletionRequest) -> Suggestion:
    """The run's text up to its natural end, or to the request's deadline."""
    run.start()  # The engine computes the prompt while the cursor's place is looked at.
    allowed, overdue = extent(request), False
    with closing(run.pieces()) as pieces:
        for _ in pieces:
            end = boundary(allowed, run.text, complete=run.finish in ("end", "stop"))
            if end is not None:
                return Suggestion(run.text[:end], "boundary", "", run.cost, tuple(run.scores))
            if request.deadline is not None:
                overdue = run.cost.completion_seconds >= request.deadline
            if overdue and "\n" in run.text:
                return Suggestion(run.text, "deadline", "", run.cost, tuple(run.scores))
    return Suggestion(run.text, run.finish, run.stopping_word, run.cost, tuple(run.scores))
