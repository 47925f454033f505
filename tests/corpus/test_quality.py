import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinystarcoder.corpus.quality import WEIGHTS, quality, signals

CLEAR = '''"""Counts words."""

from collections import Counter


def words_of(line: str) -> list[str]:
    """The words of a line, in lower case."""
    return [word.strip(".,;:!?") for word in line.lower().split()]


def most_common(lines: list[str], count: int) -> list[str]:
    """The words that occur most often, the most frequent first."""
    counter: Counter[str] = Counter()
    for line in lines:
        counter.update(word for word in words_of(line) if word)
    return [word for word, _ in counter.most_common(count)]
'''
TABLE = "TABLE = [\n" + "".join(f'    ("name{n}", {n}, None),\n' for n in range(300)) + "]\n"
IMPORTS = "".join(f"from .module{n} import thing{n}\n" for n in range(40))
REPEATED = "x = compute(first, second)\n" * 300


def test_weights_are_shares():
    assert sum(WEIGHTS.values()) == pytest.approx(1)


@pytest.mark.parametrize("poor", [TABLE, IMPORTS, REPEATED, "", "\n\n"])
def test_clear_code_is_above_tables_lists_of_imports_and_repetition(poor):
    assert quality(CLEAR) > 0.85
    assert quality(poor) < 0.6


@pytest.mark.parametrize(
    ("signal", "better", "worse"),
    [
        ("explained", CLEAR, CLEAR.replace('"""', "'")),
        ("explained", CLEAR, "# words\n" * 500 + CLEAR),
        ("structured", CLEAR, "x = f(1)\n" * 500 + CLEAR),
        ("logic", CLEAR, CLEAR + TABLE),
        ("varied", CLEAR, REPEATED),
        ("narrow", CLEAR, CLEAR.replace("count", "count" * 20)),
        ("typed", CLEAR, CLEAR.replace(" -> list[str]", "").replace(": str", "")),
    ],
)
def test_each_signal_tells_what_it_is_for(signal, better, worse):
    assert signals(better)[signal] > signals(worse)[signal]


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=400))
def test_scores_are_from_0_to_1(text):
    assert signals(text).keys() == WEIGHTS.keys()
    assert all(0 <= value <= 1 for value in signals(text).values())
    assert 0 <= quality(text) <= 1
