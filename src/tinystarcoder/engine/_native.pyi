"""The native engine, built from ``csrc/``; absent where there was no C++ compiler."""

import numpy as np
import numpy.typing as npt

class Plan:
    """Where each tensor lies in a packed model. ValueError for an impossible size."""

    def __init__(
        self,
        *,
        vocab: int,
        positions: int,
        width: int,
        layers: int,
        heads: int,
        inner: int,
        multi_query: bool,
        tanh_gelu: bool,
        epsilon: float,
        precision: str,
    ) -> None: ...
    @property
    def bytes(self) -> int: ...
    @property
    def entries(self) -> list[tuple[str, str]]:
        """Names of each entry's weight and bias; the second may be empty."""

class Engine:
    """A packed model's forward pass and its slots."""

    def __init__(
        self, plan: Plan, buffer: npt.NDArray[np.uint8], threads: int, instruction_set: str = ""
    ) -> None: ...
    def allocate(self) -> int: ...
    def release(self, slot: int) -> None: ...
    def length(self, slot: int) -> int: ...
    def truncate(self, slot: int, length: int) -> None: ...
    def copy(self, source: int, target: int) -> None: ...
    def forward(
        self,
        slots: list[int],
        counts: list[int],
        ids: npt.NDArray[np.int32],
        all_logits: bool,
        logits: npt.NDArray[np.float32],
    ) -> None: ...
    @property
    def cache_bytes(self) -> int: ...
    @property
    def instruction_set(self) -> str: ...
    @property
    def threads(self) -> int: ...

def pack(
    plan: Plan,
    index: int,
    weight: npt.NDArray[np.float32],
    bias: npt.NDArray[np.float32] | None,
    buffer: npt.NDArray[np.uint8],
) -> None: ...
def checksum(data: npt.NDArray[np.uint8]) -> int: ...
def instruction_sets() -> list[str]: ...
def stream_probe(
    data: npt.NDArray[np.uint8], threads: int, passes: int, instruction_set: str = ""
) -> float: ...
