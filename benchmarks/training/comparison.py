"""What benchmarks of whole training runs share: their options, and a run that is judged once.

Runs land in a folder each and are not repeated if they are there, so a benchmark may be
stopped and started again, a run at a time.
"""

import argparse
import json
from pathlib import Path

from tinystarcoder.files import write_atomically
from tinystarcoder.training.plan import executed_flops
from tinystarcoder.training.recipe import Recipe
from tinystarcoder.training.trainer import Trainer

RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "nano.toml"
VALIDATION_CONTEXT = 512

Result = dict[str, float]


def parser(description: str, runs: str) -> argparse.ArgumentParser:
    """Token shards for training and validation, a folder for runs, changes to every recipe."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("tokens", type=Path)
    made.add_argument("validation", type=Path)
    made.add_argument("--runs", type=Path, default=Path(runs))
    made.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE")
    return made


def overrides(arguments: argparse.Namespace) -> dict[str, str]:
    """What the options say to every run's recipe."""
    data = {"data.train": arguments.tokens, "data.tokenizer": arguments.tokens}
    data["data.validation"] = arguments.validation
    given = dict(pair.split("=", 1) for pair in arguments.set)
    return given | {name: str(path.resolve()) for name, path in data.items()}


def measure(recipe: Recipe, output: Path) -> Result:
    """Trains, or goes on, and measures; a run that is done is read.

    All are judged by the same bits-per-byte, in windows of 512, whatever rows they were
    trained on. Raises SystemExit for a run that was stopped: the same command goes on.
    """
    done = output / "result.json"
    if not done.exists():
        trainer = Trainer(recipe, output)
        trainer.run()
        if trainer.stopped_by is not None:
            raise SystemExit(f"{output}: stopped; the same command goes on")
        bits = trainer.bits_per_byte(VALIDATION_CONTEXT)["validation_bits_per_byte"]
        result = {
            "parameters": recipe.model_config().num_parameters(),
            "tokens": trainer.progress.tokens,
            "flops": executed_flops(recipe, recipe.schedule.steps),
            "seconds": trainer.progress.seconds,
            "bits_per_byte": bits,
        }
        write_atomically(done, json.dumps(result).encode())
    found: Result = json.loads(done.read_text())
    print(f"{output.name:34} {found}", flush=True)
    return found
