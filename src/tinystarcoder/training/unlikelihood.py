"""Against loops: what the model writes greedily is held against it where it repeats itself.

    rows of a step ── windows of some tokens, no control token inside ──> prompts [N, P]
    prompts ── greedy, through the KV cache ──> continuations [N, T]
    continuations ── find_loops ──> which tokens go on with a repetition [N, T]
    loss = sum of -log(1 - p(token)) over these, divided by N·T

A model of this size, asked for its likeliest text, soon says the same again: what was
said once is likely the second time, and likelier the third. No penalty on tokens mends
that while decoding, since what is left to say then is no better (docs/log.md). Training on the
model's own text does: it learns where it had to go on with something else.

Source: Welleck et al. 2020, Neural Text Generation With Unlikelihood Training (the loss
on sequences). There every n-gram that was written before counts; code repeats its names and
calls all the time, so here a repetition counts only where it follows what it repeats.

What it gives up: code may repeat itself for good reason, a table's rows for one, and
that becomes less likely, too; the continuation takes time, so not every step has one.
"""

from random import Random

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ..model.gpt_bigcode import GPTBigCode
from .recipe import UnlikelihoodRecipe

# Tokens of a prompt, one of these for all of a step: from a line to a screen of code.
PROMPTS = (8, 16, 32, 64, 128, 192)
# As short a repetition is how code is written: `], [`, `self.a = a`, a line with one name changed.
SHORTEST = 8


def find_loops(ids: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which of ``ids [N, T]`` go on with a repetition of what stands directly before it.

    A token does at a distance of p where it, and as many before it that at least p and
    SHORTEST are reached, each equal the one p places before: it ends a second time of the
    same, or goes on to a third.
    """
    found = np.zeros(ids.shape, dtype=bool)
    for distance in range(1, ids.shape[1] // 2 + 1):
        run = np.zeros(len(ids), dtype=int)
        for place in range(distance, ids.shape[1]):
            run = np.where(ids[:, place] == ids[:, place - distance], run + 1, 0)
            found[:, place] |= run >= max(SHORTEST, distance)
    return found


class Unlikelihood:
    """The loss of one run. ``control`` are ids that end a text or stand for no text."""

    def __init__(
        self, model: GPTBigCode, recipe: UnlikelihoodRecipe, control: frozenset[int], seed: int
    ) -> None:
        self.model, self.recipe, self.seed = model, recipe, seed
        self._control = np.array(sorted(control))

    def due(self, step: int) -> bool:
        """Whether optimizer step ``step``, from 0, has this loss."""
        return bool(self.recipe.weight) and step % self.recipe.every == 0

    def prompts(self, inputs: NDArray[np.int64], step: int, numbers: range) -> NDArray[np.int64]:
        """Windows ``[N, P]`` of ``inputs [B, context]``, the rows ``numbers`` of the step.

        A function of seed, step and the row alone. A window with a control token is left out.
        """
        context = inputs.shape[1]
        fitting = [length for length in PROMPTS if length + self.recipe.tokens <= context]
        length = Random(f"{self.seed}/{step}").choice(fitting or [context // 2])
        windows = []
        for row, number in zip(inputs, numbers, strict=True):
            draws = Random(f"{self.seed}/{step}/{number}")
            for _ in range(self.recipe.prompts):
                start = draws.randrange(context - length + 1)
                window = row[start : start + length]
                if not np.isin(window, self._control).any():
                    windows.append(window)
        return np.array(windows, dtype=np.int64).reshape(len(windows), length)

    def backward(self, prompts: Tensor, share: float) -> float:
        """Adds the gradient of the loss times its weight and ``share``; returns the part in loops.

        ``prompts [N, P]``; ``share``: of all ranks' prompts, so that gradients sum up.
        """
        if not len(prompts):
            return 0.0
        count = min(self.recipe.tokens, self.model.config.n_positions - prompts.shape[1])
        # Blocks were compiled for one shape; a cache that grows would compile them anew.
        with torch.compiler.set_stance("force_eager"):
            written = self._continue(prompts, count)
            loops = self._loops(written)
            some = loops.any(1)
            if some.any():
                loss = self._loss(prompts[some], written[some], loops[some])
                torch.autograd.backward(loss * self.recipe.weight * share / loops.numel())
        return float(loops.float().mean())

    @torch.no_grad()
    def _continue(self, prompts: Tensor, count: int) -> Tensor:
        """What the model writes after each prompt, greedily: ``[N, count]``."""
        cache = self.model.new_cache(len(prompts), prompts.shape[1] + count)
        ids, written = prompts, []
        for _ in range(count):
            hidden = self.model.transformer(ids, cache)[:, -1]
            ids = F.linear(hidden, self.model.transformer.wte.weight).argmax(-1, keepdim=True)
            written.append(ids)
        return torch.cat(written, dim=1)

    def _loops(self, written: Tensor) -> Tensor:
        """:func:`find_loops` of each text up to its end."""
        ids = written.cpu().numpy()
        ended = np.isin(ids, self._control).cumsum(axis=1) > 0
        return torch.from_numpy(find_loops(ids) & ~ended).to(written.device)

    def _loss(self, prompts: Tensor, written: Tensor, loops: Tensor) -> Tensor:
        """Summed -log(1 - p) of the tokens in ``loops``."""
        ids = torch.cat([prompts, written], dim=1)
        hidden = self.model.transformer(ids[:, :-1])[:, prompts.shape[1] - 1 :]
        logits = F.linear(hidden[loops], self.model.transformer.wte.weight).float()
        # 1 - p as the share of all others: exact, and its gradient bounded, where p is near 1.
        others = logits.scatter(-1, written[loops].unsqueeze(-1), -torch.inf)
        return (logits.logsumexp(-1) - others.logsumexp(-1)).sum()
