"""Continuous batching: many texts at once, each pass over all that can go on.

    schedule -> run -> postprocess

A pass carries the next token of every running sequence, with its guesses, and a
step of one prompt. A free slot goes to the client that has the fewest, or was
given one longest ago, and among its texts to the first; prompts take turns. A
prompt that begins as one that is just being computed waits for it, and copies
it. Each text gets the tokens that it would get alone, where the decoder gives
the same bits in any company.

It gives up preemption: a text that runs keeps its slot to its end. While a
prompt is computed nothing is guessed, since a pass has all logits or the last.
"""

from collections import Counter, abc, deque
from dataclasses import dataclass, field
from queue import SimpleQueue
from threading import Condition, Event, Thread

from ..engine.decoder import Decoder, Logits, check_ids
from ..engine.prefix_cache import PrefixCache, common
from ..errors import BusyError, RequestError
from .healing import Healing
from .sampling import SamplingOptions
from .sequence import NEVER, PREFILL_STEP, Cancellation, Mixture, Sequence, Token
from .speculative import NewDrafter, Speculation, accepted

# Seconds without a request, after which the engine computes ahead: an answer is on its way by then.
PAUSE = 0.01


class Generation:
    """A submitted text: iterate it, once, for its tokens as they come.

    Iterating raises what went wrong. ``reused`` prompt tokens were not computed
    again; it is known once the first token is.
    """

    def __init__(self, text: Sequence, cancelled: Cancellation = NEVER, client: str = "") -> None:
        self.text = text
        self.client = client
        self.reused = 0
        self.events: SimpleQueue[Token | Exception | None] = SimpleQueue()
        self._cancelled = Event()
        self._also_cancelled = cancelled

    def __iter__(self) -> abc.Iterator[Token]:
        while (event := self.events.get()) is not None:
            if isinstance(event, Exception):
                raise event
            yield event

    def cancel(self) -> None:
        """Ends it after the pass that runs now, at the latest. From any thread."""
        self._cancelled.set()

    @property
    def is_cancelled(self) -> bool:
        """By :meth:`cancel`, or by the cancellation that it was submitted with."""
        return self._cancelled.is_set() or self._also_cancelled.is_set()


@dataclass
class _Running:
    """A generation that has a slot, and what the next pass computes for it."""

    generation: Generation
    slot: int
    speculation: Speculation | None
    turn: int = 0  # The pass that last carried a step of its prompt.
    step: list[int] = field(default_factory=list)
    guesses: list[int] = field(default_factory=list)

    @property
    def text(self) -> Sequence:
        return self.generation.text


class Scheduler:
    """The owner of a decoder: :meth:`submit` from any thread, one thread runs it.

    That thread is its own after :meth:`start`, or the one that calls :meth:`step`.
    ``slots`` bounds the texts at once, and the prompts that are remembered;
    ``waiting`` those that wait for a slot.
    """

    def __init__(
        self,
        decoder: Decoder,
        *,
        slots: int = 8,
        waiting: int = 256,
        new_drafter: NewDrafter | None = None,
    ) -> None:
        self._decoder = decoder
        self._room = waiting
        self._new_drafter = new_drafter
        self._prefixes = PrefixCache(decoder, slots)
        self._waiting: deque[Generation] = deque()
        self._running: list[_Running] = []
        self._turns: Counter[str] = Counter()  # Higher for who was given a slot later.
        self._passes = 0
        self.drafted = self.accepted = 0  # Guesses so far, and those that were right.
        self._changed = Condition()
        self._is_closed = False
        # Makes a prompt for when there is nothing to do.
        self._ahead: abc.Callable[[], abc.Sequence[int]] | None = None
        self._is_asked = Event()  # Ends it, wherever it is.
        self._thread = Thread(target=self._work, name="engine", daemon=True)

    def start(self) -> "Scheduler":
        """Starts the thread that owns the decoder from now on."""
        self._thread.start()
        return self

    def close(self) -> None:
        """Ends every text after the pass that runs now, and then the thread."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        if self._thread.ident is None:  # Never started: who closes it has called step().
            self._cancel_all()
        else:
            self._thread.join()

    def submit(
        self,
        prompt_ids: abc.Sequence[int],
        options: SamplingOptions,
        *,
        stop_ids: frozenset[int] = frozenset(),
        sample: int = 0,
        healing: Healing | None = None,
        mixture: Mixture | None = None,
        cancelled: Cancellation = NEVER,
        client: str = "",
    ) -> Generation:
        """Queues a text; the arguments are those of :func:`~.generate.generate_ids`.

        ``client``: who asks, for fair turns. Raises RequestError where the
        prompt cannot be computed, or after :meth:`close`; BusyError where too
        many wait already.
        """
        config = self._decoder.config
        text = Sequence(
            config,
            prompt_ids,
            options,
            stop_ids=stop_ids,
            sample=sample,
            healing=healing,
            mixture=mixture,
        )
        check_ids(config, 0, text.ids)
        generation = Generation(text, cancelled, client)
        with self._changed:
            if self._is_closed:
                raise RequestError("the engine is closed: it takes no more requests")
            self.check_room(client)
            self._drop_ahead()
            self._waiting.append(generation)
            self._changed.notify()
        return generation

    def prefetch(self, prompt: abc.Callable[[], abc.Sequence[int]]) -> None:
        """Computes a prompt once nothing else is to be done, and until something is.

        So what begins with it will be answered sooner. There is one such prompt
        at a time, the last. Its ids are asked for by then, so that nobody waits
        for them; one that cannot be computed is let go.
        """
        with self._changed:
            self._drop_ahead()
            self._ahead = prompt
            self._changed.notify()

    def _drop_ahead(self) -> None:
        self._is_asked.set()
        self._ahead = None

    def check_room(self, client: str = "") -> None:
        """Raises BusyError where too many texts wait for a slot, half of them a client's own."""
        with self._changed:
            total = len(self._waiting)
            own = sum(generation.client == client for generation in self._waiting)
        if total >= self._room:
            raise BusyError(f"{total} requests wait for the engine already: ask later")
        if client and own >= max(1, self._room // 2):
            raise BusyError(f"{own} requests of yours wait for the engine already: ask later")

    @property
    def load(self) -> tuple[int, int]:
        """Texts that run, and texts that wait."""
        with self._changed:
            return len(self._running), len(self._waiting)

    def step(self) -> bool:
        """Runs one pass; False where there is nothing to do. For the one thread."""
        batch = self._schedule()
        if batch:
            self._postprocess(batch, self._run(batch))
        return bool(batch)

    def _work(self) -> None:
        while self._wait_for_work():
            try:
                self._begin_ahead()
                self.step()
            except Exception as error:  # Told to those who wait, who else would wait for ever.
                for running in list(self._running):
                    self._end(running, error)
        self._cancel_all()

    def _wait_for_work(self) -> bool:
        with self._changed:
            while not (self._is_closed or self._waiting or self._running):
                is_told = self._changed.wait(PAUSE if self._ahead else None)
                if self._ahead and not is_told:
                    break
            return not self._is_closed

    def _begin_ahead(self) -> None:
        """Queues the prompt for when there is nothing to do, if there is nothing to do."""
        with self._changed:
            if self._waiting or self._running or not self._ahead:
                return
            prompt, self._ahead = self._ahead, None
            is_asked = self._is_asked = Event()
        config = self._decoder.config
        try:
            text = Sequence(config, prompt(), SamplingOptions(max_tokens=1))
            check_ids(config, 0, text.ids)
        except RequestError:
            return
        with self._changed:  # Who has asked meanwhile has cancelled it.
            self._waiting.append(Generation(text, is_asked))

    def _cancel_all(self) -> None:
        for generation in [*self._waiting, *(running.generation for running in self._running)]:
            generation.cancel()
        self._drop_cancelled()
        self._prefixes.close()

    def _schedule(self) -> list[_Running]:
        """Who takes part in the next pass: all that write, and the one prompt whose turn it is."""
        self._drop_cancelled()
        self._admit()
        self._passes += 1
        prompts = [running for running in self._running if self._lacking(running) > 1]
        batch = [running for running in self._running if running not in prompts]
        if prompts:
            first = min(prompts, key=lambda running: running.turn)
            first.turn = self._passes
            batch.append(first)
        for running in batch:
            known, text = self._decoder.length(running.slot), running.text
            running.step = text.ids[known : known + PREFILL_STEP]
            guessing = running.speculation if not prompts else None
            running.guesses = guessing.guess(text) if guessing else []
        return batch

    def _run(self, batch: list[_Running]) -> list[Logits]:
        """The pass: ``[V]`` logits for each, or ``[1 + guesses, V]`` where any guesses."""
        requests = [(running.slot, running.step + running.guesses) for running in batch]
        every = any(running.guesses for running in batch)
        return self._decoder.extend_batch(requests, all_logits=every)

    def _postprocess(self, batch: list[_Running], logits: list[Logits]) -> None:
        """Chooses tokens, sends them out, forgets wrong guesses, ends what is finished."""
        for running, found in zip(batch, logits, strict=True):
            text, speculation, guesses = running.text, running.speculation, running.guesses
            if self._decoder.length(running.slot) < len(text.ids):
                continue  # A step of its prompt, not the last.
            rows, tokens = found.reshape(-1, found.shape[-1]), 0
            try:
                for token in accepted(text, rows, guesses):
                    running.generation.events.put(token)
                    tokens += 1
            except RequestError as error:
                self._end(running, error)
                continue
            self._decoder.truncate(running.slot, len(text.ids) - 1)
            if speculation:
                speculation.learn(len(guesses), tokens - 1)
                self.drafted += len(guesses)
                self.accepted += tokens - 1 if guesses else 0
            if text.is_finished:
                self._end(running)

    def _admit(self) -> None:
        """Gives the free slots to those that wait; who cannot have one is told why."""
        while not self._prefixes.is_exhausted and (generation := self._next()) is not None:
            self._turns[generation.client] = max(self._turns.values(), default=0) + 1
            try:
                running = self._begun(generation)
            except Exception as error:
                with self._changed:
                    self._waiting.remove(generation)
                generation.events.put(error)
                continue
            with self._changed:  # At no moment in both, or in neither: `load` counts them.
                self._waiting.remove(generation)
                self._running.append(running)

    def _begun(self, generation: Generation) -> _Running:
        slot = self._prefixes.acquire(generation.text.ids)
        try:
            speculation = Speculation(self._new_drafter()) if self._new_drafter else None
        except Exception:
            self._prefixes.release(slot)
            raise
        generation.reused = self._decoder.length(slot)
        return _Running(generation, slot, speculation)

    def _next(self) -> Generation | None:
        """Whose turn it is, but for who had better wait."""
        held = Counter(running.generation.client for running in self._running)
        with self._changed:
            waiting = sorted(
                self._waiting, key=lambda one: (held[one.client], self._turns[one.client])
            )
        if not waiting:
            self._turns.clear()
        return next((one for one in waiting if not self._is_just_computed(one.text.ids)), None)

    def _is_just_computed(self, ids: list[int]) -> bool:
        """Whether a prompt on its way will soon hold more of these ids than it does now."""
        return any(
            common(running.text.ids[:-1], ids[:-1]) > self._decoder.length(running.slot)
            for running in self._running
            if self._lacking(running) > 1
        )

    def _lacking(self, running: _Running) -> int:
        return len(running.text.ids) - self._decoder.length(running.slot)

    def _drop_cancelled(self) -> None:
        with self._changed:
            dropped = [generation for generation in self._waiting if generation.is_cancelled]
            for generation in dropped:
                self._waiting.remove(generation)
                generation.events.put(None)
        for running in [running for running in self._running if running.generation.is_cancelled]:
            self._end(running)

    def _end(self, running: _Running, error: Exception | None = None) -> None:
        self._running.remove(running)
        if running.speculation:
            running.speculation.close()
        if error is None:
            self._prefixes.release(running.slot)
        else:
            self._prefixes.discard(running.slot)
        running.generation.events.put(error)
