"""One service: what is computed, what is not, and who may interrupt it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread
from typing import Any, cast

import pytest

from tinystarcoder.completion.context import fit
from tinystarcoder.completion.request import CompletionRequest, Cost, Snippet, Suggestion
from tinystarcoder.completion.service import CompletionService
from tinystarcoder.errors import BusyError, RequestError
from tinystarcoder.generation.sampling import SamplingOptions
from tinystarcoder.generation.sequence import PREFILL_STEP
from tinystarcoder.pretrained import Model, load

Writing = Callable[..., Model]
Gated = Callable[..., tuple[CompletionService, Event]]


@pytest.fixture
def gated(writing: Writing, monkeypatch: pytest.MonkeyPatch) -> Gated:
    """A service whose engine computes nothing until the event is set."""

    def make(text: str, **options: int) -> tuple[CompletionService, Event]:
        model, gate = writing(text), Event()
        extend = model.decoder.extend_batch

        def gated_extend(*arguments: Any, **named: Any) -> Any:
            gate.wait()
            return extend(*arguments, **named)

        monkeypatch.setattr(model.decoder, "extend_batch", gated_extend)
        return CompletionService(model, **options), gate

    return make


def hole(service: CompletionService, prefix: str, suffix: str, max_tokens: int = 64) -> list[int]:
    """The ids of a hole's prompt."""
    sampling = SamplingOptions(max_tokens=max_tokens)
    return service.prompt_ids(CompletionRequest(prefix, suffix, sampling=sampling))


def computed(service: CompletionService) -> list[int]:
    """Tokens that each call of the writing decoder computed, since the last look."""
    while any(service.scheduler.load):  # It may be a token ahead of what was read.
        pass
    decoder: Any = service.model.decoder
    calls = list(decoder.calls)
    decoder.calls.clear()
    return calls


class TestSuggest:
    def test_ends_at_the_boundary_and_is_filtered(self, writing: Writing) -> None:
        service = CompletionService(writing("x)\n    return x\n"))
        made = service.suggest(CompletionRequest("print(", ")\n"))
        assert (made.text, made.finish) == ("x", "boundary")
        # The tokens behind the end were never read.
        written = service.model.tokenizer.encode("x)\n")
        assert made.cost.completion_tokens == len(written) + len("(")  # The prompt's last, again.

    def test_typing_into_it_computes_nothing(self, writing: Writing) -> None:
        service = CompletionService(writing("value\n"))
        made = service.suggest(CompletionRequest("return ", "\n"))
        computed(service)
        typed = service.suggest(CompletionRequest("return va", "\n"))
        assert (made.text, typed.text, typed.cost) == ("value", "lue", Cost())
        assert service.suggest(CompletionRequest("return ", "\n")).text == "value"
        assert computed(service) == []

    def test_a_key_computes_what_differs(self, writing: Writing) -> None:
        service = CompletionService(writing("1\n"))
        prefix = "value = 10\n" * 20 + "x ="
        first = service.suggest(CompletionRequest(prefix, "\nend\n"))
        again = service.suggest(CompletionRequest(prefix + " y", "\nend\n"))
        assert first.cost.reused_tokens == 0
        assert 0 < again.cost.prompt_tokens - again.cost.reused_tokens <= 4

    def test_snippets_survive_typing(self, writing: Writing) -> None:
        """They are in the prompt, and a key computes what is typed, no more."""
        service = CompletionService(writing("1\n"))
        snippets = (Snippet("b.py", "def g(value):\n    return value\n" * 40),)
        request = CompletionRequest("value = 10\n" * 20 + "x =", "\nend\n", "a.py")
        without = service.suggest(request)
        request = replace(request, snippets=snippets)
        text = service.model.tokenizer.decode(service.prompt_ids(request))
        assert "# Path: b.py\ndef g(value):" in text
        assert "# Path: a.py\nvalue = 10\n" in text
        first = service.suggest(request)
        assert first.cost.prompt_tokens > without.cost.prompt_tokens + 64
        for typed in (" y", " y +", " y +\n", " y +\n z"):
            made = service.suggest(replace(request, prefix=request.prefix + typed))
            assert made.cost.prompt_tokens - made.cost.reused_tokens <= 4

    def test_a_small_context_has_no_snippets(self, writing: Writing) -> None:
        service = CompletionService(writing("1\n", n_positions=128))
        request = CompletionRequest("x =", "\n", "a.py")
        told = replace(request, snippets=(Snippet("b.py", "y = 1\n" * 9),))
        assert service.prompt_ids(told) == service.prompt_ids(request)

    def test_deadline_keeps_whole_lines(self, writing: Writing) -> None:
        service = CompletionService(writing("a = 1\n    b = 2\n    return a\n"))
        request = CompletionRequest("def f():\n    ", deadline=1e-9)
        made = service.suggest(request)
        assert (made.text, made.finish) == ("a = 1", "deadline")

    def test_max_tokens(self, writing: Writing) -> None:
        service = CompletionService(writing("a = 1\n    b = 2\n"))
        sampling = SamplingOptions(max_tokens=6)
        made = service.suggest(CompletionRequest("def f():\n    ", sampling=sampling))
        assert made.finish == "length"
        assert made.cost.completion_tokens == 6

    def test_a_long_file(self, writing: Writing) -> None:
        service = CompletionService(writing("1\n"))
        made = service.suggest(
            CompletionRequest("y = 2\n" * 9000 + "x = ", "\n" + "z = 3\n" * 9000)
        )
        assert made.text == "1"
        assert made.cost.prompt_tokens <= 2048 - 64

    def test_its_prompt_is_made_once(
        self, writing: Writing, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """However often it is asked for; that of the accepted text only once nobody asks."""
        service, made = CompletionService(writing("1\n")), list[str]()
        monkeypatch.setattr(
            "tinystarcoder.completion.service.fit",
            lambda prefix, *others: made.append(prefix) or fit(prefix, *others),
        )
        request = CompletionRequest("x = ", "\n")
        service.prompt_ids(request)
        made_by = service.suggest(request)
        assert service.prompt_ids(request) == service.prompt(request).ids
        assert (made, made_by.text) == (["x = "], "1")

    def test_no_room(self, writing: Writing) -> None:
        service = CompletionService(writing("1"))
        with pytest.raises(RequestError, match="max_tokens 2048 leaves no room"):
            service.suggest(CompletionRequest("x", sampling=SamplingOptions(max_tokens=2048)))
        with pytest.raises(RequestError, match="room for 1"):
            service.suggest(CompletionRequest("x", sampling=SamplingOptions(max_tokens=2047)))

    def test_what_is_improbable_is_withheld(self, writing: Writing) -> None:
        model = writing("value\n")
        request = CompletionRequest("return ", "\n")
        made = CompletionService(model).suggest(request)
        tokens = model.tokenizer.encode("value")
        assert len(made.shown_scores) == len(tokens) + len(" ")  # The prompt's last, again.
        assert made.shown_scores[-1].stop == len("value")
        likely = CompletionService(model, min_probability=0.99 * made.probability)
        assert likely.suggest(request).text == "value"
        unlikely = CompletionService(model, min_probability=1.01 * made.probability)
        assert unlikely.suggest(request).text == ""


class TestLineBreaks:
    """A document with CRLF gets what it would get with LF, in its own line breaks."""

    PREFIX, SUFFIX = "import os\n\n\ndef f(", "\n\n\ndef g():\n    return 1\n"
    WRITTEN = "a, b):\n    return a\n\n\ndef h():\n"

    @pytest.mark.parametrize("mode", ["auto", "line", "block"])
    def test_the_same_in_either(self, writing: Writing, mode: Any) -> None:
        made = []
        for line_break in ("\n", "\r\n"):
            with CompletionService(writing(self.WRITTEN)) as service:
                texts = (text.replace("\n", line_break) for text in (self.PREFIX, self.SUFFIX))
                request = CompletionRequest(*texts, mode=mode)
                made.append((service.prompt_ids(request), service.suggest(request)))
                known = service.known(request)
                assert known and known.text == made[-1][1].text
        (lf_ids, lf), (ids, crlf) = made
        assert (ids, crlf.text) == (lf_ids, lf.text.replace("\n", "\r\n"))
        assert lf.text.startswith("a, b):")
        assert (crlf.finish, crlf.probability) == (lf.finish, lf.probability)

    def test_typing_into_it_computes_nothing(self, writing: Writing) -> None:
        service = CompletionService(writing(self.WRITTEN))
        request = CompletionRequest("x = 1\r\ndef f(", "\r\n")
        made = service.suggest(request)
        assert made.text == "a, b):\r\n    return a"
        computed(service)
        for typed in range(1, len(made.text)):
            prefix = "x = 1\r\ndef f(" + made.text[:typed]
            if not prefix.endswith("\r"):
                assert service.suggest(CompletionRequest(prefix, "\r\n")).text == made.text[typed:]
        assert computed(service) == []

    @pytest.mark.parametrize("stop", ["\r\n    return", "\n    return"])
    def test_a_plain_text(self, writing: Writing, stop: str) -> None:
        service = CompletionService(writing(self.WRITTEN))
        sampling = SamplingOptions(stop=[stop, "\r\n\r\n"])
        run = service.fill(CompletionRequest("x = 1\r\ndef f(", "\r\n", sampling=sampling))
        pieces = "".join(piece.text for piece in run.pieces())
        assert pieces == run.text == "a, b):"
        assert (run.finish, run.stopping_word) == ("stop", "\n    return")
        run = service.fill(CompletionRequest("x = 1\r\ndef f(", "\r\n"))
        assert "".join(piece.text for piece in run.pieces()) == run.text
        assert run.text == self.WRITTEN.replace("\n", "\r\n")


class TestAccepted:
    """With ``prefetch``, what an accepted suggestion leads to is computed before it is asked."""

    # A cursor inside a word, which is other tokens once it is whole.
    REQUEST = CompletionRequest("other = 10\n" * 20 + "x = pri", "\nend\n")

    def accepted(self, service: CompletionService) -> CompletionRequest:
        made = service.suggest(self.REQUEST)
        assert made.text == "nt(value)"
        return replace(self.REQUEST, prefix=self.REQUEST.prefix + made.text)

    @pytest.mark.parametrize("order", ["psm", "spm"])
    def test_the_next_key_computes_few_tokens(self, writing: Writing, order: Any) -> None:
        service = CompletionService(writing("nt(value)\n"), order=order, prefetch=True, slots=1)
        accepted = self.accepted(service)
        ids, decoder = service.prompt_ids(accepted), cast(Any, service.model.decoder)
        while not any(held[: len(ids)] == ids for held in list(decoder.slots.values())):
            pass
        computed(service)
        here = service.suggest(accepted)
        assert here.cost.prompt_tokens - here.cost.reused_tokens <= 2
        typed = service.suggest(replace(accepted, prefix=accepted.prefix + "\n"))
        after = len(service.model.tokenizer.encode(self.REQUEST.suffix)) if order == "psm" else 0
        assert typed.cost.prompt_tokens - typed.cost.reused_tokens <= after + 3

    def test_what_is_typed_instead_computes_no_more_than_without(self, writing: Writing) -> None:
        service = CompletionService(writing("nt(value)\n"), prefetch=True)
        ids = service.prompt_ids(self.accepted(service))
        decoder: Any = service.model.decoder
        while not any(held[: len(ids)] == ids for held in list(decoder.slots.values())):
            pass
        other = service.suggest(replace(self.REQUEST, prefix=self.REQUEST.prefix + "x"))
        assert 0 < other.cost.prompt_tokens - other.cost.reused_tokens <= 3

    def test_not_without(self, writing: Writing) -> None:
        service = CompletionService(writing("nt(value)\n"))
        accepted = self.accepted(service)
        made = service.suggest(accepted)
        wrote = len(service.model.tokenizer.encode("nt(value)"))
        assert 1 < made.cost.prompt_tokens - made.cost.reused_tokens <= wrote + 2


class TestReuse:
    @pytest.mark.parametrize("order", ["psm", "spm"])
    def test_equals_a_fresh_computation(self, tiny_checkpoint: Path, order: Any) -> None:
        """After other prompts, longer, shorter and cancelled, on a real decoder."""
        model = load(tiny_checkpoint)
        service = CompletionService(model, order=order)
        sampling = SamplingOptions(max_tokens=12)
        for prefix, suffix in [("def f(", "):\n"), ("def f(x", "):\n"), ("de", ""), ("def f(", "")]:
            ids = hole(service, prefix, suffix, 12)
            with CompletionService(load(tiny_checkpoint), order=order) as fresh:
                expected = fresh.run(ids, sampling).whole()
            run = service.run(ids, sampling).whole()
            assert run.text == expected.text
            assert [token.id for token in run.tokens] == [token.id for token in expected.tokens]

    def test_a_warm_prompt_is_not_computed_again(self, writing: Writing) -> None:
        service = CompletionService(writing("1\n"))
        ids = hole(service, "value = 10\n" * 40, "")
        assert len(ids) > PREFILL_STEP
        assert service.warm_up(ids).reused_tokens == 0
        # The prompt's last token is not computed but written again.
        assert sum(computed(service)) == len(ids) - 1
        assert service.run(ids, SamplingOptions()).whole().cost.reused_tokens == len(ids) - 2
        assert computed(service)[0] == 1

    def test_stop_strings_are_told(self, writing: Writing) -> None:
        service = CompletionService(writing("a = 1; b = 2"))
        ids = hole(service, "", "")
        run = service.run(ids, SamplingOptions(stop=["= 2", ";", "; b"])).whole()
        assert (run.text, run.finish) == ("a = 1", "stop")
        assert run.stopping_word.startswith(";")
        ended = service.run(ids, SamplingOptions()).whole()
        assert (ended.text, ended.finish, ended.stopping_word) == ("a = 1; b = 2", "end", "")


class TestCancellation:
    def test_within_one_step(self, writing: Writing) -> None:
        service = CompletionService(writing("a = 1\n" * 200))
        ids, cancelled = hole(service, "", "", 1024), Event()
        run = service.run(ids, SamplingOptions(max_tokens=1024), cancelled)
        for number, _ in enumerate(run.pieces(), start=1):
            if number == 3:
                cancelled.set()
        assert (len(run.tokens), run.finish) == (3, "cancelled")
        assert sum(computed(service)) < len(ids) + 1024
        assert service.run(ids, SamplingOptions()).whole().text

    def test_in_a_prompt_keeps_what_is_computed(self, writing: Writing) -> None:
        service = CompletionService(writing("1\n"))
        ids = hole(service, "value = 10\n" * 100, "")
        run = service.run(ids, SamplingOptions(), After(2))
        assert list(run.pieces()) == []
        assert 0 < sum(computed(service)) < len(ids)
        cost = service.run(ids, SamplingOptions()).whole().cost
        assert 0 < cost.reused_tokens < len(ids) - 1
        assert cost.reused_tokens % PREFILL_STEP == 0

    def test_a_cancelled_suggestion_is_not_kept(self, writing: Writing) -> None:
        service, cancelled = CompletionService(writing("value\n")), Event()
        cancelled.set()
        request = CompletionRequest("return ", "\n")
        assert service.suggest(request, cancelled).finish == "cancelled"
        assert computed(service) == []
        assert service.suggest(request).text == "value"

    def test_one_who_waits(self, writing: Writing) -> None:
        """While another has the only slot, a cancelled request goes without it."""
        service, cancelled = CompletionService(writing("a = 1\n" * 300), slots=1), Event()
        ids = hole(service, "", "", 1024)
        holding = service.run(ids, SamplingOptions(max_tokens=1024)).pieces()
        next(holding)
        waiting = service.run(ids, SamplingOptions(), cancelled)
        thread = Thread(target=waiting.whole)
        thread.start()
        cancelled.set()
        thread.join()
        assert (waiting.tokens, waiting.finish) == ([], "cancelled")
        holding.close()
        assert service.run(ids, SamplingOptions()).whole().tokens

    def test_a_newer_request_of_the_document(self, gated: Gated) -> None:
        """It cancels the older one; that of another document goes on."""
        service, gate = gated("value\n", slots=4)
        made: dict[str, Suggestion] = {}

        def ask(name: str, path: str, prefix: str) -> Thread:
            def work() -> None:
                made[name] = service.suggest(CompletionRequest(prefix, "\n", path))

            thread = Thread(target=work)
            thread.start()
            return thread

        threads = [ask("other", "b.py", "y = "), ask("older", "a.py", "x ")]
        while sum(service.scheduler.load) < 2:
            pass
        threads.append(ask("newer", "a.py", "x = "))
        while sum(service.scheduler.load) < 3:
            pass
        gate.set()
        for thread in threads:
            thread.join()
        finishes = {name: suggestion.finish for name, suggestion in made.items()}
        assert finishes == {"other": "boundary", "older": "cancelled", "newer": "boundary"}


def test_too_many_are_told_so(gated: Gated) -> None:
    service, gate = gated("value\n", slots=1, waiting=1)
    ids, options = hole(service, "x", ""), SamplingOptions()
    runs = [service.run(ids, options).start()]
    while service.scheduler.load != (1, 0):
        pass
    runs.append(service.run(ids, options).start())
    with pytest.raises(BusyError, match="1 requests wait for the engine already"):
        service.run(ids, options).start()
    gate.set()
    assert [run.whole().finish for run in runs] == ["end", "end"]


def test_closing_ends_what_runs(gated: Gated) -> None:
    service, gate = gated("value\n" * 50)
    run = service.run(hole(service, "x", ""), SamplingOptions()).start()
    closing = Thread(target=service.close)
    closing.start()
    gate.set()
    closing.join()
    assert run.whole().finish in ("cancelled", "length")
    with pytest.raises(RequestError, match="closed"):
        service.run([1], SamplingOptions()).start()


class After:
    """A cancellation that comes after so many looks at it."""

    def __init__(self, looks: int) -> None:
        self.left = looks

    def is_set(self) -> bool:
        self.left -= 1
        return self.left < 0
