"""``tinystarcoder card``: from text, with a user's labels, and from a model's folder."""

import json
import re
from collections.abc import Callable
from pathlib import Path

Run = Callable[..., tuple[int, str, str]]

CARD = Path(__file__).parents[1] / "assets" / "card.txt"


def labels_of(output: str) -> list[dict[str, str]]:
    (found,) = re.findall(r"## Suggested labels\n\n```json\n(.+)\n```\n\Z", output, re.DOTALL)
    labels: list[dict[str, str]] = json.loads(found)
    return labels


def test_from_a_published_cards_text(run: Run, shared_data: Path) -> None:
    code, output, _ = run("card", "--from-text", str(shared_data / "card" / "card.txt"))
    assert code == 0 and output.startswith("# TinyStarCoderPy\n")
    assert labels_of(output)[0]["key"] == "llm-pretrained-model"


def test_from_standard_input_with_labels_of_ones_own(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "labels.json"
    path.write_text('{"short-stories": "Told such as {Author}", "poem": "Rhymes"}')
    code, output, _ = run(
        "card", "--from-text", "-", "--labels", str(path), stdin=CARD.read_bytes()
    )
    assert code == 0
    assert labels_of(output) == [{"key": "short-stories", "value": "Told such as The Parrot Team"}]


def test_labels_that_are_none(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "labels.json"
    path.write_text("[]")
    said = f"error: {path}: labels are one JSON object of key to value, both strings\n"
    assert run("card", "--from-text", str(CARD), "--labels", str(path)) == (2, "", said)


def test_of_a_folder(run: Run, tiny_checkpoint: Path) -> None:
    code, output, _ = run("card", str(tiny_checkpoint), "--name", "mine", "--license", "mit")
    assert code == 0 and "\n# mine\n" in output and "license: mit\n" in output
    # There is no run to tell of, and so no figure of one.
    assert "Training steps" not in output and "## Evaluation" not in output


def test_of_nothing(run: Run, tmp_path: Path) -> None:
    assert run("card") == (2, "", "error: give a run's folder, or --from-text FILE\n")
    assert run("card", str(tmp_path), "--labels", "l.json")[2].startswith(
        "error: --labels goes with"
    )
    said = f"error: {tmp_path}: neither a run of tinystarcoder train nor a model folder\n"
    assert run("card", str(tmp_path)) == (2, "", said)
