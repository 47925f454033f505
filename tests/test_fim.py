"""Fill-in-the-middle: BigCode's sequences, and their inverse."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinystarcoder import fim
from tinystarcoder.fim import FimTokens
from tinystarcoder.tokenizer import Tokenizer

ORDERS: tuple[fim.Order, ...] = ("psm", "spm")
BY_NUMBER = FimTokens(prefix=1, middle=2, suffix=3, pad=4)


@pytest.fixture(scope="session", params=["_", "-"], ids=["StarCoder", "SantaCoder"])
def spelled(request: pytest.FixtureRequest, tokenizer: Tokenizer) -> Tokenizer:
    """The small tokenizer with the sentinels in either spelling."""
    text = tokenizer._raw.to_str()
    for part in ("prefix", "middle", "suffix", "pad"):
        text = text.replace(f"<fim_{part}>", f"<fim{request.param}{part}>")
    return Tokenizer(type(tokenizer._raw).from_str(text))


def encode(text: str) -> list[int]:
    return [ord(character) for character in text]


def test_the_sequences_are_bigcodes() -> None:
    """Of "abcdef" with "cd" as the middle."""
    psm = fim.permute("abcdef", (2, 4), encode, BY_NUMBER, "psm")
    spm = fim.permute("abcdef", (2, 4), encode, BY_NUMBER, "spm")
    assert psm == [1, *b"ab", 3, *b"ef", 2, *b"cd"]
    assert spm == [1, 3, *b"ef", 2, *b"ab", *b"cd"]


@pytest.mark.parametrize("order", ORDERS)
def test_a_prompt_is_the_sequence_without_its_middle(order: fim.Order) -> None:
    prompt = fim.prompt([10, 11], [12], BY_NUMBER, order)
    assert fim.permute("", (0, 0), lambda _: [], BY_NUMBER, order) == fim.prompt(
        [], [], BY_NUMBER, order
    )
    assert sorted(prompt) == [1, 2, 3, 10, 11, 12]
    # In SPM order, a keystroke before the cursor only appends.
    assert (fim.prompt([10, 11, 13], [12], BY_NUMBER, "spm"))[:-1] == fim.prompt(
        [10, 11], [12], BY_NUMBER, "spm"
    )


@given(text=st.text(), order=st.sampled_from(ORDERS), data=st.data())
def test_unpermute_is_the_inverse(
    spelled: Tokenizer, text: str, order: fim.Order, data: st.DataObject
) -> None:
    """For any text, any cuts, both orders, both spellings."""
    tokens = spelled.fim
    assert tokens is not None
    cuts = fim.draw_cuts(len(text), Random(data.draw(st.integers(0, 2**32))))
    ids = fim.permute(text, cuts, spelled.encode, tokens, order)
    assert fim.unpermute(ids, spelled.decode, tokens) == text


@given(text=st.text(max_size=5), order=st.sampled_from(ORDERS))
def test_text_that_spells_sentinels_is_text(
    spelled: Tokenizer, text: str, order: fim.Order
) -> None:
    tokens = spelled.fim
    assert tokens is not None
    sentinel = spelled._raw.id_to_token(tokens.suffix)
    assert sentinel is not None
    document = f"{text}{sentinel}{text}"
    ids = fim.permute(document, (1, 3), spelled.encode, tokens, order)
    assert [ids.count(i) for i in (tokens.prefix, tokens.suffix, tokens.middle)] == [1, 1, 1]
    assert fim.unpermute(ids, spelled.decode, tokens) == document


@given(length=st.integers(0, 50), seed=st.integers())
def test_cuts_are_ordered_places_between_characters(length: int, seed: int) -> None:
    start, end = fim.draw_cuts(length, Random(seed))
    assert 0 <= start <= end <= length


def test_cuts_are_uniform() -> None:
    """Each pair of places as often as two dice show it, within 5 standard deviations."""
    rng = Random(0)
    number = 20_000
    pairs = [fim.draw_cuts(2, rng) for _ in range(number)]
    for start in range(3):
        for end in range(start, 3):
            share = (1 if start == end else 2) / 9
            deviation = (share * (1 - share) / number) ** 0.5
            assert abs(pairs.count((start, end)) / number - share) < 5 * deviation


@pytest.mark.parametrize(
    "ids",
    [[], [9], [1, 3], [1, 2], [1, 2, 3], [9, 1, 3, 2]],
    ids=["empty", "none", "no middle", "no suffix", "wrong order", "prefix not first"],
)
def test_what_is_no_fim_sequence(ids: list[int]) -> None:
    with pytest.raises(ValueError, match=r"sentinel|not in list"):
        fim.unpermute(ids, lambda _: "", BY_NUMBER)


@given(text=st.text("ab\n"), seed=st.integers(0, 2**32))
def test_a_line_cut_ends_where_a_line_does(text: str, seed: int) -> None:
    start, end = fim.draw_line_cuts(text, Random(seed))
    assert 0 <= start <= end <= len(text)
    assert end == len(text) or text[end] == "\n"


def test_line_cuts_begin_anywhere_and_most_stay_in_their_line() -> None:
    text = "one = 1\ntwo = 2\n" * 50
    cuts = [fim.draw_line_cuts(text, Random(seed)) for seed in range(2000)]
    lines = [text.count("\n", *cut) for cut in cuts]
    assert 0.45 < lines.count(0) / len(lines) < 0.55
    assert 0.2 < lines.count(1) / len(lines) < 0.3
    assert max(lines) > 4
    assert len({start for start, _ in cuts}) > 500
