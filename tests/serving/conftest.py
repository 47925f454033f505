"""A server over the small random checkpoint, called in memory or through a real socket."""

import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.testclient import TestClient

from tinystarcoder.cli.serve import bind, configured
from tinystarcoder.completion.service import CompletionService
from tinystarcoder.engine.decoder import Logits
from tinystarcoder.model.config import ModelConfig
from tinystarcoder.pretrained import Model, load
from tinystarcoder.serving.exchange import Server
from tinystarcoder.serving.http import create_app
from tinystarcoder.tokenizer import Tokenizer

MODEL = "tiny"


@pytest.fixture
def model(tiny_checkpoint: Path) -> Model:
    return load(tiny_checkpoint)


@pytest.fixture
def app(model: Model) -> Starlette:
    return create_app(Server(CompletionService(model, order="spm"), MODEL))


@pytest.fixture
def client(app: Starlette) -> TestClient:
    return TestClient(app, base_url="http://127.0.0.1")


@contextmanager
def listening(app: Starlette) -> Iterator[int]:
    """The application behind uvicorn on a free port of this machine."""
    bound: socket.socket = bind("127.0.0.1", 0)
    server = uvicorn.Server(configured(app))
    thread = threading.Thread(target=server.run, args=([bound],))
    thread.start()
    try:
        yield bound.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()
        bound.close()


@pytest.fixture
def serve() -> Callable[..., object]:
    return listening


class Endless:
    """A decoder that never wants to stop, and counts its steps."""

    def __init__(self, config: ModelConfig, token: int) -> None:
        self.config = config
        self.steps = 0
        self.held: dict[int, int] = {}
        self.is_running = threading.Event()
        self._logits = np.zeros(config.vocab_size, np.float32)
        self._logits[token] = 50.0

    def allocate(self) -> int:
        self.held[len(self.held)] = 0
        return len(self.held) - 1

    def release(self, slot: int) -> None: ...

    def length(self, slot: int) -> int:
        return self.held[slot]

    def extend(self, slot: int, ids: Sequence[int], *, all_logits: bool = False) -> Logits:
        self.held[slot] += len(ids)
        self.steps += 1
        if self.steps == 3:
            self.is_running.set()
        return self._logits

    def extend_batch(
        self, requests: Sequence[tuple[int, Sequence[int]]], *, all_logits: bool = False
    ) -> list[Logits]:
        return [self.extend(slot, ids) for slot, ids in requests]

    def truncate(self, slot: int, length: int) -> None:
        self.held[slot] = length

    def copy(self, source: int, target: int) -> None:
        self.held[target] = self.held[source]


@pytest.fixture
def endless(tokenizer: Tokenizer) -> Model:
    """A model that writes ``xxxx…`` as long as it may: ten million tokens."""
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size, n_positions=10_000_000, n_embd=8, n_head=1
    )
    return Model(Endless(config, tokenizer.encode("x")[0]), tokenizer)
