"""What is measured: each function fills a part of the result, in rounds over all peers.

A round asks every peer once, so that what the machine does in an hour is spread
over all; figures are medians over the rounds, ratios medians of each round's.
"""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from tinystarcoder.pretrained import locate
from tinystarcoder.tokenizer import Tokenizer

from . import workloads
from .peers import OURS, PEERS, AbsentError, Peer, Running, first_token, started

# With flash attention, as documented for speed, and without, which is faster at length here.
LLAMA = ("llama.cpp Q8_0", "llama.cpp Q8_0, no flash attention")
Figures = dict[str, list[float]]
# What one engine is asked in a round; None where the measure is not for it.
Measure = Callable[[Running], float | None]


class Bench:
    """Settings of a run and what it has found so far."""

    def __init__(self, home: Path, folder: Path, threads: int, rounds: int) -> None:
        self.home, self.folder = home, folder
        self.threads, self.rounds = threads, rounds
        self.found: dict[str, Figures] = {}
        self.absent: dict[str, str] = {}
        self.versions: dict[str, str] = {}

    def prepare(self) -> None:
        """Makes every model, and ours' cache, so that a run has only to measure."""
        for peer in PEERS:
            try:
                with started(peer, self.home, self.folder) as engine:
                    seconds = engine.load(self.threads, 2048)
                print(f"{peer.name}: loaded in {seconds:.1f} s", flush=True)
            except AbsentError as error:
                print(f"{peer.name}: absent: {error}", flush=True)

    def add(self, measure: str, engine: str, value: float) -> None:
        self.found.setdefault(measure, {}).setdefault(engine, []).append(value)

    def rounds_of(
        self,
        names: tuple[str, ...],
        measures: dict[str, Measure],
        context: int = 4352,
        rounds: int | None = None,
    ) -> None:
        """Loads the named engines, and asks each in turn, round after round."""
        running: list[Running] = []
        try:
            for peer in (peer for peer in PEERS if peer.name in names):
                self._start(peer, context, running)
            for number in range((rounds or self.rounds) + 1):
                for engine in list(running):
                    for name, measure in measures.items():
                        self._ask(engine, name, measure, running, is_warm_up=not number)
        finally:
            for engine in running:
                engine.close()

    def _start(self, peer: Peer, context: int, running: list[Running]) -> None:
        try:
            engine = Running(peer, self.home, self.folder)
            running.append(engine)
            engine.load(self.threads, context)
            self.versions[peer.name] = engine.version
        except AbsentError as error:
            self.absent[peer.name] = str(error)
            running[:] = [other for other in running if other.peer is not peer]

    def _ask(
        self,
        engine: Running,
        name: str,
        measure: Measure,
        running: list[Running],
        *,
        is_warm_up: bool,
    ) -> None:
        if engine not in running:
            return
        try:
            value = measure(engine)
        except AbsentError as error:
            self.absent[f"{engine.peer.name}, {name}"] = str(error)
            if "process ended" in str(error):
                running.remove(engine)
            return
        if value is not None and not is_warm_up:
            self.add(name, engine.peer.name, value)


def ids(number: int, seed: int = 0) -> list[int]:
    """A random prompt."""
    drawn: list[int] = np.random.default_rng(seed).integers(20, 8000, number).tolist()
    return drawn


def _decoding(engine: Running, context: int, tokens: int) -> float:
    seconds = engine.ask("decode", prompt=ids(context), tokens=tokens)["seconds"]
    return (tokens - 1) / float(seconds)


def decode(bench: Bench) -> None:
    """Tokens a second, 128 after 128; and the limit: weights in one stream."""
    tokens = 128
    # What a token of the 164M model reads: every matrix, a byte a weight.
    megabytes = (164_144_128 - 8192 * 768) / 1e6

    def rate(engine: Running) -> float:
        return _decoding(engine, 128, tokens)

    def limit(engine: Running) -> float | None:
        if engine.peer.name != f"{OURS} int8":
            return None
        answer = engine.ask("stream", megabytes=megabytes, threads=bench.threads)
        return float(answer["bytes_per_second"]) / (megabytes * 1e6)

    everyone = tuple(peer.name for peer in PEERS)
    bench.rounds_of(everyone, {"decode 128 after 128": rate, "streaming limit, 8 bits": limit})


def decode_4k(bench: Bench) -> None:
    """Tokens a second with 4,096 tokens of context."""
    tokens = 64

    def rate(engine: Running) -> float:
        return _decoding(engine, 4096, tokens)

    names = (f"{OURS} int8", *LLAMA, "OpenVINO int8")
    bench.rounds_of(names, {"decode 64 after 4096": rate}, rounds=3)


def prefill(bench: Bench) -> None:
    """Prompt tokens a second, and the limit: int8 products and attention, by torch."""
    seeds = count()  # A new prompt each time: OpenVINO's pipeline remembers the last one.

    def rate(length: int) -> Measure:
        return lambda engine: (
            length / float(engine.ask("prefill", prompt=ids(length, next(seeds)))["seconds"])
        )

    measures = {f"prefill {length}": rate(length) for length in (512, 2048)}
    names = tuple(peer.name for peer in PEERS if "int4" not in peer.name and "Q4" not in peer.name)
    bench.rounds_of(names, measures, rounds=min(bench.rounds, 3))
    torch = next(peer for peer in PEERS if peer.name == "transformers bf16")
    try:
        with started(torch, bench.home, bench.folder) as engine:
            engine.load(bench.threads, 2048)
            for length in (512, 2048):
                found = engine.ask("prefill_limit", tokens=length)
                seconds = found["products"] + found["attention"]
                bench.add(f"prefill limit {length}", "int8 GEMM + attention", length / seconds)
    except AbsentError as error:
        bench.absent["prefill limit"] = str(error)


def parallel(bench: Bench) -> None:
    """Tokens a second of 8 sequences together, 64 after 128 each."""
    tokens, number = 64, 8

    def rate(engine: Running) -> float:
        prompts = [ids(128, seed) for seed in range(number)]
        seconds = float(engine.ask("batch", prompts=prompts, tokens=tokens)["seconds"])
        return number * (tokens - 1) / seconds

    def alone(engine: Running) -> float:
        return _decoding(engine, 128, tokens)

    names = (f"{OURS} int8", *LLAMA, "OpenVINO int8")
    measures: dict[str, Measure] = {
        "8 sequences, 64 after 128 each": rate,
        "1 sequence, 64 after 128": alone,
    }
    bench.rounds_of(names, measures, rounds=3)


def start(bench: Bench) -> None:
    """Seconds from a new process to the first token of 128; ours from its cache, made before."""
    for name, rounds in ((f"{OURS} int8", 5), ("llama.cpp Q8_0", 3), ("transformers bf16", 3)):
        peer = next(peer for peer in PEERS if peer.name == name)
        for number in range(rounds + 1):
            try:
                seconds = first_token(peer, bench.home, bench.folder, ids(128), bench.threads)
            except AbsentError as error:
                bench.absent[f"{name}, start"] = str(error)
                break
            if number:
                bench.add("seconds from process start to first token", name, seconds)


def memory(bench: Bench) -> None:
    """Megabytes: the most that a process ever held, 2,048 tokens in its context."""
    for name in (f"{OURS} int8", "llama.cpp Q8_0", "OpenVINO int8", "CTranslate2 int8"):
        peer = next(peer for peer in PEERS if peer.name == name)
        try:
            with started(peer, bench.home, bench.folder) as engine:
                engine.load(bench.threads, 2048)
                engine.ask("prefill", prompt=ids(2040))
                bench.add("peak memory, MB", name, engine.ask("memory")["bytes"] / 1e6)
        except AbsentError as error:
            bench.absent[f"{name}, memory"] = str(error)


def nano(bench: Bench) -> None:
    """Seconds from the shell's prompt to nano's first characters, and what they are made of."""
    python = sys.executable
    imports = "import tinystarcoder.cli.main, tinystarcoder.cli.complete"
    steps = {
        "python starts": "",
        "and imports the command": imports,
        "and loads nano": f"{imports}\nfrom tinystarcoder.pretrained import load\nload()",
    }
    command = "from tinystarcoder.cli.main import main; main()"
    arguments = ["complete", "def print_hello_world():\n", "--stream", "--max-tokens", "32"]
    for _ in range(7):
        for name, program in steps.items():
            begun = time.perf_counter()
            subprocess.run([python, "-c", program], check=True)
            bench.add("nano, seconds to the first characters", name, time.perf_counter() - begun)
        begun = time.perf_counter()
        with subprocess.Popen([python, "-c", command, *arguments], stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            child.stdout.read(1)
            whole = time.perf_counter() - begun
            child.stdout.read()
        bench.add("nano, seconds to the first characters", "complete --stream", whole)


def lookup(bench: Bench) -> None:
    """Prompt lookup beside plain decoding, the same text, in turns: how many times as fast."""
    tokenizer = Tokenizer.from_folder(locate("nano"))
    peer = Peer("nano", "run_ours.py", "int8", None, lambda *_: locate("nano"))
    kinds = workloads.prompts(tokenizer)
    with started(peer, bench.home, bench.folder) as engine:
        engine.load(bench.threads, 2048)
        for name, (prompts, temperature) in kinds.items():
            for seed, prompt in enumerate(prompts):
                _paired(bench, engine, f"prompt lookup, {name}", prompt, temperature, seed)
    ours = next(peer for peer in PEERS if peer.name == f"{OURS} int8")
    with started(ours, bench.home, bench.folder) as engine:
        engine.load(bench.threads, 2048)
        for seed in range(5):
            name = "prompt lookup, nothing to guess (164M, random text)"
            _paired(bench, engine, name, ids(128, seed), 1.0, seed)


def _paired(
    bench: Bench, engine: Running, name: str, prompt: list[int], temperature: float, seed: int
) -> None:
    request: dict[str, Any] = {"tokens": 128, "temperature": temperature, "seed": seed}
    found = engine.ask("speculate", prompt=prompt, **request)
    if not found["same"]:
        raise RuntimeError(f"{name}: another text with prompt lookup: that must not be")
    bench.add(name, "times as fast", found["plain"] / found["lookup"])


MEASURES: dict[str, Callable[[Bench], None]] = {
    measure.__name__: measure
    for measure in (decode, decode_4k, prefill, parallel, start, memory, nano, lookup)
}


def median(values: list[float]) -> float:
    return statistics.median(values)
