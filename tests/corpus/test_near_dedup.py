import re
from functools import cache
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinystarcoder.corpus import near_dedup
from tinystarcoder.corpus.grouping import Forest
from tinystarcoder.corpus.near_dedup import (
    BANDS,
    PERMUTATIONS,
    THRESHOLD,
    Sketch,
    SketchFiles,
    gram_hashes,
    jaccard,
)

WORDS = st.lists(st.sampled_from(["self", "x", "return", "def", "None", "42", "_a"]), max_size=60)
SEPARATORS = [" ", "\n", "(", ").", " = ", "é", "\t\t", "-", "😀"]


@cache
def grams(text: str) -> set[tuple[str, ...]]:
    words = [word for word in re.split(r"[^A-Za-z_0-9]", text) if word]
    return {tuple(words[i : i + 5]) for i in range(len(words) - 4)}


def exact(left: str, right: str) -> float:
    a, b = grams(left), grams(right)
    return len(a & b) / len(a | b)


def prose(rng: Random, count: int) -> list[str]:
    return [f"w{rng.randrange(5000)}" for _ in range(count)]


def edited(rng: Random, words: list[str], edits: int) -> list[str]:
    words = list(words)
    for _ in range(edits):
        words[rng.randrange(len(words))] = f"new{rng.randrange(10**9)}"
    return words


def components(sketches, folder) -> list[int]:
    """For each document the lowest index among its near duplicates."""
    files = SketchFiles.write([sketches[:3], sketches[3:]], folder)
    forest = Forest(np.arange(len(files)))
    for band in range(BANDS):
        forest.join(*files.similar_pairs(band).T)
    return forest.find(np.arange(len(files))).tolist()


@given(WORDS, st.data())
def test_only_the_words_count(words, data):
    plain = " ".join(words)
    noisy = "".join(word + data.draw(st.sampled_from(SEPARATORS)) for word in words)
    assert gram_hashes(plain).tolist() == gram_hashes(noisy).tolist()


@given(WORDS, WORDS)
def test_jaccard_is_that_of_the_sets_of_5_grams(left, right):
    left, right = " ".join(left), " ".join(right)
    found = jaccard(gram_hashes(left), gram_hashes(right))
    assert found == (exact(left, right) if grams(left) | grams(right) else 0)


@given(st.text("aé(", max_size=9), st.lists(st.integers(1, 140), min_size=1, max_size=4))
def test_words_of_any_length_at_any_place(before, lengths):
    """A letter changed anywhere in a word changes its 5-gram."""
    words = ["x" * length for length in lengths]
    texts = [" ".join([before, *words, "b c d e"])]
    for place, length in enumerate(lengths):
        for letter in {0, length // 2, length - 1}:
            word = words[place][:letter] + "y" + words[place][letter + 1 :]
            changed = [*words[:place], word, *words[place + 1 :]]
            texts.append(" ".join([before, *changed, "b c d e"]))
    hashes = {tuple(gram_hashes(text).tolist()) for text in texts}
    assert len(hashes) == len({tuple(sorted(grams(text))) for text in texts})


@pytest.mark.parametrize("edits", [0, 5, 20, 50, 120])
def test_agreement_estimates_jaccard(edits):
    rng = Random(edits)
    errors = []
    for _ in range(20):
        words = prose(rng, 1000)
        left, right = " ".join(words), " ".join(edited(rng, words, edits))
        estimate = (Sketch.of(left).agreement == Sketch.of(right).agreement).mean()
        errors.append(estimate - exact(left, right))
    # The standard error of one is at most 1/32; of the mean of 20 a fifth of that. One
    # byte of a hash agrees by chance once in 256.
    assert abs(np.mean(errors)) < 4 / 32 / 20**0.5 + 1 / 256
    assert max(map(abs, errors)) < 5 / 32


def test_components_agree_with_exact_jaccard(tmp_path):
    """Families of edited copies, on both sides of the threshold, close to it and far."""
    rng = Random(7)
    texts = []
    for family in range(60):
        words = prose(rng, 400)
        texts.append(" ".join(words))
        for copy in range(3):
            edits = [2, 13, 16][copy] if family % 2 else [60, 14, 18][copy]
            texts.append(" ".join(edited(rng, words, edits)))
    roots = components([Sketch.of(text) for text in texts], tmp_path / "files")
    expected = list(range(len(texts)))
    close = 0
    for index, text in enumerate(texts):
        for other in range(index // 4 * 4, index):
            close += abs(exact(text, texts[other]) - THRESHOLD) < 0.05
            if exact(text, texts[other]) >= THRESHOLD:
                low, high = sorted((expected[index], expected[other]))
                expected = [low if root == high else root for root in expected]
    assert close > 40
    assert roots == expected


def test_a_chain_is_one_component(tmp_path):
    rng = Random(3)
    words = prose(rng, 300)
    chain = [words]
    for step in range(8):
        words = list(words)
        for place in range(step * 30, step * 30 + 6):
            words[place] = f"step{step}_{place}"
        chain.append(words)
    texts = [" ".join(words) for words in chain]
    assert exact(texts[0], texts[-1]) < THRESHOLD
    assert not any(components([Sketch.of(text) for text in texts], tmp_path / "files"))


def test_order_moves_the_root_and_not_the_components(tmp_path):
    rng = Random(11)
    texts = []
    for _ in range(30):
        words = prose(rng, 200)
        texts += [" ".join(words), " ".join(edited(rng, words, 3))]
    order = list(range(len(texts)))
    rng.shuffle(order)
    sketches = [Sketch.of(text) for text in texts]
    roots = components(sketches, tmp_path / "one")
    shuffled = components([sketches[index] for index in order], tmp_path / "other")
    first = {}
    for place, index in enumerate(order):
        assert shuffled[place] == first.setdefault(roots[index], place)


def test_texts_of_fewer_than_5_words_have_no_5_grams(tmp_path):
    assert [len(gram_hashes(text)) for text in ("", "a b c d", "()", "a b c d e")] == [0, 0, 0, 1]
    assert len(SketchFiles.write([], tmp_path / "files")) == 0
    assert SketchFiles(tmp_path / "files").similar_pairs(0).shape == (0, 2)


@given(st.integers(0, 2**32), st.integers(2, 24), st.integers(20, 110))
@settings(max_examples=30)
def test_a_bucket_is_joined_as_if_all_pairs_were_compared(tmp_path_factory, seed, count, changes):
    """All in one bucket of the first band; agreement and sets on both sides of the threshold."""
    rng = np.random.default_rng(seed)
    ancestors = rng.integers(0, 256, (3, PERMUTATIONS), dtype=np.uint8)
    sketches = []
    for ancestor in rng.integers(0, 3, count):
        agreement = ancestors[ancestor].copy()
        agreement[rng.choice(PERMUTATIONS, changes, replace=False)] = rng.integers(0, 256, changes)
        dropped = rng.choice(40, rng.integers(0, 12), replace=False)
        numbers = np.delete(np.arange(40), dropped) + 100 * ancestor
        bands = np.arange(BANDS, dtype=np.uint64)
        sketches.append(Sketch(bands, agreement, numbers.astype(np.uint32)))
    expected = list(range(count))
    for right in range(count):
        for left in range(right):
            one, other = sketches[left], sketches[right]
            share = (one.agreement == other.agreement).mean()
            similar = share >= near_dedup.SURELY_SIMILAR
            if near_dedup.SURELY_DIFFERENT <= share < near_dedup.SURELY_SIMILAR:
                similar = jaccard(one.grams, other.grams) >= THRESHOLD
            if similar:
                low, high = sorted((expected[left], expected[right]))
                expected = [low if root == high else root for root in expected]
    files = SketchFiles.write([sketches], tmp_path_factory.mktemp("sketches"))
    pairs = files.similar_pairs(0)
    forest = Forest(np.arange(count))
    forest.join(*pairs.T)
    assert forest.find(np.arange(count)).tolist() == expected
    # A forest: as many pairs as it takes, none of them twice.
    assert len(pairs) >= count - len(set(expected))


def test_many_copies_are_one_component_and_found_at_once(tmp_path):
    files = SketchFiles.write([[Sketch.of("one two three four five six")] * 3000], tmp_path / "s")
    assert files.similar_pairs(3).tolist() == [[row, row + 1] for row in range(2999)]


def test_a_bucket_of_many_that_are_not_alike_is_not_compared_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(near_dedup, "NEIGHBORS", 2)
    near, far = (np.arange(5, dtype=np.uint32) + 10 * n for n in range(2))
    bands = np.arange(BANDS, dtype=np.uint64)
    sketches = [
        Sketch(bands, np.full(PERMUTATIONS, value, np.uint8), grams)
        for value, grams in ((1, near), (2, far), (1, near), (3, far), (4, far), (1, near))
    ]
    pairs = SketchFiles.write([sketches], tmp_path / "s").similar_pairs(0)
    assert pairs.tolist() == [[0, 2]]  # 2 and 5 are alike, and too far apart.
