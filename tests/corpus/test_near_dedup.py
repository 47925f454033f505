import re
from functools import cache
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinystarcoder.corpus.near_dedup import PERMUTATIONS, ROWS, THRESHOLD, components, signature

WORDS = st.lists(st.sampled_from(["self", "x", "return", "def", "None", "42", "_a"]), max_size=60)
SEPARATORS = [" ", "\n", "(", ").", " = ", "é", "\t\t", "-", "😀"]


@cache
def grams(text: str) -> set[tuple[str, ...]]:
    words = [word for word in re.split(r"[^A-Za-z_0-9]", text) if word]
    return {tuple(words[i : i + 5]) for i in range(len(words) - 4)}


def jaccard(left: str, right: str) -> float:
    a, b = grams(left), grams(right)
    return len(a & b) / len(a | b)


def prose(rng: Random, count: int) -> list[str]:
    return [f"w{rng.randrange(5000)}" for _ in range(count)]


def edited(rng: Random, words: list[str], edits: int) -> list[str]:
    words = list(words)
    for _ in range(edits):
        words[rng.randrange(len(words))] = f"new{rng.randrange(10**9)}"
    return words


@given(WORDS, st.data())
def test_only_the_words_count(words, data):
    plain = " ".join(words)
    noisy = "".join(word + data.draw(st.sampled_from(SEPARATORS)) for word in words)
    assert np.array_equal(signature(plain), signature(noisy))


@given(WORDS, WORDS)
def test_equal_signatures_mean_equal_sets_of_5_grams(left, right):
    left, right = " ".join(left), " ".join(right)
    same = np.array_equal(signature(left), signature(right))
    assert same == (grams(left) == grams(right))


@pytest.mark.parametrize("edits", [0, 5, 20, 50, 120])
def test_agreement_estimates_jaccard(edits):
    rng = Random(edits)
    errors = []
    for _ in range(20):
        words = prose(rng, 1000)
        left, right = " ".join(words), " ".join(edited(rng, words, edits))
        estimate = (signature(left) == signature(right)).mean()
        errors.append(estimate - jaccard(left, right))
    # The standard error of one is at most 1/32; of the mean of 20 a fifth of that.
    assert abs(np.mean(errors)) < 4 / 32 / 20**0.5
    assert max(map(abs, errors)) < 5 / 32


def test_words_longer_than_the_table_of_powers():
    long = "x" * 5000
    assert not np.array_equal(signature(f"a b c d {long}"), signature(f"a b c d {long}y"))


def test_components_agree_with_exact_jaccard():
    """Families of edited copies, on both sides of the threshold and far from it."""
    rng = Random(7)
    texts = []
    for family in range(40):
        words = prose(rng, 400)
        texts.append(" ".join(words))
        for copy in range(3):
            edits = [2, 6, 60][copy] if family % 2 else 80
            texts.append(" ".join(edited(rng, words, edits)))
    roots = components(np.stack([signature(text) for text in texts]))
    for index, text in enumerate(texts):
        near = [other for other in range(index) if jaccard(text, texts[other]) >= THRESHOLD]
        assert roots[index] == min(near, default=index)


def test_a_chain_is_one_component():
    rng = Random(3)
    words = prose(rng, 300)
    chain = [words]
    for step in range(8):
        words = list(words)
        for place in range(step * 30, step * 30 + 6):
            words[place] = f"step{step}_{place}"
        chain.append(words)
    texts = [" ".join(words) for words in chain]
    assert jaccard(texts[0], texts[-1]) < THRESHOLD
    assert (components(np.stack([signature(text) for text in texts])) == 0).all()


def test_order_moves_the_root_and_not_the_components():
    rng = Random(11)
    texts = []
    for _ in range(30):
        words = prose(rng, 200)
        texts += [" ".join(words), " ".join(edited(rng, words, 3))]
    order = list(range(len(texts)))
    rng.shuffle(order)
    signatures = np.stack([signature(text) for text in texts])
    roots, shuffled = components(signatures), components(signatures[order])
    first = {}
    for place, index in enumerate(order):
        assert shuffled[place] == first.setdefault(int(roots[index]), place)


def test_texts_without_5_grams_are_never_duplicates():
    signatures = np.stack([signature(text) for text in ("", "a b c d", "a b c d", "()")])
    assert components(signatures).tolist() == [0, 1, 2, 3]
    assert components(np.empty((0, PERMUTATIONS), dtype=np.uint32)).tolist() == []


@given(st.integers(0, 2**32), st.integers(2, 24), st.integers(40, 110))
def test_a_bucket_is_joined_as_if_all_pairs_were_compared(seed, count, changes):
    """All in one bucket of the first band, on both sides of the threshold."""
    rng = np.random.default_rng(seed)
    signatures = rng.integers(0, 1 << 32, (3, PERMUTATIONS), dtype=np.uint32)
    signatures = signatures[rng.integers(0, 3, count)]
    for row in signatures:
        row[rng.choice(PERMUTATIONS, changes, replace=False)] = rng.integers(0, 1 << 32, changes)
    signatures[:, :ROWS] = 7
    agreement = (signatures[:, None] == signatures[None]).mean(axis=2)
    expected = list(range(count))
    for left, right in np.argwhere(agreement >= THRESHOLD):
        low, high = sorted((expected[left], expected[right]))
        expected = [low if root == high else root for root in expected]
    assert components(signatures).tolist() == expected


def test_many_copies_are_one_component_in_good_time():
    signatures = np.tile(signature("one two three four five six"), (3000, 1))
    assert not components(signatures).any()
