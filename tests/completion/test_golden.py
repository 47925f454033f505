"""Golden files: what the model writes at a cursor, and what is shown of it.

Cases are separated by ``====``. The first line says what is shown, with a limit
in parentheses if one ended the text; then comes a document with the model's
text in «», then ``-->`` and the suggestion in «».
"""

import re
from pathlib import Path

import pytest

from tinystarcoder.completion.postprocess import FILTERS, postprocess
from tinystarcoder.completion.request import CompletionRequest, Finish, Suggestion
from tinystarcoder.completion.stopping import boundary, extent

FOLDER = Path(__file__).parent / "golden"
CASES = [
    pytest.param(case.strip("\n"), id=f"{path.stem}: {case.strip().splitlines()[0]}")
    for path in sorted(FOLDER.glob("*.txt"))
    for case in path.read_text(encoding="utf-8").split("\n====\n")
]


def shown(request: CompletionRequest, text: str, limit: Finish | None) -> str:
    """The suggestion for a text that comes character by character."""
    allowed = extent(request)
    ends = (boundary(allowed, text[:length]) for length in range(1, len(text) + 1))
    end = next((end for end in ends if end is not None), None)
    if end is None and limit is None:
        end = boundary(allowed, text, complete=True)
    finish: Finish = "boundary" if end is not None else limit or "end"
    return postprocess(Suggestion(text[:end], finish), request).text


@pytest.mark.parametrize("case", CASES)
def test_golden(case: str) -> None:
    title, _, body = case.partition("\n")
    source, _, expected = body.partition("\n-->\n")
    prefix, text, suffix = re.split("[«»]", source)
    limit: Finish | None = next((one for one in LIMITS if f"({one})" in title), None)
    assert f"«{shown(CompletionRequest(prefix, suffix), text, limit)}»" == expected


LIMITS: tuple[Finish, ...] = ("length", "deadline")


@pytest.mark.parametrize("chosen", FILTERS, ids=lambda chosen: chosen.__name__)
def test_every_filter_is_needed(chosen: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any one of them, some golden case fails."""
    left = tuple(one for one in FILTERS if one is not chosen)
    monkeypatch.setattr("tinystarcoder.completion.postprocess.FILTERS", left)
    with pytest.raises(AssertionError):
        for case in CASES:
            test_golden(case.values[0])


@pytest.mark.parametrize("case", CASES)
def test_filters_only_cut(case: str) -> None:
    prefix, text, suffix = re.split("[«»]", case.partition("\n-->\n")[0])
    request = CompletionRequest(prefix, suffix)
    for chosen in FILTERS:
        for finish in LIMITS:
            assert text.startswith(chosen(Suggestion(text, finish), request).text)
