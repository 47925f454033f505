"""Every recipe that ships, started for two steps; the large ones without memory or data."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from tinystarcoder.model.config import PRESETS
from tinystarcoder.model.gpt_bigcode import GPTBigCode
from tinystarcoder.training import finetune
from tinystarcoder.training.distributed import World
from tinystarcoder.training.loss import CHUNK, CausalLoss
from tinystarcoder.training.optimizer import build_optimizers, set_lr
from tinystarcoder.training.plan import hardware, plan
from tinystarcoder.training.recipe import Recipe
from tinystarcoder.training.trainer import Trainer

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
SMALL = ("debug", "finetune", "nano")
LARGE = ("1b", "15b", "tiny-164m", "tiny-164m-fast")


def test_every_recipe_is_started_here():
    assert sorted(path.stem for path in RECIPES.glob("*.toml")) == sorted((*SMALL, *LARGE))


@pytest.mark.parametrize("name", SMALL)
def test_a_small_recipe_makes_two_steps(name, toy_shards, tmp_path):
    shards = str(toy_shards.folder)
    changes = {
        "data.train": shards,
        "data.validation": shards,
        "data.tokenizer": shards,
        "schedule.steps": "2",
        "hardware.compile": "false",
        "validation.tokens": "300",
        # nano's vocabulary is larger than the toy's, which a model may be.
        **({"model.overrides.vocab_size": "320"} if name != "finetune" else {}),
    }
    recipe = Recipe.read(RECIPES / f"{name}.toml", changes)
    smaller = [replace(phase, rows=1, micro_rows=0, context=128) for phase in recipe.phases]
    folder = Trainer(replace(recipe, phases=smaller), tmp_path / "run").run()
    assert folder.name == "step-000002"


@pytest.mark.parametrize("name", LARGE)
def test_a_large_recipe_makes_two_steps_without_memory(name, monkeypatch):
    """Real shapes of a rank's micro-batch, first and last phase; tensors that hold nothing."""
    monkeypatch.setitem(CHUNK, "cpu", 1 << 20)  # One chunk: there is no memory to spare.
    recipe = Recipe.read(RECIPES / f"{name}.toml")
    with FakeTensorMode():
        model = GPTBigCode(recipe.model_config())
        for block in model.transformer.h:
            block.recompute = recipe.hardware.activation_checkpointing
        compute = CausalLoss(model, torch.bfloat16, compiled=False)
        optimizers = build_optimizers(model, recipe.optimizer, World())
        for phase in (recipe.phases[0], recipe.phases[-1]):
            set_lr(optimizers, 0.5)
            ids = torch.zeros(phase.micro_rows, phase.context, dtype=torch.long)
            documents = ids if recipe.data.document_mask else None
            loss = compute(ids, ids, documents)
            loss.backward()
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
        assert loss.shape == ()
    assert model.config.num_parameters() == sum(p.numel() for p in model.parameters())


def test_the_published_run_is_the_published_run():
    recipe = Recipe.read(RECIPES / "tiny-164m.toml")
    assert recipe.total_tokens() == 50_000 * 2_097_152
    config = recipe.model_config()
    assert config == PRESETS["tiny"]
    assert (config.attn_pdrop, config.embd_pdrop, config.resid_pdrop) == (0.1, 0.1, 0.1)
    assert (recipe.data.fim_rate, recipe.data.spm_rate) == (0.5, 0.5)


def test_the_fast_recipe_takes_less_than_half():
    published, fast = (
        plan(Recipe.read(RECIPES / f"{name}.toml"), hardware("8xh100"))
        for name in ("tiny-164m", "tiny-164m-fast")
    )
    assert fast.flops < 0.4 * published.flops
    assert fast.seconds < 0.4 * published.seconds


@pytest.mark.parametrize(
    ("name", "on"),
    [("tiny-164m", "32xa100"), ("tiny-164m-fast", "8xh100"), ("1b", "64xa100")],
)
def test_a_rank_has_room_for_it(name, on):
    made = plan(Recipe.read(RECIPES / f"{name}.toml"), hardware(on))
    assert made.ddp.total < 0.8 * hardware(on).device.memory


def test_the_15b_needs_shards():
    made = plan(Recipe.read(RECIPES / "15b.toml"), hardware("64xh100"))
    limit = hardware("h100").device.memory
    assert made.fsdp.total < 0.8 * limit < made.ddp.total


def test_the_recipe_fine_tunes_as_the_command_does():
    recipe = Recipe.read(RECIPES / "finetune.toml")
    assert recipe.optimizer == finetune.OPTIMIZER
    assert recipe.schedule.shape == "linear"


def test_the_benchmarks_contenders_are_recipes_that_differ(benchmark):
    benchmark = benchmark("time_to_loss")
    shared = dict.fromkeys(("data.train", "data.tokenizer", "data.validation"), "tokens")
    made = [
        (benchmark.recipe(changes, tokens, shared), tokens)
        for _, changes, tokens in (
            *benchmark.rates(1_000_000),
            *benchmark.contenders(1_000_000, 1e-3),
        )
    ]
    assert all(abs(recipe.total_tokens() / tokens - 1) < 0.02 for recipe, tokens in made)
    assert len({repr(recipe) for recipe, _ in made}) == len(made) == 11
