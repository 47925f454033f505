"""Rewards: of the texts that a model writes after a prompt, those that are Python get likelier.

    rows of a step ── cut where a statement of a function begins ──> prompts: text, last P ids
    prompts ── G samples each, through the KV cache ──> texts [N·G, T]
    texts ── reward: 1 if verdict.judge passes one and it does not loop, else 0
    loss = -sum of (reward - mean of its prompt's G) · log p(token), divided by N·G·T

A model of this size, asked for its likeliest text, soon says the same again: what was
said once is likely the second time, and likelier the third. No penalty on tokens mends
that while decoding, since what is left to say then is no better; and one in training that
counts repetition alone has the model break off in the middle of a bracket (docs/log.md).
So the text is judged as a whole.

Source: Williams 1992 (REINFORCE); a prompt's own samples as the baseline, Shao et al. 2024
(GRPO), without its division by deviation and length, Liu et al. 2025 (Understanding
R1-Zero-Like Training). Each text serves the step that it was written in, so there is no
older policy, and nothing to clip.

What it gives up: to parse is little, and short statements parse more often, so this stands beside
cross-entropy, never alone. Writing takes longer than reading: a step takes several times as long.
"""

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from random import Random

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ..model.gpt_bigcode import GPTBigCode
from ..tokenizer import Tokenizer
from ..verdict import judge, with_one_pass
from .recipe import RewardRecipe

# Ids of a prompt that the model sees, one of these for all of a step: of a function's first line,
# all there is, as one begins in an empty file; or of as many lines of code as they are.
OPENINGS = (8, 10, 12, 14)
LENGTHS = (32, 64, 128)
# Places tried in one piece of text before it is left: most are in no function, or nothing fits.
TRIES = 8
# As short a repetition is how code is written: `], [`, `self.a = a`, a line with one name changed.
SHORTEST_LOOP = 8
# Texts whose gradient is computed at a time, to bound the memory of their logits.
TEXTS = 16


@dataclass(frozen=True)
class Prompt:
    """The beginning of a text up to where a statement begins."""

    text: str
    """Without the line break, which may be one token with the indentation after it."""
    ids: list[int]
    """The last ones of it."""
    draws: NDArray[np.float64]
    """Uniform numbers ``[G, T]`` that choose the tokens of its samples."""


def find_loops(ids: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which of ``ids [N, T]`` go on with a repetition of what stands directly before it.

    A token does at a distance of p where it, and as many before it that at least p and
    SHORTEST_LOOP are reached, each equal the one p places before: it ends a second time of the
    same, or goes on to a third.
    """
    found = np.zeros(ids.shape, dtype=bool)
    for distance in range(1, ids.shape[1] // 2 + 1):
        run = np.zeros(len(ids), dtype=int)
        for place in range(distance, ids.shape[1]):
            run = np.where(ids[:, place] == ids[:, place - distance], run + 1, 0)
            found[:, place] |= run >= max(SHORTEST_LOOP, distance)
    return found


def cut(text: str, draws: Random) -> str | None:
    """A beginning of ``text``, from its first line or a top-level one on; None if none was found.

    It ends where a statement begins that may stand alone in a function. ``text`` may be a piece of
    a file, cut anywhere.
    """
    lines = text.split("\n")[:-1]
    tops = [i for i, line in enumerate(lines) if re.match(r"[\w@]", line)]
    places = [i for i, line in enumerate(lines) if re.match(r"[ \t]+[^\s#]", line)]
    for place in draws.sample(places, min(TRIES, len(places))):
        before = [start for start in [0, *tops] if start < place]
        for start in dict.fromkeys([*before[:2], *before[-1:]]):
            prompt = "\n".join(lines[start:place])
            if _in_function(f"{prompt}\n", lines[place]):
                return prompt.rstrip("\n")
    return None


def openings(text: str) -> list[str]:
    """The first lines of the functions in ``text`` that have a single one, as in no class."""
    lines = re.findall(r"^[ \t]*((?:async )?def .*:)$", text, re.MULTILINE)
    return [line for line in lines if _in_function(f"{line}\n", "    ")]


def _in_function(prompt: str, line: str) -> bool:
    """Whether a statement may stand alone where ``line`` would follow, inside a function."""
    tree, last = with_one_pass(prompt, line), prompt.count("\n") + 1
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return tree is not None and any(
        isinstance(node, functions) and node.end_lineno == last for node in ast.walk(tree)
    )


class Reward:
    """The loss of one run."""

    def __init__(
        self, model: GPTBigCode, tokenizer: Tokenizer, recipe: RewardRecipe, seed: int
    ) -> None:
        self.model, self.tokenizer, self.recipe, self.seed = model, tokenizer, recipe, seed
        self._control = np.array(sorted(tokenizer.special_ids))

    def due(self, step: int) -> bool:
        """Whether optimizer step ``step``, from 0, has this loss."""
        return bool(self.recipe.weight) and step % self.recipe.every == 0

    def prompts(self, inputs: NDArray[np.int64], step: int, numbers: range) -> list[Prompt]:
        """Cut from ``inputs [B, context]``, the rows ``numbers`` of the step.

        A function of seed, step and the row alone. A row that spells no function has none.
        """
        context = inputs.shape[1]
        fitting = [length for length in (*OPENINGS, *LENGTHS) if length <= context // 2]
        length = Random(f"{self.seed}/{step}").choice(fitting or [context // 2])
        found: list[Prompt] = []
        for row, number in zip(inputs, numbers, strict=True):
            draws = Random(f"{self.seed}/{step}/{number}")
            cuts = islice(self._cuts(row, length, draws), self.recipe.prompts)
            for place, (text, ids) in enumerate(cuts):
                uniform = np.random.default_rng((self.seed, step, number, place))
                shape = self.recipe.samples, self.recipe.tokens
                found.append(Prompt(text, ids, uniform.random(shape)))
        return found

    def _cuts(
        self, row: NDArray[np.int64], length: int, draws: Random
    ) -> Iterator[tuple[str, list[int]]]:
        """Texts of one row's pieces between control tokens, each with its last ``length`` ids."""
        marks = np.flatnonzero(np.isin(row, self._control))
        edges = zip([-1, *marks], [*marks, len(row)], strict=True)
        pieces = [row[start + 1 : end] for start, end in edges if end - start > length]
        texts = [self.tokenizer.decode(piece.tolist()) for piece in pieces]
        draws.shuffle(texts)
        whole = length in OPENINGS
        found: Iterator[str | None] = (
            chain.from_iterable(map(openings, texts))
            if whole
            else (cut(text, draws) for text in texts * self.recipe.prompts)
        )
        for prompt in filter(None, found):
            ids = self.tokenizer.encode(prompt)
            if len(ids) == length or (len(ids) > length and not whole):
                yield prompt, ids[-length:]

    def backward(self, prompts: Sequence[Prompt], share: float) -> dict[str, float]:
        """Adds the gradient of the loss times its weight and ``share``; returns means for the log.

        ``share``: of all ranks' prompts, so that gradients sum up.
        """
        if not prompts:
            return {"reward": 0.0, "loops": 0.0}
        # Blocks were compiled for one shape; a cache that grows would compile them anew.
        with torch.compiler.set_stance("force_eager"):
            written = self._sample(prompts)
            rewards, loops = self._rewards(prompts, written.cpu().numpy())
            groups = rewards.reshape(len(prompts), -1)
            advantages = (groups - groups.mean(axis=1, keepdims=True)).reshape(-1)
            scale = self.recipe.weight * share / written.numel()
            # Where all samples are worth the same there is nothing to learn.
            telling = np.flatnonzero(advantages)
            for start in range(0, len(telling), TEXTS):
                part = torch.from_numpy(telling[start : start + TEXTS])
                likelihood = self._log_likelihood(prompts, written, part.to(written.device))
                advantage = torch.from_numpy(advantages)[part].to(likelihood)
                torch.autograd.backward(-(likelihood * advantage).sum() * scale)
        return {"reward": float(rewards.mean()), "loops": loops}

    @torch.no_grad()
    def _sample(self, prompts: Sequence[Prompt]) -> Tensor:
        """What the model writes: ``[N·G, T]``, all samples of a prompt together.

        T is the recipe's, or fewer where the context ends.
        """
        samples, ids = self.recipe.samples, self._ids(prompts)
        count = min(self.recipe.tokens, self.model.config.n_positions - ids.shape[1])
        cache = self.model.new_cache(len(ids), ids.shape[1] + count)
        logits = self._logits(self.model.transformer(ids, cache)[:, -1])
        logits = logits.repeat_interleave(samples, 0)
        cache.repeat(samples)
        draws = torch.from_numpy(np.concatenate([prompt.draws[:, :count] for prompt in prompts]))
        written: list[Tensor] = []
        for draw in torch.split(draws.to(ids.device), 1, dim=1):
            if written:
                logits = self._logits(self.model.transformer(written[-1], cache)[:, -1])
            # The first token whose cumulated probability is above the draw.
            odds = logits.softmax(-1).double().cumsum(-1)
            written.append((odds <= draw * odds[:, -1:]).sum(-1, keepdim=True))
        return torch.cat(written, dim=1)

    def _ids(self, prompts: Sequence[Prompt]) -> Tensor:
        """``[N, P]``."""
        ids = torch.tensor([prompt.ids for prompt in prompts])
        return ids.to(self.model.transformer.wte.weight.device)

    def _logits(self, hidden: Tensor) -> Tensor:
        logits = F.linear(hidden, self.model.transformer.wte.weight)
        return logits.float() / self.recipe.temperature

    def _rewards(
        self, prompts: Sequence[Prompt], written: NDArray[np.int64]
    ) -> tuple[NDArray[np.float64], float]:
        """The reward of each text, and the share of tokens that loop."""
        live = ~self._ended(written)
        loops = find_loops(written) & live
        rewards = np.zeros(len(written))
        for i, (ids, length) in enumerate(zip(written, live.sum(1), strict=True)):
            prompt = prompts[i // self.recipe.samples]
            text = self.tokenizer.decode(ids[:length].tolist())
            verdict = judge(prompt.text, text, ended=length < len(ids))
            rewards[i] = verdict.passed and not loops[i].any()
        return rewards, float(loops.mean())

    def _ended(self, written: NDArray[np.int64]) -> NDArray[np.bool_]:
        """From the first control token on, itself included."""
        ended: NDArray[np.bool_] = np.isin(written, self._control).cumsum(axis=1) > 0
        return ended

    def _log_likelihood(self, prompts: Sequence[Prompt], written: Tensor, chosen: Tensor) -> Tensor:
        """Of each ``chosen`` text, its control token included: float32 ``[len(chosen)]``."""
        ids = self._ids([prompts[i // self.recipe.samples] for i in chosen.tolist()])
        texts = written[chosen]
        rows = torch.cat([ids, texts], dim=1)[:, :-1]
        logits = self._logits(self.model.transformer(rows)[:, ids.shape[1] - 1 :])
        picked = logits.log_softmax(-1).gather(-1, texts.unsqueeze(-1)).squeeze(-1)
        after = torch.from_numpy(self._ended(texts.cpu().numpy())).to(texts.device).roll(1, dims=1)
        after[:, 0] = False
        return picked.masked_fill(after, 0.0).sum(1)
