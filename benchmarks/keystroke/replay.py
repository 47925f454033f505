"""Keys in turns: each session is typed at every server before the next one is begun.

So what the machine does in a minute is spread over all. A session's first
request, which computes its whole context, is not counted: the rest is warm.
"""

import time
from contextlib import ExitStack
from pathlib import Path

from benchmarks.engine import models

from .bench import Bench
from .servers import OURS, AbsentError, Answer, Client, Running, Server, started
from .sessions import Session, sample

CONTEXT = 1500
PAUSE = 0.05  # Seconds between an answer and the next key; a fast typist's are 0.1.
LLAMA = "llama.cpp"
LLAMA_DEFAULT = f"{LLAMA}, by default"
LLAMA_SPM = f"{LLAMA} --spm-infill"
LLAMA_SPM_PLAIN = f"{LLAMA} --spm-infill, no flash attention"
OURS_164M = "tinystarcoder, 164M int8"
NANO = "tinystarcoder, nano"


def replay(bench: Bench) -> None:
    """The 164M configuration at all servers, for each number of tokens."""
    sessions = _sessions(bench, bench.keys)
    for number in bench.tokens:
        _measure(bench, f"164M, {number} tokens written", _with_164m(bench), sessions, number)


def nano(bench: Bench) -> None:
    """nano as it is: what it writes ends where it would for a person, at most after 64 tokens."""
    _measure(bench, "nano, as it is", [_nano(bench)], _sessions(bench, 4 * bench.keys), 64)


def _sessions(bench: Bench, keys: int) -> list[Session]:
    every = sample(bench.wheels, bench.tokenizer, max(10, bench.sessions), keys, CONTEXT)
    return every[: bench.sessions]


def _with_164m(bench: Bench) -> list[Server]:
    threads = str(bench.threads)
    folder, weights = models.huggingface(bench.folder), models.gguf(bench.folder, "q8_0")
    # Guessing is off: random weights repeat at once, which prompt lookup would be right about.
    # So are n-grams, which would overrule them and end the line.
    plain = ("--no-prompt-lookup", "--no-ngrams", "--no-log")
    ours = (*OURS, "--model", str(folder), "--threads", threads, *plain)
    binary = str(bench.home / "llama-server" / "bin" / "llama-server")
    theirs = (binary, "--model", str(weights), "--threads", threads)
    # One slot, none of its state copied aside between requests.
    best = (*theirs, "--spm-infill", "--parallel", "1", "--cache-ram", "0", "--cache-reuse", "256")
    # Else a random end-of-text would end it; and the cheapest sampler that is greedy.
    extra = {"ignore_eos": True, "samplers": ["top_k"], "top_k": 1}
    return [
        Server(OURS_164M, ours),
        Server(LLAMA_SPM, best, extra),
        Server(LLAMA_SPM_PLAIN, (*best, "--flash-attn", "off"), extra),
        Server(LLAMA_DEFAULT, theirs, extra),
    ]


def _nano(bench: Bench) -> Server:
    return Server(NANO, (*OURS, "--threads", str(bench.threads), "--no-log"))


def _measure(
    bench: Bench, measure: str, servers: list[Server], sessions: list[Session], tokens: int
) -> None:
    with ExitStack() as stack:
        running: list[Running] = []
        for server in servers:
            try:
                log = Path(bench.folder) / f"{server.name.replace(' ', '-')}.log"
                running.append(stack.enter_context(started(server, log)))
            except AbsentError as error:
                bench.absent[server.name] = str(error)
        for session in sessions:
            for one in running:
                for answer in _typed(one, session, tokens):
                    bench.add(measure, one.server.name, answer)
            bench.save()


def _typed(running: Running, session: Session, tokens: int) -> list[Answer]:
    """The answers to all keys but the first."""
    client, answers = Client(running.port), []
    try:
        for at in range(len(session.keys)):
            before = session.before + session.keys[:at]
            answers.append(client.suggest(before, session.after, tokens, running.server.extra))
            time.sleep(PAUSE)
    finally:
        client.close()
    return answers[1:]
