#!/usr/bin/env python3
"""Tokens a second of one training step: this trainer beside what people would else use.

    python benchmarks/training/throughput.py [--steps 12] [--rounds 3] [--profile]

Same model (nano's architecture, fresh weights), rows (8 x 512 ids of this package's own
source), optimizer (AdamW, fused), precision (bfloat16 where the processor has it) and
threads. Each contender is a process of its own, in turns, so that neither what one sets nor
what the machine does in a minute favors another; nothing else should run. A round's figure is
the median of its steps after the first two, which compile; validation and checkpoints do not
count. What is printed is the median of the rounds.

- ours: the Trainer of `tinystarcoder train`, its data loader included
- Trainer: transformers' Trainer over GPTBigCodeForCausalLM, as its documentation has it
- plain loop: the same GPTBigCodeForCausalLM under torch.compile, a loop of ten lines
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import median

import torch
import transformers

from tinystarcoder.corpus.token_shards import TokenShards
from tinystarcoder.pretrained import locate
from tinystarcoder.training.hardware import peak_flops
from tinystarcoder.training.plan import flops_per_token
from tinystarcoder.training.recipe import Phase, Recipe
from tinystarcoder.training.trainer import Trainer

ROOT = Path(__file__).resolve().parents[2]
ROWS, CONTEXT = 8, 512
WARM_UP = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=CONTENDERS, help="one round of it, in this process")
    parser.add_argument("--profile", action="store_true", help="where our step's time goes")
    arguments = parser.parse_args()
    if arguments.only:
        with tempfile.TemporaryDirectory() as folder:
            trainer = ours(Path(folder), arguments.steps)
            print(json.dumps(measured(trainer, arguments.only, arguments.steps)))
            if arguments.profile:
                print(profile(trainer))
        return
    print(f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads")
    print(f"torch {torch.__version__}, transformers {transformers.__version__}", flush=True)
    found: dict[str, list[dict[str, float]]] = {name: [] for name in CONTENDERS}
    for _ in range(arguments.rounds):
        for name, rounds in found.items():
            command = [sys.executable, __file__, "--only", name, "--steps", str(arguments.steps)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            rounds.append(json.loads(done.stdout.splitlines()[-1]))
            print(f"{name:24} {rounds[-1]}", file=sys.stderr, flush=True)
    for name, rounds in found.items():
        rate, mfu = (median(r[key] for r in rounds) for key in ("tokens_per_second", "mfu"))
        print(f"{name:24} {rate:9,.0f} tokens/s   MFU {mfu:.1%}")
    if arguments.profile:
        command = [sys.executable, __file__, "--only", "ours", "--profile", "--steps", "4"]
        subprocess.run(command, check=True)


def measured(trainer: Trainer, name: str, steps: int) -> dict[str, float]:
    """Tokens a second and MFU of one contender's steps."""
    peak = peak_flops("cpu", trainer.dtype)
    rate = ROWS * CONTEXT / median(CONTENDERS[name](trainer, steps)[WARM_UP:])
    mfu = rate * flops_per_token(trainer.recipe.model_config(), CONTEXT) / peak
    return {"tokens_per_second": rate, "mfu": mfu, "peak_gflops": peak / 1e9}


def ours(output: Path, steps: int) -> Trainer:
    """A Trainer over this package's source, its run not begun."""
    source = str(ROOT / "src" / "tinystarcoder")
    changes = {"data.train": source, "data.validation": "", "data.tokenizer": str(locate())}
    changes |= {"data.fim_rate": "0.0", "data.keep": "[]", "optimizer.kind": "adamw"}
    changes |= {"schedule.steps": str(steps), "validation.every": "0"}
    recipe = Recipe.read(ROOT / "recipes" / "nano.toml", changes)
    phases = [Phase(until=1.0, context=CONTEXT, rows=ROWS)]
    return Trainer(replace(recipe, phases=phases), output)


def our_steps(trainer: Trainer, _: int) -> list[float]:
    trainer.run()
    log = (trainer.output / "log.jsonl").read_text().splitlines()
    return [ROWS * CONTEXT / json.loads(line)["tokens_per_second"] for line in log]


def rows(trainer: Trainer) -> torch.Tensor:
    """Ids ``[N, CONTEXT]`` of the same shards, one document after the other."""
    shards: TokenShards = trainer.train[0]
    parts = [torch.from_numpy(shards.document(i).astype("int64")) for i in range(len(shards))]
    ids = torch.cat(parts)
    return ids[: len(ids) // CONTEXT * CONTEXT].view(-1, CONTEXT)


def peer(trainer: Trainer) -> torch.nn.Module:
    config = transformers.GPTBigCodeConfig.from_dict(trainer.recipe.model_config().to_dict())
    return transformers.GPTBigCodeForCausalLM(config)


def transformers_steps(trainer: Trainer, steps: int) -> list[float]:
    data = [{"input_ids": row, "labels": row} for row in rows(trainer)]
    ticks: list[float] = []

    class Clock(transformers.TrainerCallback):
        def on_step_end(self, *_, **__) -> None:
            ticks.append(time.perf_counter())

    arguments = transformers.TrainingArguments(
        output_dir=str(trainer.output / "peer"),
        max_steps=steps,
        per_device_train_batch_size=ROWS,
        bf16=trainer.dtype == torch.bfloat16,
        optim="adamw_torch_fused",
        learning_rate=trainer.recipe.optimizer.lr,
        use_cpu=True,
        save_strategy="no",
        logging_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )
    ticks.append(time.perf_counter())
    transformers.Trainer(peer(trainer), arguments, train_dataset=data, callbacks=[Clock()]).train()
    return [after - before for before, after in pairwise(ticks)]


def plain_steps(trainer: Trainer, steps: int) -> list[float]:
    model = peer(trainer).train()
    compiled = torch.compile(model)
    optimizer = torch.optim.AdamW(model.parameters(), trainer.recipe.optimizer.lr, fused=True)
    seconds = []
    for batch in batches(rows(trainer), steps):
        began = time.perf_counter()
        with torch.autocast("cpu", trainer.dtype, enabled=trainer.dtype != torch.float32):
            loss = compiled(input_ids=batch, labels=batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - began)
    return seconds


def batches(ids: torch.Tensor, steps: int) -> Iterator[torch.Tensor]:
    for step in range(steps):
        yield ids[torch.arange(step * ROWS, (step + 1) * ROWS) % len(ids)]


def profile(trainer: Trainer) -> str:
    """Where two of our steps, compiled already, spend their time."""
    trainer.recipe = replace(
        trainer.recipe, schedule=replace(trainer.recipe.schedule, steps=trainer.progress.step + 2)
    )
    with torch.profiler.profile() as found:
        trainer.run()
    return found.key_averages().table(sort_by="self_cpu_time_total", row_limit=14)


CONTENDERS: dict[str, Callable[[Trainer, int], list[float]]] = {
    "ours": our_steps,
    "transformers' Trainer": transformers_steps,
    "plain loop, compiled": plain_steps,
}

if __name__ == "__main__":
    main()
