"""The model card of a run: Markdown for GitHub and the Hub, from what run and evaluation wrote.

Every figure in it is read from a file; where a file is missing, what it would
have told is left out. The front matter is huggingface_hub's own, so that the Hub
reads it, the measured results as ``model-index``. It gives up prose about a
model that no file tells of: ``about`` is where a person writes it.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from ..errors import EvaluationError, RecipeError
from ..model.config import ModelConfig
from ..training.plan import executed_flops
from ..training.recipe import Recipe
from .report import BITS, by_group, figure, rows, table
from .statistics import Estimate

Facts = dict[str, Any]

# What the Hub calls a benchmark, and how a card names it. The Hub joins results of one id.
DATASETS = {
    "human-eval": ("openai_humaneval", "HumanEval"),
    "mbpp": ("mbpp", "MBPP"),
    "single-line": ("human-eval-infilling-single-line", "HumanEval-Infilling, single-line"),
    "multi-line": ("human-eval-infilling-multi-line", "HumanEval-Infilling, multi-line"),
    "random-span": ("human-eval-infilling-random-span", "HumanEval-Infilling, random-span"),
    "bits-per-byte": ("held-out-left-to-right", "held-out files, left to right"),
    "middles": ("held-out-middles", "middles of held-out files"),
    "parse-rate": ("held-out-completions", "completions in held-out files"),
    "line-match": ("held-out-lines", "one line masked in held-out files"),
    "speculation": ("held-out-speculation", "speculation in held-out files"),
    "keystrokes": ("held-out-keystrokes", "keystrokes in held-out files"),
    "boundaries": ("held-out-boundaries", "where suggestions end in held-out files"),
}

# Of a task with many metrics, those that are results of the model, for the Hub.
INDEXED = {
    "keystrokes": ("saved", "whole lines"),
    "boundaries": ("as it comes", "filtered"),
    "speculation": ("accepted",),
}


@dataclass(frozen=True)
class Labels:
    """What a person decides: the model's name, license, data sets' ids, words about it."""

    name: str
    license: str = ""
    datasets: Sequence[str] = ()
    about: str = ""
    checkpoint: str = "."


@dataclass(frozen=True)
class Run:
    """What there is to tell; empty where a file is missing.

    ``training``: steps, tokens, hours, hardware, versions, recipe. ``corpus``:
    the manifest of ``corpus build``. ``report``: ``report.json`` of an evaluation.
    ``files``: what lies beside the card.
    """

    config: Facts
    training: Facts = field(default_factory=dict)
    corpus: Facts = field(default_factory=dict)
    report: Facts = field(default_factory=dict)
    files: frozenset[str] = frozenset()


def read_run(folder: Path, evaluation: Path | None = None, corpus: Path | None = None) -> Run:
    """A training run's folder, or a model's with training.json, manifest.json, evaluation.json.

    ``evaluation`` and ``corpus`` name the folders of ``evaluate`` and ``corpus
    build``. Raises EvaluationError where there is no model.
    """
    steps = sorted(folder.glob("step-*"))
    model = steps[-1] if steps else folder
    if not (model / "config.json").exists():
        raise EvaluationError(f"{folder}: neither a run of tinystarcoder train nor a model folder")
    training = training_facts(folder) if steps else _read(folder / "training.json")
    report = evaluation / "report.json" if evaluation else folder / "evaluation.json"
    manifest = (corpus or folder) / "manifest.json"
    for wanted, path in ((evaluation, report), (corpus, manifest)):
        if wanted and not path.exists():
            raise EvaluationError(f"{path}: is not there")
    found = _read(report)
    if found and "tasks" not in found:
        raise EvaluationError(f"{report}: is no report.json of tinystarcoder evaluate")
    return Run(
        _read(model / "config.json"),
        training,
        _read(manifest),
        found,
        frozenset(path.name for path in folder.iterdir()),
    )


def training_facts(run: Path, hardware: str = "") -> Facts:
    """What a run's last checkpoint and its log tell, paths reduced to names."""
    last = sorted(run.glob("step-*"))[-1]
    state = _read(last / "resume.json")
    before, flops = _before(state["recipe"]), _flops(state["recipe"], state["step"])
    state["recipe"].get("model", {}).pop("weights", None)  # A folder of the machine it ran on.
    for name in ("train", "validation", "tokenizer"):
        if name in state["recipe"]["data"]:
            state["recipe"]["data"][name] = Path(state["recipe"]["data"][name]).name
    for source in state["recipe"]["data"].get("mixture", []):
        source["path"] = Path(source["path"]).name
    log = [json.loads(line) for line in (run / "log.jsonl").read_text("utf-8").splitlines()]
    measured = "validation_bits_per_byte"
    return {
        "steps": state["step"],
        "tokens": state["tokens"],
        "hours": round(state["seconds"] / 3600, 2),
        **({"flops": flops} if flops else {}),
        **({"before": before} if before else {}),
        "hardware": hardware,
        "validation_curve": {r["tokens"]: round(r[measured], 4) for r in log if measured in r},
        "versions": state["versions"],
        "recipe": state["recipe"],
    }


def _flops(recipe: Facts, steps: int) -> int:
    """What the plan of a run counts for its first steps; 0 where its recipe cannot be read."""
    try:
        return executed_flops(Recipe.from_dict(recipe), steps)
    except RecipeError:  # Of another version.
        return 0


def _before(recipe: Facts) -> Facts:
    """Tokens, hours, FLOPs of all runs before, from whose weights this one began."""
    weights = recipe.get("model", {}).get("weights")
    if not weights:
        return {}
    run = _read(Path(weights) / "resume.json") or _read(Path(weights) / "training.json")
    if not run:
        return {}
    recipe, steps = run.get("recipe", {}), run.get("step") or run.get("steps", 0)
    known = run.get("before") or _before(recipe) or {"tokens": 0, "hours": 0.0, "flops": 0}
    hours = run["seconds"] / 3600 if "seconds" in run else run["hours"]
    flops = run.get("flops") or _flops(recipe, steps)
    found = {"tokens": run["tokens"] + known["tokens"], "hours": round(hours + known["hours"], 2)}
    # Of all of them, or of none.
    return found | ({"flops": flops + known["flops"]} if flops and "flops" in known else {})


def _read(path: Path) -> Facts:
    if not path.exists():
        return {}
    try:
        found: Facts = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise EvaluationError(f"{path}: is no JSON: {error}") from error
    return found


def card(run: Run, labels: Labels) -> str:
    """The whole card. Headings nest by one; sections without facts are left out."""
    sections = [
        f"# {labels.name}",
        _about(run, labels),
        "## Use",
        *_use(labels),
        "## Limitations",
        _limitations(run),
        *_training(run),
        *_results(run),
        *_license(labels),
        *_citation(labels),
        *_attribution(run),
    ]
    return f"---\n{_front_matter(run, labels)}\n---\n\n" + "\n\n".join(sections) + "\n"


def _front_matter(run: Run, labels: Labels) -> str:
    data = ModelCardData(
        language="code",
        license=labels.license or None,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["code", "fill-in-the-middle", "gpt_bigcode", "python"],
        datasets=list(labels.datasets) or None,
        model_name=labels.name,
        eval_results=list(_eval_results(run)) or None,
    )
    return str(data.to_yaml())


def _eval_results(run: Run) -> Iterator[EvalResult]:
    for task, metric, _, estimate in rows(run.report) if run.report else ():
        if metric not in INDEXED.get(task, (metric,)):
            continue
        dataset_type, dataset_name = DATASETS[task]
        yield EvalResult(
            task_type="text-generation",
            dataset_type=dataset_type,
            dataset_name=dataset_name,
            metric_type=re.sub(r"\W+", "_", metric.replace("@", "_at_")),
            metric_name=metric,
            metric_value=round(estimate.value, 4),
        )


def _about(run: Run, labels: Labels) -> str:
    config = ModelConfig.from_dict(run.config)
    key_values = "one key and value head" if config.multi_query else "a key and value head each"
    what = (
        f"A language model for Python of {config.num_parameters():,} parameters, with the "
        f"architecture of StarCoder: GPT-2 with {key_values} (`gpt_bigcode`), trained to continue "
        f"code and to fill in the middle. Its context is {config.n_positions:,} tokens."
    )
    return "\n\n".join(filter(None, [what, labels.about.strip()]))


def _use(labels: Labels) -> Iterator[str]:
    yield "### Intended use"
    yield (
        "To suggest code while a person writes it, offline and on a CPU, and as the draft of a "
        "larger model of its family in assisted generation. It continues code; it does not follow "
        "instructions: a comment or a docstring and a signature is what it can be asked with."
    )
    yield "### Generation"
    yield f"""```python
# pip install -q transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

checkpoint = "{labels.checkpoint}"
device = "cpu"  # "cuda" for a GPU

tokenizer = AutoTokenizer.from_pretrained(checkpoint)
model = AutoModelForCausalLM.from_pretrained(checkpoint).to(device)

inputs = tokenizer("def print_hello_world():", return_tensors="pt").to(device)
outputs = model.generate(inputs.input_ids, max_new_tokens=32)
print(tokenizer.decode(outputs[0]))
```"""
    yield "### Fill-in-the-middle"
    yield (
        "Special tokens tell the prefix, the suffix and the middle apart; the model writes what "
        "follows `<fim_middle>`:"
    )
    yield r"""```python
input_text = "<fim_prefix>def print_one_two_three():\n    print('one')\n    <fim_suffix>\n    print('three')<fim_middle>"
inputs = tokenizer(input_text, return_tensors="pt").to(device)
outputs = model.generate(inputs.input_ids, max_new_tokens=32)
print(tokenizer.decode(outputs[0]))
```"""  # noqa: E501 - one string, as the published card has it.


def _limitations(run: Run) -> str:
    points = [
        "Its output is machine-written and may be wrong, insecure or out of date: read it before "
        "you run it.",
        "It knows Python and little else; in prose it knows the English of comments.",
        "It may repeat code it was trained on word for word, and that code's license then applies.",
        f"It sees at most {ModelConfig.from_dict(run.config).n_positions:,} tokens at a time.",
    ]
    return _bullets(points)


def _bullets(points: Sequence[str]) -> str:
    return "\n".join(f"- {point}" for point in points)


def _training(run: Run) -> Iterator[str]:
    training, config = run.training, ModelConfig.from_dict(run.config)
    yield "## Training"
    yield "### Model"
    facts = [
        "Architecture: GPT-2 model with multi-query attention and fill-in-the-middle objective"
        if config.multi_query
        else "Architecture: GPT-2 model with fill-in-the-middle objective",
        f"Size: {config.n_layer} layers, width {config.n_embd}, {config.n_head} heads, "
        f"a vocabulary of {config.vocab_size:,}",
    ]
    if training:
        recipe = training["recipe"]
        phases = ", ".join(
            f"{p['context']:,} up to {p['until']:.0%}" for p in recipe.get("phases", ())
        )
        facts += [
            f"Training steps: {training['steps']:,}",
            f"Training tokens: {_millions(training['tokens'])}",
            *([f"Training FLOPs: {training['flops']:.3g}"] if "flops" in training else []),
            *_begun(training),
            *([f"Tokens of a row: {phases} of the steps"] if phases else []),
            f"Fill-in-the-middle: {recipe['data']['fim_rate']:.0%} of the documents, "
            f"{recipe['data']['spm_rate']:.0%} of these suffix first",
            f"Optimizer: {recipe['optimizer']['kind']}",
            f"Precision: {_precision(recipe)}",
        ]
    yield _bullets(facts)
    yield from _corpus(run)
    if training:
        yield "### Hardware"
        hardware = [f"Hardware: {training['hardware']}"] if training["hardware"] else []
        yield _bullets([*hardware, f"Training time: {training['hours']:g} hours"])
        yield "### Software"
        versions = training["versions"]
        yield _bullets(
            [
                f"Orchestration: tinystarcoder {versions['tinystarcoder']}",
                f"Neural networks: PyTorch {versions['torch']}",
            ]
        )


def _begun(training: Facts) -> Iterator[str]:
    if before := training.get("before"):
        flops = f" and {before['flops']:.3g} FLOPs" if "flops" in before else ""
        yield (
            f"Begun from the weights of earlier runs, {_millions(before['tokens'])} tokens in "
            f"{before['hours']:g} hours{flops}"
        )


def _precision(recipe: Facts) -> str:
    found = str(recipe["hardware"]["precision"])
    return "bfloat16 where the processor has it, else float32" if found == "auto" else found


def _millions(number: float) -> str:
    return f"{number / 1e9:.1f} billion" if number >= 1e9 else f"{number / 1e6:.1f} million"


def _corpus(run: Run) -> Iterator[str]:
    if not run.corpus:
        return
    totals = run.corpus["totals"]
    yield "### Data"
    text = (
        f"{totals['packages']:,} Python packages, {totals['files']:,} files and "
        f"{totals['bytes'] / 1e6:,.1f} MB after filters and deduplication, by license:"
    )
    licenses = sorted(run.corpus["licenses"].items(), key=lambda item: -item[1]["bytes"])
    lines = [(n, str(e["packages"]), f"{e['bytes'] / 1e6:.1f}") for n, e in licenses]
    yield text + "\n\n" + table(("license", "packages", "MB"), lines).rstrip()
    if excluded := run.corpus.get("excluded"):
        yield f"Never trained on, in any version: {', '.join(excluded)}."


def _results(run: Run) -> Iterator[str]:
    if not run.report:
        return
    yield "## Evaluation"
    lines = [
        (DATASETS[task][1], metric, *_with_interval(metric, estimate), str(items))
        for task, metric, items, estimate in rows(run.report)
    ]
    yield table(("what", "metric", "value", "95%", "items"), lines).rstrip()
    groups = run.report["tasks"].get("bits-per-byte", {}).get("groups", {})
    if groups:
        packages = [
            (name, figure("bits-per-byte", metrics["bits-per-byte"]["value"]))
            for name, metrics in groups.items()
        ]
        yield "Bits-per-byte, left to right, by package:"
        yield table(("package", "bits-per-byte"), packages).rstrip()
    if "keystrokes" in run.report["tasks"]:
        yield (
            "Keystrokes: lines of held-out files typed again. A suggestion that is exactly what "
            "the author wrote next is accepted, for one key, and saves the rest of its characters; "
            "unfiltered: without what the completion service cuts away. By kind of line:"
        )
        yield by_group(
            run.report, "keystrokes", ("saved", "shown", "accepted", "whole lines")
        ).rstrip()
    yield (
        f"Measured by `tinystarcoder evaluate` {run.report['tinystarcoder']}; intervals by "
        f"resampling items. Of {', '.join(BITS)}, fewer are better."
    )


def _with_interval(metric: str, estimate: Estimate) -> tuple[str, str]:
    low, high = figure(metric, estimate.low), figure(metric, estimate.high)
    return figure(metric, estimate.value), f"{low} to {high}"


def _license(labels: Labels) -> Iterator[str]:
    if labels.license:
        yield "## License"
        yield f"The weights are licensed under `{labels.license}`."


def _citation(labels: Labels) -> Iterator[str]:
    key = re.sub(r"\W+", "_", labels.name)
    yield "## Citation"
    yield (
        "```bibtex\n"
        f"@misc{{{key},\n  title = {{{labels.name}}},\n"
        "  note = {Trained with tinystarcoder, on the architecture of StarCoder}\n}\n"
        "@article{starcoder,\n  title = {StarCoder: may the source be with you!},\n"
        "  author = {Li, Raymond and others},\n"
        "  journal = {arXiv:2305.06161},\n  year = {2023}\n}\n"
        "```"
    )


def _attribution(run: Run) -> Iterator[str]:
    beside = [name for name in ("NOTICE", "manifest.json") if name in run.files]
    if not (run.corpus or beside):
        return
    yield "## Attribution"
    text = "The model learned from other people's code, whose licenses ask for attribution."
    if beside:
        listed = " and ".join(f"`{name}`" for name in beside)
        text += f" {listed} beside this card name every package, its version and its license."
    yield text + " `tinystarcoder attribute` finds what of a text stands in the training corpus."
