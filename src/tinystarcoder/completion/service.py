"""From a request to a suggestion: cache, context, prompt, engine, stopping, filters.

One lock owns the engine, so a service may be shared between threads; askers
wait for each other. One slot keeps what the last prompt and its text left in
it, and a prompt is computed from where it differs. It gives up batching, and
keeping the prompts of several documents at a time.
"""

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from threading import Event, Lock
from time import monotonic
from typing import Protocol

from .. import fim
from ..errors import RequestError
from ..generation.generate import Piece, Token, room_for_prompt, stream_text
from ..generation.healing import take_back
from ..generation.sampling import SamplingOptions
from ..pretrained import Model
from .context import fit
from .postprocess import postprocess
from .request import CompletionRequest, Cost, Finish, Suggestion
from .stopping import boundary, extent
from .suggestion_cache import SuggestionCache

# Prompt tokens computed between two looks at the cancellation, and seconds
# between two looks of one who waits for the engine.
PREFILL_STEP = 128
_POLL = 0.05


class Cancellation(Protocol):
    """What tells that an answer is no longer wanted: ``threading.Event`` is one."""

    def is_set(self) -> bool: ...


NEVER: Cancellation = Event()


class CompletionService:
    """A model that many may ask, answering one at a time.

    ``order`` is the prompt's: in SPM order a keystroke only appends.
    """

    def __init__(self, model: Model, *, order: fim.Order = "psm") -> None:
        self.model = model
        self.order = order
        self.suggestions = SuggestionCache()
        self._engine = _Engine(model)

    def suggest(self, request: CompletionRequest, cancelled: Cancellation = NEVER) -> Suggestion:
        """What belongs at the cursor. Raises RequestError where that cannot be asked."""
        known = self.suggestions.find(request)
        if known is not None:
            return known
        ids = self.infill_ids(request.prefix, request.suffix, request.sampling.max_tokens)
        run = self.run(ids, request.sampling, cancelled)
        suggestion = postprocess(_until_boundary(run, request), request)
        if suggestion.finish != "cancelled":
            self.suggestions.store(request, suggestion)
        return suggestion

    def run(
        self,
        ids: Sequence[int],
        options: SamplingOptions,
        cancelled: Cancellation = NEVER,
        *,
        sample: int = 0,
    ) -> "Run":
        """The plain continuation of prompt ids, by no rule but the options'.

        ``sample`` numbers the texts of one prompt and seed. Raises RequestError
        where prompt and ``max_tokens`` do not fit the context.
        """
        ids = list(ids) or [self.model.config.bos_token_id]
        if len(ids) > (room := room_for_prompt(self.model.config, options.max_tokens)):
            raise RequestError(
                f"the prompt has {len(ids)} tokens: with max_tokens {options.max_tokens}, this "
                f"model's context has room for {room}; shorten it or ask for fewer"
            )
        return Run(self._engine, ids, options, cancelled, sample)

    def warm_up(self, ids: Sequence[int], cancelled: Cancellation = NEVER) -> Cost:
        """Computes a prompt, so that what begins with it is answered sooner."""
        begun = monotonic()
        with self._engine.owned(cancelled) as is_ours:
            reused = self._engine.prefill(ids, cancelled, leave=1) if is_ours else 0
        return Cost(len(ids), reused, prompt_seconds=monotonic() - begun)

    def infill_ids(self, prefix: str, suffix: str, max_tokens: int) -> list[int]:
        """The prompt for a hole between two texts, which are cut to what the context holds."""
        tokens = self.model.tokenizer.fim
        if tokens is None:
            raise RequestError("this model cannot infill: its vocabulary has no FIM tokens")
        room = room_for_prompt(self.model.config, max_tokens) - fim.SENTINELS
        before, after = fit(prefix, suffix, max(0, room), self.model.tokenizer.encode)
        return fim.prompt(before, after, tokens, self.order)


class Run:
    """One text being generated: go through :meth:`pieces`, once, close them, and read the rest.

    ``beginning`` is the text of the prompt's last token, which ``tokens`` write again.
    """

    def __init__(
        self,
        engine: "_Engine",
        ids: list[int],
        options: SamplingOptions,
        cancelled: Cancellation,
        sample: int,
    ) -> None:
        self.prompt_ids = ids
        self._ids, self.beginning = take_back(engine.model.tokenizer, ids)
        self.options = options
        self.text = ""
        self.tokens: list[Token] = []
        self.finish: Finish = "cancelled"
        self.cost = Cost(len(ids))
        self._engine = engine
        self._cancelled = cancelled
        self._sample = sample

    def pieces(self) -> Generator[Piece, None, None]:
        """The text as it comes. Ends early, without a finish reason, once cancelled."""
        with self._engine.owned(self._cancelled) as is_ours:
            if is_ours:
                yield from self._generate()

    def whole(self) -> "Run":
        """This run, with all its text."""
        with closing(self.pieces()) as pieces:
            for _ in pieces:
                pass
        return self

    @property
    def stopping_word(self) -> str:
        """The stop string that ended the text; empty where none did."""
        if self.finish != "stop":
            return ""
        written = self._engine.model.tokenizer.decode([token.id for token in self.tokens])
        end = len(self.beginning) + len(self.text)
        found = (stop for stop in self.options.stop if written.startswith(stop, end))
        return max(found, key=len, default="")

    def _generate(self) -> Iterator[Piece]:
        special, begun, first = self._engine.model.tokenizer.special_ids, monotonic(), 0.0
        reused = self._engine.prefill(self._ids, self._cancelled, leave=PREFILL_STEP)
        if self._cancelled.is_set():
            return
        for piece in self._engine.continue_(self._ids, self.options, self._sample, self.beginning):
            first = first or monotonic()
            self.text += piece.text
            self.tokens += piece.tokens
            self.cost = Cost(
                len(self.prompt_ids), reused, len(self.tokens), first - begun, monotonic() - first
            )
            if piece.finish_reason == "stop":
                self.finish = "end" if self.tokens[-1].id in special else "stop"
            elif piece.finish_reason == "length":
                self.finish = "length"
            yield piece
            if self._cancelled.is_set():
                return


class _Engine:
    """The decoder, its lock, and the one slot with the ids that it holds."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self._lock = Lock()
        self._slot = model.decoder.allocate()
        self._held: list[int] = []

    @contextmanager
    def owned(self, cancelled: Cancellation) -> Iterator[bool]:
        """Waits for the engine and keeps it for a ``with`` block; False once cancelled."""
        is_ours = False
        while not (is_ours or cancelled.is_set()):
            is_ours = self._lock.acquire(timeout=_POLL)
        try:
            yield is_ours
        finally:
            if is_ours:
                self._lock.release()

    def prefill(self, ids: Sequence[int], cancelled: Cancellation, *, leave: int) -> int:
        """Computes all but at most ``leave`` ids; returns how many were there already.

        A cancelled prefill keeps what it has computed.
        """
        decoder = self.model.decoder
        held = self._held[: decoder.length(self._slot)]
        reused = _common(held, ids[:-1])
        decoder.truncate(self._slot, reused)
        self._held = list(ids)
        end = len(ids) - leave
        for start in range(reused, end, PREFILL_STEP):
            if cancelled.is_set():
                break
            decoder.extend(self._slot, ids[start : min(start + PREFILL_STEP, end)])
        return reused

    def continue_(
        self, ids: list[int], options: SamplingOptions, sample: int, beginning: str
    ) -> Iterator[Piece]:
        """What follows ids that are computed but for a few."""
        stream = stream_text(
            self.model.decoder,
            self._slot,
            self.model.tokenizer,
            ids,
            options,
            sample=sample,
            beginning=beginning,
        )
        for piece in stream:
            self._held += [token.id for token in piece.tokens]
            yield piece


def _common(left: Sequence[int], right: Sequence[int]) -> int:
    """How many ids both begin with."""
    shorter = min(len(left), len(right))
    return next((at for at in range(shorter) if left[at] != right[at]), shorter)


def _until_boundary(run: Run, request: CompletionRequest) -> Suggestion:
    """The run's text up to its natural end, or to the request's deadline."""
    allowed, overdue = extent(request), False
    with closing(run.pieces()) as pieces:
        for _ in pieces:
            end = boundary(allowed, run.text, complete=run.finish in ("end", "stop"))
            if end is not None:
                return Suggestion(run.text[:end], "boundary", cost=run.cost)
            if request.deadline is not None:
                overdue = run.cost.completion_seconds >= request.deadline
            if overdue and "\n" in run.text:
                return Suggestion(run.text, "deadline", cost=run.cost)
    return Suggestion(run.text, run.finish, run.stopping_word, run.cost)
