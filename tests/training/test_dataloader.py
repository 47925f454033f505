from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinystarcoder import fim
from tinystarcoder.corpus.document import Document
from tinystarcoder.corpus.token_shards import build_token_shards
from tinystarcoder.errors import TrainingError
from tinystarcoder.training.dataloader import Cursor, Dataloader, Mixture, prefetch
from tinystarcoder.training.loss import IGNORED
from tinystarcoder.training.packing import Piece
from tinystarcoder.training.recipe import DataRecipe, Keep

RECIPE = DataRecipe(train="", tokenizer="", fim_rate=0.5)


@pytest.fixture
def make(toy_shards, toy_tokenizer):
    def make(seed=0, sources=None, weights=(1.0,), rank=0, ranks=1, **changes):
        mixture = Mixture(sources or [toy_shards], weights)
        recipe = replace(RECIPE, **changes)
        return Dataloader(mixture, toy_tokenizer, recipe, seed, rank=rank, ranks=ranks)

    return make


def take(loader, count, context=64, rows=3, cursor=None):
    return list(islice(loader.batches(cursor or Cursor(), context, rows), count))


def same(first, second):
    arrays = ("inputs", "targets", "documents")
    return all(np.array_equal(getattr(first, n), getattr(second, n)) for n in arrays)


def test_targets_are_the_inputs_shifted_by_one(make):
    for batch in take(make(), 20):
        inputs, targets = batch.inputs, batch.targets
        assert inputs.shape == targets.shape == batch.documents.shape == (3, 64)
        real = targets[:, :-1] != IGNORED
        assert (inputs[:, 1:] == targets[:, :-1])[real].all()


def test_the_same_seed_gives_the_same_batches(make):
    first, second, other = take(make(), 9), take(make(), 9), take(make(seed=1), 9)
    assert all(map(same, first, second))
    assert not all(map(same, first, other))


def test_a_cursor_goes_on_exactly_where_it_was_taken(make):
    through = take(make(), 40)
    for stop in (1, 7, 23):
        rest = take(make(), 40 - stop, cursor=through[stop - 1].cursor)
        assert all(map(same, through[stop:], rest))


@pytest.mark.parametrize("ranks", [2, 3, 6])
def test_any_number_of_ranks_takes_the_same_rows(make, ranks):
    alone = take(make(), 8, rows=6)
    shares = [take(make(rank=rank, ranks=ranks), 8, rows=6) for rank in range(ranks)]
    for step, whole in enumerate(alone):
        for rank, share in enumerate(shares):
            assert np.array_equal(share[step].inputs, whole.inputs[rank::ranks])
            assert share[step].cursor == whole.cursor
        assert sum(share[step].bytes for share in shares) == whole.bytes


def test_epochs_follow_one_another_in_another_order(make):
    batches = make().batches(Cursor(), 64, 3)
    assert next(batch.cursor for batch in batches if batch.cursor.epoch == 2)
    first = [row for _, row, _ in islice(make()._rows(Cursor(), 64), 5)]
    assert first != [row for _, row, _ in islice(make()._rows(Cursor(epoch=1), 64), 5)]


def test_without_fim_an_epoch_is_every_token_once(make, toy_shards):
    loader = make(fim_rate=0.0)
    ids = []
    for epoch, row, _ in loader._rows(Cursor(), 64):
        if epoch:
            break
        ids += [token for piece in loader.row(epoch, row) for token in piece]
    wanted = np.concatenate([toy_shards.document(i) for i in range(len(toy_shards))])
    assert sorted(ids) == sorted(wanted.tolist())


def test_permuted_pieces_hold_their_text_and_end(make, toy_tokenizer, toy_shards):
    loader = make(fim_rate=1.0, spm_rate=0.5)
    tokens, end = toy_tokenizer.fim, toy_tokenizer.eos_id
    orders, checked = set(), 0
    for epoch, row, _ in islice(loader._rows(Cursor(), 64), 60):
        for piece in row:
            ids = loader._piece(epoch, piece)
            assert len(ids) <= len(piece)
            if ids[0] != tokens.prefix:  # A piece that begins or ends inside a character.
                continue
            assert ids[-1] == end
            plain = toy_shards.document(piece.document)[piece.start : piece.stop].tolist()
            plain = plain[:-1] if plain[-1] == end else plain
            text = fim.unpermute(ids[:-1], toy_tokenizer.decode, tokens)
            assert text == toy_tokenizer.decode(plain)
            orders.add(ids[1] == tokens.suffix)
            checked += 1
    assert checked > 50
    assert orders == {True, False}


def test_middles_end_with_a_line_where_the_recipe_says_so(make, toy_tokenizer):
    loader = make(fim_rate=1.0, line_rate=1.0)
    tokens, checked = toy_tokenizer.fim, 0
    for epoch, row, _ in islice(loader._rows(Cursor(), 64), 60):
        for piece in row:
            ids = loader._piece(epoch, piece)
            if ids[0] != tokens.prefix:
                continue
            suffix = ids[ids.index(tokens.suffix) + 1 : ids.index(tokens.middle)]
            assert toy_tokenizer.decode(suffix)[:1] in ("", "\n")
            checked += 1
    assert checked > 50


def test_fim_permutes_about_its_share_of_the_pieces(make):
    loader = make(fim_rate=0.3)
    pieces = [p for e, row, _ in islice(loader._rows(Cursor(), 64), 300) if e < 3 for p in row]
    assert 0.2 < np.mean([p.fim for p in pieces]) < 0.4


def test_keep_thins_the_documents_it_matches(make):
    keep = [Keep(path=r"toy/p/\d\.py$", probability=0.0)]
    kept = make(keep=keep)._documents(0)
    assert set(range(10)).isdisjoint(kept)
    assert set(range(10, 60)) <= set(kept.tolist())


def test_keeping_nothing_is_one_clear_error(make):
    with pytest.raises(TrainingError, match="no documents"):
        make(keep=[Keep(path="", probability=0.0)])


def test_a_block_planned_for_rows_of_another_length_is_left(make):
    inside = Cursor(epoch=1, block=2, row=5, context=64)
    assert inside.planned_for(64) == inside
    assert inside.planned_for(32) == Cursor(epoch=1, block=3)
    assert Cursor().planned_for(32) == Cursor()
    cursor = take(make(), 3, context=32)[-1].cursor
    left = take(make(), 5, cursor=cursor)
    assert all(map(same, left, take(make(), 5, cursor=Cursor(cursor.epoch, cursor.block + 1))))


def test_documents_are_numbered_by_piece_and_padding_apart(make):
    for batch in take(make(fim_rate=0.0), 20):
        for ids, targets, numbers in zip(batch.inputs, batch.targets, batch.documents, strict=True):
            assert numbers[0] == 0
            assert set(np.diff(numbers)) <= {0, 1}
            # A whole document's end-of-text is its last token.
            ends = np.flatnonzero((ids == 0) & (targets != IGNORED))[:-1]
            assert (numbers[ends + 1] == numbers[ends] + 1).all()


def test_bytes_are_those_of_the_text_that_targets_spell(make, toy_tokenizer):
    for batch in take(make(fim_rate=0.0), 5):
        ids = batch.targets[batch.targets != IGNORED].tolist()
        text = b"".join(toy_tokenizer.token_bytes(token) for token in ids)
        assert batch.bytes == len(text)


def other_shards(tokenizer, folder):
    texts = [f"x = {'1' * n}\n" for n in range(1, 40)]
    documents = (Document(text, f"{n}.py", "other", "1", "MIT") for n, text in enumerate(texts))
    return build_token_shards(documents, tokenizer, folder / "other")


def test_a_mixture_gives_each_source_its_share_of_an_epoch(
    make, toy_shards, toy_tokenizer, tmp_path
):
    sources = [toy_shards, other_shards(toy_tokenizer, tmp_path)]
    loader = make(sources=sources, weights=[1.0, 3.0])
    shares, totals = [], []
    for epoch in range(30):
        documents = loader._documents(epoch)
        of_second = documents % len(loader.shards) >= len(toy_shards)
        tokens = loader._lengths[documents]
        shares.append(tokens[of_second].sum() / tokens.sum())
        totals.append(tokens.sum())
    assert np.mean(shares) == pytest.approx(0.75, abs=0.03)
    assert np.mean(totals) == pytest.approx(sum(part.num_tokens for part in sources), rel=0.05)


def test_a_mixture_finds_every_document(toy_shards, toy_tokenizer, tmp_path):
    other = other_shards(toy_tokenizer, tmp_path)
    mixture = Mixture([toy_shards, other], [1.0, 1.0])
    assert np.array_equal(mixture.document(3), toy_shards.document(3))
    assert np.array_equal(mixture.document(len(toy_shards) + 2), other.document(2))
    assert len(list(mixture.documents())) == len(mixture) == len(toy_shards) + len(other)


def test_a_document_read_twice_in_an_epoch_is_cut_anew(make, toy_shards, toy_tokenizer, tmp_path):
    sources = [toy_shards, other_shards(toy_tokenizer, tmp_path)]
    loader = make(sources=sources, weights=[1.0, 9.0], fim_rate=1.0)
    number = len(toy_shards) + 30
    again = number + len(loader.shards)
    length = int(loader._lengths[number])
    first, second = (loader._piece(0, Piece(n, 0, length, True)) for n in (number, again))
    assert first != second
    text = [
        fim.unpermute(ids[:-1], toy_tokenizer.decode, toy_tokenizer.fim) for ids in (first, second)
    ]
    assert text[0] == text[1]


@given(st.lists(st.integers()), st.integers(1, 4))
def test_prefetch_changes_nothing(items, ahead):
    assert list(prefetch(iter(items), ahead)) == items


def test_prefetch_passes_on_what_its_source_raises():
    def source():
        yield 1
        raise ValueError("no more")

    items = prefetch(source())
    assert next(items) == 1
    with pytest.raises(ValueError, match="no more"):
        next(items)


def test_a_large_package_gives_an_epoch_about_its_limit(make, toy_shards):
    limit = int(toy_shards.lengths.sum()) // 4
    loader = make(package_tokens=limit)
    taken = [int(toy_shards.lengths[loader._documents(epoch)].sum()) for epoch in range(40)]
    assert 0.8 * limit < np.mean(taken) < 1.2 * limit
    assert len({tuple(loader._documents(epoch)) for epoch in range(4)}) == 4
    assert make(package_tokens=10**9)._documents(0).size == len(toy_shards)
