"""From a request to a suggestion: cache, context, prompt, engine, stopping, filters.

One lock owns the engine, so a service may be shared between threads; askers
wait for each other. A few slots keep what the last prompts and their texts left
in them, and a prompt is computed from where it differs. It gives up batching.
"""

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from threading import Lock
from time import monotonic

from .. import fim
from ..engine.prefix_cache import PrefixCache
from ..errors import RequestError
from ..generation.generate import Piece, stream_text
from ..generation.healing import take_back
from ..generation.sampling import SamplingOptions
from ..generation.sequence import NEVER, Cancellation, Token, extend_to, room_for_prompt
from ..pretrained import Model
from .context import fit
from .postprocess import postprocess
from .request import CompletionRequest, Cost, Finish, Suggestion
from .stopping import boundary, extent
from .suggestion_cache import SuggestionCache

# Seconds between two looks at the cancellation of one who waits for the engine.
_POLL = 0.05


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
            reused = self._engine.prefill(ids, cancelled) if is_ours else 0
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
        held = list(self._ids)
        with self._engine.slot(held) as (slot, reused):
            for piece in self._stream(slot):
                first = first or monotonic()
                self.text += piece.text
                self.tokens += piece.tokens
                held += [token.id for token in piece.tokens]
                times = (first - begun, monotonic() - first)
                self.cost = Cost(len(self.prompt_ids), reused, len(self.tokens), *times)
                if piece.finish_reason == "stop":
                    self.finish = "end" if self.tokens[-1].id in special else "stop"
                elif piece.finish_reason == "length":
                    self.finish = "length"
                yield piece
                if self._cancelled.is_set():
                    return

    def _stream(self, slot: int) -> Iterator[Piece]:
        model = self._engine.model
        return stream_text(
            model.decoder,
            slot,
            model.tokenizer,
            self._ids,
            self.options,
            sample=self._sample,
            beginning=self.beginning,
            new_drafter=model.new_drafter,
            cancelled=self._cancelled,
        )


class _Engine:
    """The decoder, its lock, and the slots with the ids that they hold."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self._lock = Lock()
        self._prefixes = PrefixCache(model.decoder)

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

    @contextmanager
    def slot(self, ids: list[int]) -> Iterator[tuple[int, int]]:
        """A slot for ids, to which the caller appends, and how many of them it holds."""
        slot = self._prefixes.acquire(ids)
        try:
            yield slot, self.model.decoder.length(slot)
        finally:
            self._prefixes.release(slot)

    def prefill(self, ids: Sequence[int], cancelled: Cancellation) -> int:
        """Computes all but the last of ids; returns how many were there already.

        A cancelled prefill keeps what it has computed.
        """
        with self.slot(list(ids)) as (slot, reused):
            extend_to(self.model.decoder, slot, ids[:-1], cancelled)
        return reused


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
