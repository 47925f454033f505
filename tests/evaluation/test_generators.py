"""A model of this family writes batches: the same texts as one at a time, after a kill too."""

from itertools import islice
from pathlib import Path

import pytest

from tinystarcoder.evaluation.generators import Ask, FamilyModel
from tinystarcoder.evaluation.journal import Journal
from tinystarcoder.evaluation.problems import Problem, Task
from tinystarcoder.evaluation.scoring import generate
from tinystarcoder.fim import Order
from tinystarcoder.generation.sampling import SamplingOptions
from tinystarcoder.pretrained import Model, load

DRAWN = SamplingOptions(max_tokens=12, temperature=1.0, seed=5)


@pytest.fixture(scope="module")
def model(tiny_checkpoint: Path) -> Model:
    return load(tiny_checkpoint, precision="fp32")


@pytest.mark.parametrize("order", ["psm", "spm"])
def test_a_batch_is_what_each_is_alone(model: Model, order: Order) -> None:
    writer = FamilyModel(model, order)
    asked = [
        Ask("def area(width", None, SamplingOptions(max_tokens=12)),
        Ask("def f():\n", "    return 1\n", SamplingOptions(max_tokens=9, stop=("\n",))),
        Ask("import os\n", None, DRAWN, 3),
        Ask("", None, DRAWN),
        Ask("class A:\n", "", DRAWN, 2),
    ] * 9
    together = list(writer.generate(asked))
    assert [len(texts) for texts in together] == [ask.number for ask in asked]
    assert together[:5] == [next(writer.generate([ask])) for ask in asked[:5]]
    assert together == together[:5] * 9
    assert len(set(together[2])) == 3
    # As a user of the model gets them.
    assert together[0][0].text == model.complete("def area(width", max_tokens=12).text
    middle = model.infill("def f():\n", "    return 1\n", order=order, max_tokens=9, stop=("\n",))
    assert together[1][0] == (middle.text, middle.finish_reason == "stop")


def test_a_kill_within_a_batch_changes_nothing(model: Model, tmp_path: Path) -> None:
    problems = tuple(Problem(f"p{n}", f"def f{n}(", None, "") for n in range(30))
    task = Task("task", problems, 12)

    def written(path: Path) -> Journal:
        return Journal(path, {"task": "task"})

    whole, cut = tmp_path / "whole.jsonl", tmp_path / "cut.jsonl"
    list(generate(task, FamilyModel(model), DRAWN, 2, written(whole)))
    records = generate(task, FamilyModel(model), DRAWN, 2, written(cut))
    assert len(list(islice(records, 7))) == 7
    del records
    assert 7 <= len(cut.read_bytes().splitlines()) - 1 < 30
    list(generate(task, FamilyModel(model), DRAWN, 2, written(cut)))
    assert cut.read_bytes() == whole.read_bytes()
