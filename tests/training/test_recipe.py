import json
from pathlib import Path

import pytest

from tinystarcoder.errors import RecipeError
from tinystarcoder.training.recipe import Recipe

RECIPES = Path(__file__).resolve().parents[2] / "recipes"


def test_a_recipe_is_read_whole(toy_recipe):
    recipe = Recipe.read(toy_recipe)
    assert recipe.name == "toy"
    assert recipe.model_config().n_embd == 32
    assert [phase.context for phase in recipe.phases] == [32, 64]
    assert recipe.total_tokens() == 6 * 4 * 32 + 6 * 2 * 64


def test_paths_are_relative_to_the_recipe(tmp_path):
    path = tmp_path / "r.toml"
    path.write_text(
        "name='r'\nphases=[{until=1.0, context=16, rows=1}]\n[schedule]\nsteps=1\n"
        "[data]\ntrain='tokens'\ntokenizer='~/t'\n"
    )
    recipe = Recipe.read(path)
    assert recipe.data.train == str((tmp_path / "tokens").resolve())
    assert recipe.data.tokenizer == str((Path.home() / "t").resolve())
    assert recipe.data.validation == ""


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_what_a_checkpoint_records_is_the_recipe(path):
    recipe = Recipe.read(path)
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe
    with pytest.raises(RecipeError, match=r"data\.train must be of type str"):
        Recipe.from_dict({**recipe.to_dict(), "data": {"train": 1, "tokenizer": ""}})


def test_overrides_are_toml_values_or_text(toy_recipe):
    changes = {
        "schedule.steps": "7",
        "optimizer.kind": "adamw",
        "phases": "[{until=1, context=16, rows=1}]",
    }
    recipe = Recipe.read(toy_recipe, changes)
    assert recipe.schedule.steps == 7
    assert recipe.optimizer.kind == "adamw"
    assert recipe.phases[0].context == 16


def test_a_phase_lasts_until_its_share_of_the_steps(toy_recipe):
    recipe = Recipe.read(toy_recipe)
    assert [recipe.phase_at(step).context for step in (0, 5, 6, 11)] == [32, 32, 64, 64]


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("schedule.steps", "0", "schedule.steps must be at least 1"),
        ("schedule.steps", "'many'", "schedule.steps must be of type int"),
        ("schedule.steps", "true", "schedule.steps must be of type int"),
        ("schedule.shape", "square", "schedule.shape must be one of cosine, linear, wsd"),
        ("schedule.warm", "3", "unknown field schedule.warm"),
        ("schedule.decay", "1.5", "schedule.decay must be in 0..1"),
        ("data.fim_rate", "-0.1", "data.fim_rate must be in 0..1"),
        ("data.keep", "[{path='x'}]", r"data.keep\[0\].probability is missing"),
        ("data.keep", "[{path='(', probability=1.0}]", "not a regular expression"),
        ("model.preset", "huge", "model.preset 'huge' is none of"),
        ("model.overrides.n_head", "5", "not a multiple of n_head 5"),
        ("model.overrides.depth", "5", "model.overrides"),
        ("phases", "[]", "at least one"),
        ("phases", "[{until=0.5, context=16, rows=1}]", "end at 1"),
        ("phases", "[{until=1.0, context=65, rows=1}]", "65 is more than the model's 64 positions"),
        ("phases", "[{until=1.0, context=8, rows=1}]", r"\[0\].context must be at least 16"),
        ("phases", "[{until=1.0, context=16, rows=0}]", "rows must be at least 1"),
        ("phases", "[{until=1.0, context=16, rows=1, micro_rows=-1}]", "micro_rows must be at"),
        ("seed", "-1", "seed must be at least 0"),
        ("hardware.threads", "-1", "hardware.threads must be at least 0"),
        ("optimizer.spike", "-1", "optimizer.spike must be at least 0"),
        ("optimizer.lr", "nan", "optimizer.lr must be at least 0, not nan"),
        ("phases", "3", "phases must be a list"),
        ("checkpoint.keep", "0", "checkpoint.keep must be at least 1"),
        ("name.first", "1", "name is not a table"),
    ],
)
def test_a_bad_field_is_one_error_that_names_it(toy_recipe, field, value, words):
    with pytest.raises(RecipeError, match=words) as error:
        Recipe.read(toy_recipe, {field: value})
    assert str(toy_recipe) in str(error.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [("name = ", "not a TOML file"), ("name = 'x'", "data is missing"), ("data = 1", "is missing")],
)
def test_a_broken_file_is_one_clear_error(tmp_path, text, words):
    path = tmp_path / "broken.toml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=words):
        Recipe.read(path)


def test_a_missing_file_is_one_clear_error(tmp_path):
    with pytest.raises(RecipeError, match="cannot be read"):
        Recipe.read(tmp_path / "none.toml")


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_recipe_that_ships_is_valid(path):
    recipe = Recipe.read(path)
    assert recipe.name == path.stem
    assert recipe.total_tokens() > 0
