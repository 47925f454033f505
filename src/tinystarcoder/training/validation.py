"""Loss on documents that were never trained on, in bits per byte.

The measure of docs and cards (windows of W tokens with stride W/2, every token
scored once, an end-of-text token in front of each file, none counted) on a
fixed share of the validation tokens, fast enough to repeat during a run.
"""

import math
from collections.abc import Iterator

import numpy as np
import torch

from ..corpus.token_shards import TokenShards
from ..model.gpt_bigcode import GPTBigCode
from ..tokenizer import Tokenizer
from .loss import IGNORED, cross_entropy_sum

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
    model: GPTBigCode,
    shards: TokenShards,
    tokenizer: Tokenizer,
    context: int,
    max_tokens: int,
    dtype: torch.dtype,
) -> float:
    """Left-to-right bits per byte of the first documents, up to ``max_tokens``."""
    rows: list[tuple[np.ndarray, np.ndarray]] = []
    tokens = size = 0
    for index in range(len(shards)):
        if tokens >= max_tokens:
            break
        # The end-of-text that closes a document opens this one, as in a packed row.
        ids = shards.document(index)[:-1].astype(np.int64)
        tokens += len(ids)
        size += int(shards.byte_lengths[index])
        padded = np.concatenate([[tokenizer.eos_id], ids])
        for start, scored, stop in windows(len(ids), context):
            row = np.full(context, tokenizer.eos_id)
            target = np.full(context, IGNORED)
            row[: stop - start] = padded[start:stop]
            target[scored - start : stop - start] = ids[scored:stop]
            rows.append((row, target))
    if not size:
        return math.nan
    weight = model.transformer.wte.weight.to(dtype)
    nats = 0.0
    was_training = model.training
    model.eval()
    # Eager: odd shapes would fill the compiler's cache, which training needs.
    eager = torch.compiler.set_stance("force_eager")
    low = torch.autocast("cpu", dtype, enabled=dtype != torch.float32)
    with torch.no_grad(), eager, low:
        for at in range(0, len(rows), _ROWS):
            part = rows[at : at + _ROWS]
            hidden = model.transformer(torch.from_numpy(np.stack([row for row, _ in part])))
            targets = torch.from_numpy(np.concatenate([target for _, target in part]))
            nats += cross_entropy_sum(hidden.flatten(0, 1).to(dtype), weight, targets)
    model.train(was_training)
    return nats / math.log(2) / size
