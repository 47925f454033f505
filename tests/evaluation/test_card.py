"""A run's card: valid for the Hub, rendered by GitHub's rules, and no figure from elsewhere."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

from tinystarcoder.errors import EvaluationError
from tinystarcoder.evaluation.card import DATASETS, Labels, card, read_run, training_facts
from tinystarcoder.evaluation.journal import Journal
from tinystarcoder.evaluation.report import write
from tinystarcoder.model import checkpoint
from tinystarcoder.model.config import PRESETS, ModelConfig
from tinystarcoder.pretrained import locate
from tinystarcoder.training.plan import flops_per_token
from tinystarcoder.training.recipe import Recipe

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
LABELS = Labels("mine", "apache-2.0", ("my-data",), "It tells stories.")


@pytest.fixture
def run(
    tmp_path: Path, tiny_config: ModelConfig, random_tensors: Callable[..., dict[str, Any]]
) -> Path:
    """What ``train`` leaves, as far as a card reads it."""
    folder = tmp_path / "run"
    step = folder / "step-000700"
    checkpoint.write(step, tiny_config, random_tensors(tiny_config))
    recipe = {
        "data": {"train": "/somewhere/tokens", "fim_rate": 0.5, "spm_rate": 0.25},
        "phases": [{"until": 1.0, "context": 64, "rows": 2}],
        "optimizer": {"kind": "muon"},
        "hardware": {"precision": "bfloat16"},
    }
    state = {"step": 700, "tokens": 12_345_678, "seconds": 5400, "recipe": recipe}
    state["versions"] = {"tinystarcoder": "0.0.7", "torch": "2.99"}
    (step / "resume.json").write_text(json.dumps(state))
    (folder / "log.jsonl").write_text('{"step": 700, "tokens": 1, "loss": 2}\n')
    return folder


@pytest.fixture
def evaluation(tmp_path: Path) -> Path:
    folder = tmp_path / "evaluation"
    for task, metric, group, values in (
        ("human-eval", "pass@1", {}, [(1, 1), (0, 1), (0, 1), (0, 1)]),
        ("bits-per-byte", "bits-per-byte", {"group": "requests 2"}, [(130, 100), (117, 100)]),
    ):
        header = {"task": task, "model": "mine", "protocol": {}}
        journal = Journal(folder / "scores" / f"{task}.jsonl", header)
        for number, value in enumerate(values):
            journal.append({"id": str(number), "metrics": {metric: value}, **group})
    write(folder)
    return folder


def test_front_matter(run: Path, evaluation: Path) -> None:
    data = ModelCard(card(read_run(run, evaluation), LABELS)).data
    assert (data.license, data.datasets, data.language) == ("apache-2.0", ["my-data"], "code")
    assert {"code", "fill-in-the-middle"} <= set(data.tags or ())
    assert data.pipeline_tag == "text-generation"
    assert len({dataset_type for dataset_type, _ in DATASETS.values()}) == len(DATASETS)
    results = {r.dataset_type: (r.metric_type, r.metric_value) for r in data.eval_results or ()}
    assert results == {
        "held-out-left-to-right": ("bits_per_byte", 1.235),
        "openai_humaneval": ("pass_at_1", 0.25),
    }


def test_sections(run: Path, evaluation: Path) -> None:
    text = card(read_run(run, evaluation), LABELS)
    tokens = MarkdownIt("commonmark").enable("table").parse(text.partition("\n---\n")[2])
    heads = [tokens[i + 1].content for i, t in enumerate(tokens) if t.type == "heading_open"]
    assert heads == [
        *("mine", "Use", "Intended use", "Generation", "Fill-in-the-middle", "Limitations"),
        *("Training", "Model", "Hardware", "Software", "Evaluation", "License", "Citation"),
    ]
    assert [t.info for t in tokens if t.type == "fence"] == ["python", "python", "bibtex"]
    assert sum(t.type == "table_open" for t in tokens) == 2
    assert "It tells stories." in text


def test_runs_before_it_are_counted(run: Path, tmp_path: Path) -> None:
    """Each from its own folder, up to the step that the next one began from."""
    state_file = run / "step-000700" / "resume.json"
    state = json.loads(state_file.read_text())
    for name, weights in (("second", "first"), ("first", "bundled")):
        earlier = tmp_path / name / "step-000100"
        earlier.mkdir(parents=True)
        recipe = {"model": {"weights": str(tmp_path / weights / "step-000100")}}
        told = {"tokens": 1_000_000, "seconds": 1800, "recipe": recipe}
        (earlier / "resume.json").write_text(json.dumps(told))
    bundled = tmp_path / "bundled" / "step-000100"
    bundled.mkdir(parents=True)
    (bundled / "training.json").write_text('{"tokens": 2000000, "hours": 0.25}')
    state["recipe"]["model"] = {"weights": str(tmp_path / "second" / "step-000100")}
    state["recipe"]["data"]["mixture"] = [{"path": str(tmp_path / "tokens"), "weight": 1.0}]
    state_file.write_text(json.dumps(state))
    facts = training_facts(run)
    assert facts["before"] == {"tokens": 4_000_000, "hours": 1.25}
    assert str(tmp_path) not in json.dumps(facts)
    assert facts["recipe"]["data"]["mixture"] == [{"path": "tokens", "weight": 1.0}]
    assert "4.0 million tokens in 1.25 hours" in card(read_run(run), LABELS)


def test_flops_of_all_runs_or_of_none(tmp_path: Path) -> None:
    """By the plan of the recipe, for the steps that were made."""
    recipe = Recipe.read(RECIPES / "nano.toml").to_dict()
    last, first = (tmp_path / name / "step-000010" for name in ("last", "first"))
    for step, weights, made in ((first, "", 4), (last, str(first), 10)):
        step.mkdir(parents=True)
        own = {**recipe, "model": {**recipe["model"], "weights": weights}}
        told = {"step": made, "tokens": 4096 * made, "seconds": 60, "versions": {}, "recipe": own}
        (step / "resume.json").write_text(json.dumps(told))
        (step.parent / "log.jsonl").write_text("")
    facts = training_facts(last.parent)
    a_step = 4096 * flops_per_token(PRESETS["nano"], 512)
    assert (facts["flops"], facts["before"]["flops"]) == (10 * a_step, 4 * a_step)
    told = json.loads((first / "resume.json").read_text())
    told["recipe"]["optimizer"]["of another version"] = 1
    (first / "resume.json").write_text(json.dumps(told))
    facts = training_facts(last.parent)
    assert facts["flops"] == 10 * a_step and "flops" not in facts["before"]


def test_no_figure_from_elsewhere(run: Path, evaluation: Path, tiny_config: ModelConfig) -> None:
    """Every number in the prose and tables is one of the run's, the model's or the report's."""
    told = card(read_run(run, evaluation), LABELS).partition("\n---\n")[2]
    told = re.sub(r"```.*?```", "", told, flags=re.DOTALL)
    told = told.replace("apache-2.0", "").replace("GPT-2", "").replace("bfloat16", "")
    report = (evaluation / "report.md").read_text() + (evaluation / "report.json").read_text()
    known = {"700", "12.3", "1.5", "64", "100", "50", "25", "0.0.7", "2.99"}  # The run's.
    known |= {"2", "32", "400", "128", f"{tiny_config.num_parameters():,}"}  # The architecture's.
    assert set(re.findall(r"[\d.,]*\d", told)) <= known | set(re.findall(r"[\d.,]*\d", report))


def test_only_what_files_tell(tiny_checkpoint: Path) -> None:
    text = card(read_run(tiny_checkpoint), Labels("bare"))
    for absent in ("Training steps", "### Hardware", "## Evaluation", "## License", "model-index"):
        assert absent not in text


def test_files_that_are_missing(run: Path, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"report\.json: is not there"):
        read_run(run, evaluation=tmp_path)
    with pytest.raises(EvaluationError, match=r"manifest\.json: is not there"):
        read_run(run, corpus=tmp_path)


def test_a_report_that_is_none(run: Path, tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text('{"left_to_right": 1}')
    with pytest.raises(EvaluationError, match=r"is no report\.json of tinystarcoder evaluate"):
        read_run(run, evaluation=tmp_path)


def test_snippets_run(tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One after the other in one session, as a reader would; the second uses the first's names."""
    labels = Labels("tiny", checkpoint=str(tiny_checkpoint))
    tokens = MarkdownIt("commonmark").parse(card(read_run(tiny_checkpoint), labels))
    names: dict[str, Any] = {}
    for token in tokens:
        if token.type == "fence" and token.info == "python":
            exec(compile(token.content, "<card>", "exec"), names)
    printed = capsys.readouterr().out
    assert "def print_hello_world():" in printed and "<fim_middle>" in printed


def test_the_bundled_models_card_is_what_its_files_tell() -> None:
    """And nothing was written into it since: scripts/bundle --card writes it again."""
    about = (RECIPES.parent / "scripts" / "nano_card.md").read_text()
    labels = Labels("nano", "apache-2.0", ("pypi",), about)
    assert (locate() / "MODEL_CARD.md").read_text() == card(read_run(locate()), labels)
