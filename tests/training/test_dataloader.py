from dataclasses import replace
from itertools import islice

import numpy as np
import pytest

from tinystarcoder import fim
from tinystarcoder.errors import TrainingError
from tinystarcoder.training.dataloader import Cursor, Dataloader
from tinystarcoder.training.loss import IGNORED
from tinystarcoder.training.recipe import DataRecipe, Keep

RECIPE = DataRecipe(train="", tokenizer="", fim_rate=0.5)


@pytest.fixture
def make(toy_shards, toy_tokenizer):
    def make(seed=0, **changes):
        return Dataloader(toy_shards, toy_tokenizer, replace(RECIPE, **changes), seed)

    return make


def take(loader, count, context=64, rows=3):
    return list(islice(loader.batches(context, rows), count))


def test_targets_are_the_inputs_shifted_by_one(make):
    for inputs, targets in take(make(), 20):
        assert inputs.shape == targets.shape == (3, 64)
        real = targets[:, :-1] != IGNORED
        assert (inputs[:, 1:] == targets[:, :-1])[real].all()


def test_the_same_seed_gives_the_same_batches(make):
    first, second, other = take(make(), 9), take(make(), 9), take(make(seed=1), 9)
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_a_cursor_goes_on_exactly_where_it_was_taken(make):
    through = take(make(), 40)
    for stop in (1, 7, 23):
        broken = make()
        take(broken, stop)
        resumed = make()
        resumed.cursor = broken.cursor
        rest = take(resumed, 40 - stop)
        assert all(np.array_equal(a, b) for a, b in zip(through[stop:], rest, strict=True))
    assert make().cursor == Cursor()


def test_epochs_follow_one_another_in_another_order(make):
    loader = make()
    while loader.cursor.epoch < 2:
        take(loader, 1)
    first = [(e, tuple(r)) for e, r, _ in islice(make()._rows(64), 5)]
    assert loader.cursor.epoch == 2
    second = make()
    second.cursor = Cursor(epoch=1)
    assert [r for _, r in first] != [tuple(r) for _, r, _ in islice(second._rows(64), 5)]


def test_without_fim_an_epoch_is_every_token_once(make, toy_shards):
    loader = make(fim_rate=0.0)
    ids = []
    for epoch, row, _ in loader._rows(64):
        if epoch:
            break
        ids += loader.row(epoch, row)
    wanted = np.concatenate([toy_shards.document(i) for i in range(len(toy_shards))])
    assert sorted(ids) == sorted(wanted.tolist())


def test_permuted_pieces_hold_their_text_and_end(make, toy_tokenizer, toy_shards):
    loader = make(fim_rate=1.0, spm_rate=0.5)
    tokens, end = toy_tokenizer.fim, toy_tokenizer.eos_id
    orders, checked = set(), 0
    for epoch, row, _ in islice(loader._rows(64), 60):
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


def test_fim_permutes_about_its_share_of_the_pieces(make):
    loader = make(fim_rate=0.3)
    pieces = [p for e, row, _ in islice(loader._rows(64), 300) if e < 3 for p in row]
    assert 0.2 < np.mean([p.fim for p in pieces]) < 0.4


def test_keep_thins_the_documents_it_matches(make):
    keep = [Keep(path=r"toy/p/\d\.py$", probability=0.0)]
    kept = make(keep=keep)._documents(0)
    assert set(range(10)).isdisjoint(kept)
    assert set(range(10, 60)) <= set(kept.tolist())


def test_keeping_nothing_is_one_clear_error(make):
    with pytest.raises(TrainingError, match="no documents"):
        make(keep=[Keep(path="", probability=0.0)])


def test_skip_block_moves_on_only_from_inside_a_block(make):
    loader = make()
    loader.skip_block()
    assert loader.cursor == Cursor()
    take(loader, 1)
    loader.skip_block()
    assert loader.cursor == Cursor(epoch=0, block=1, row=0)
    assert take(loader, 1)


def test_a_large_package_gives_an_epoch_about_its_limit(make, toy_shards):
    limit = int(toy_shards.lengths.sum()) // 4
    loader = make(package_tokens=limit)
    taken = [int(toy_shards.lengths[loader._documents(epoch)].sum()) for epoch in range(40)]
    assert 0.8 * limit < np.mean(taken) < 1.2 * limit
    assert len({tuple(loader._documents(epoch)) for epoch in range(4)}) == 4
    assert make(package_tokens=10**9)._documents(0).size == len(toy_shards)
