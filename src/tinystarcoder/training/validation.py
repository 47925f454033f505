"""Loss on documents that were never trained on, in bits per byte.

Left to right it is the measure of docs and cards (windows of W tokens with stride
W/2, every token scored once, an end-of-text token in front of each file, none
counted). Middles are scored apart, after prefix and suffix in either order: a file in
stretches that fit a window, in each a middle drawn from fixed seeds. Both on a fixed
share of the validation tokens, fast enough to repeat during a run.
"""

import math
from collections.abc import Iterator
from random import Random

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from .. import fim
from ..corpus.token_shards import TokenShards
from ..tokenizer import Tokenizer
from .distributed import World, reshard
from .loss import IGNORED
from .packing import FIM_OVERHEAD

# Ids that a model reads, and which of them are scored: ids[first:].
Scored = tuple[list[int], int]

_ROWS = 8


def windows(length: int, context: int) -> Iterator[tuple[int, int, int]]:
    """``(start, first scored, stop)`` over a file's ``length`` tokens, each scored once."""
    stride = context // 2
    start = scored = 0
    while scored < length:
        stop = min(start + context, length)
        yield start, scored, stop
        start, scored = start + stride, stop


def bits_per_byte(
    compute: nn.Module,
    shards: TokenShards,
    tokenizer: Tokenizer,
    context: int,
    max_tokens: int,
    world: World,
    *,
    middles: bool,
) -> dict[str, float]:
    """What the log says of the first documents, up to ``max_tokens``, on every rank the same.

    ``compute`` is a CausalLoss or what wraps it; with ``middles`` they are scored too.
    """
    left_to_right: list[Scored] = []
    permuted: list[Scored] = []
    tokens = size = middle_bytes = 0
    for index in range(len(shards)):
        if tokens >= max_tokens:
            break
        ids = shards.document(index)[:-1].tolist()
        tokens += len(ids)
        size += int(shards.byte_lengths[index])
        # The end-of-text that closes a document opens this one, as in a packed row.
        after = [tokenizer.eos_id, *ids]
        left_to_right += [
            (after[start : stop + 1], 1 + scored - start)
            for start, scored, stop in windows(len(ids), context)
        ]
        if middles:
            for row, length in _middles(ids, tokenizer, context, Random(index)):
                permuted.append(row)
                middle_bytes += length
    found = {}
    for name, rows, length in (
        ("validation_bits_per_byte", left_to_right, size),
        ("validation_fim_bits_per_byte", permuted, middle_bytes),
    ):
        if length:
            nats = _nats(compute, rows, context, tokenizer.eos_id, world)
            found[name] = nats / math.log(2) / length
    return found


def _middles(
    ids: list[int], tokenizer: Tokenizer, context: int, draws: Random
) -> Iterator[tuple[Scored, int]]:
    """Each stretch of a file taken apart, with its middle scored, and the middle's bytes."""
    assert tokenizer.fim is not None
    stretch = context - FIM_OVERHEAD
    for start in range(0, len(ids), stretch):
        text = tokenizer.decode(ids[start : start + stretch])
        begin, end = fim.draw_cuts(len(text), draws)
        order: fim.Order = draws.choice(("psm", "spm"))
        row = fim.permute(text, (begin, end), tokenizer.encode, tokenizer.fim, order)
        middle = len(tokenizer.encode(text[begin:end]))
        # A stretch may begin or end inside a character.
        if middle and "\ufffd" not in text and len(row) <= context:
            yield ([tokenizer.eos_id, *row], 1 + len(row) - middle), len(text[begin:end].encode())


@torch.no_grad()
def _nats(compute: nn.Module, rows: list[Scored], context: int, pad: int, world: World) -> float:
    """Summed loss; each rank computes its share, in as many calls as the others."""
    batches = [rows[at : at + _ROWS] for at in range(0, len(rows), _ROWS)]
    batches += [[]] * (-len(batches) % world.size)
    nats = 0.0
    was_training = compute.training
    compute.eval()
    # Eager: odd shapes would fill the compiler's cache, which training needs.
    with torch.compiler.set_stance("force_eager"):
        for batch in batches[world.rank :: world.size]:
            inputs, targets = _collate(batch or [([pad, pad], 2)], context, pad)
            nats += float(
                compute(
                    torch.from_numpy(inputs).to(world.device),
                    torch.from_numpy(targets).to(world.device),
                )
            )
    reshard(compute)
    compute.train(was_training)
    return world.sum(nats)[0]


def _collate(
    rows: list[Scored], context: int, pad: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    inputs = np.full((len(rows), context), pad)
    targets = np.full((len(rows), context), IGNORED)
    for index, (ids, first) in enumerate(rows):
        inputs[index, : len(ids) - 1] = ids[:-1]
        targets[index, first - 1 : len(ids) - 1] = ids[first:]
    return inputs, targets
