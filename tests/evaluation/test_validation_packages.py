"""The packages that figures are measured on: the right bytes, fair prompts, nano's parse rate."""

from pathlib import Path

import pytest

from tinystarcoder.evaluation.generators import FamilyModel
from tinystarcoder.evaluation.held_out import Source, read_sources
from tinystarcoder.evaluation.parse_rate import cut_prompts, parse_rate
from tinystarcoder.pretrained import load
from tinystarcoder.verdict import judge

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def wheels() -> dict[str, Path]:
    """Package name -> wheel. Not fetched here: tests ask no registry."""
    folder = ROOT / ".validation"
    if not folder.is_dir():
        pytest.skip("the validation packages are absent; scripts/validation-packages fetches them")
    return {path.name.split("-")[0]: path for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def sources(wheels: dict[str, Path]) -> list[Source]:
    return list(read_sources(list(wheels.values())))


def test_the_three_that_figures_are_compared_on(wheels: dict[str, Path]) -> None:
    three = read_sources([wheels[name] for name in ("requests", "httpx", "attrs")])
    sizes = {source.name: sum(len(text.encode()) for _, text in source.files) for source in three}
    assert sizes == {"requests 2.34.2": 217_284, "httpx 0.28.1": 284_396, "attrs 26.1.0": 193_323}
    assert sum(sizes.values()) == 695_003


def test_no_file_is_left_out(sources: list[Source]) -> None:
    assert len(sources) == 10
    assert [name for source in sources for name in source.unreadable] == []


def test_what_the_authors_wrote_passes(sources: list[Source]) -> None:
    """The measure is fair: the real continuation, cut off after 64 lines, passes nearly always."""
    texts = {(source.name, path): text for source in sources for path, text in source.files}
    prompts = cut_prompts(sources, 50)
    failed = []
    for prompt in prompts:
        lines = texts[prompt.source, prompt.path].split("\n")[prompt.line - 1 :]
        verdict = judge(prompt.text, "\n".join(lines[:64]), ended=False)
        if not verdict.passed:
            failed.append((prompt.source, prompt.path, prompt.line, verdict))
    assert failed == []


def test_nano_writes_python(sources: list[Source], monkeypatch: pytest.MonkeyPatch) -> None:
    """With an instruction set that all x86 machines have: each rounds, and so loops, otherwise."""
    monkeypatch.setenv("TINYSTARCODER_ISA", "avx2")
    results = list(parse_rate(cut_prompts(sources, 50), FamilyModel(load())))
    assert sum(result.verdict.passed for result in results) >= 45
