from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinystarcoder import fim
from tinystarcoder.corpus.document import CONTROL, Document
from tinystarcoder.corpus.token_shards import build_token_shards
from tinystarcoder.errors import TrainingError
from tinystarcoder.tokenizer import Tokenizer
from tinystarcoder.training.dataloader import Cursor, Dataloader, Mixture
from tinystarcoder.training.loss import IGNORED
from tinystarcoder.training.metadata import Prefixes, bucket
from tinystarcoder.training.packing import Piece
from tinystarcoder.training.recipe import DataRecipe

ORIGINS = [
    {"package": "ann/alpha", "path": "src/a.py", "stars": 7},
    {"package": "beta", "path": "b.py"},
    {"package": "<reponame>", "path": "<gh_stars>.py", "stars": 0},
]


@pytest.mark.parametrize(
    ("stars", "name"),
    [(0, "0"), (1, "1-10"), (10, "1-10"), (11, "10-100"), (1000, "100-1000"), (1001, "1000+")],
)
def test_buckets(stars, name):
    assert bucket(stars) == name


def test_all_parts_and_none(toy_tokenizer):
    whole, none = (Prefixes(ORIGINS, toy_tokenizer, rate, 0) for rate in (1.0, 0.0))
    spelled = [toy_tokenizer.decode(whole.ids(0, n)) for n in range(3)]
    assert spelled == [
        "<reponame>ann/alpha<filename>src/a.py<gh_stars>1-10\n",
        "<reponame>beta<filename>b.py\n",
        "<reponame><reponame><filename><gh_stars>.py<gh_stars>0\n",
    ]
    assert [none.ids(0, n) for n in range(3)] == [[], [], []]
    # A name that spells a token is text: three control tokens, whatever is in the names.
    controls = [toy_tokenizer.token_id(t) for t in ("<reponame>", "<filename>", "<gh_stars>")]
    assert [i for i in whole.ids(0, 2) if i in toy_tokenizer.special_ids] == controls


def test_each_part_has_its_own_draw_at_the_rate(toy_tokenizer):
    prefixes = Prefixes(ORIGINS[:1] * 4000, toy_tokenizer, 0.2, 0)
    tokens = [toy_tokenizer.token_id(t) for t in ("<reponame>", "<filename>", "<gh_stars>")]
    seen = np.array([[t in prefixes.ids(0, n) for t in tokens] for n in range(4000)])
    assert np.allclose(seen.mean(axis=0), 0.2, atol=0.03)
    assert np.isclose(seen.all(axis=1).mean(), 0.008, atol=0.006)


@given(st.integers(0, 3), st.integers(0, 3), st.integers(1, 2))
def test_lengths_are_those_of_the_ids(toy_tokenizer, seed, epoch, copies):
    prefixes = Prefixes(ORIGINS * 5, toy_tokenizer, 0.5, seed, copies)
    lengths = prefixes.lengths(epoch)
    assert len(lengths) == 15 * copies
    assert [len(prefixes.ids(epoch, n)) for n in range(15 * copies)] == lengths.tolist()
    again = Prefixes(ORIGINS * 5, toy_tokenizer, 0.5, seed, copies)
    assert [again.ids(epoch, n) for n in range(15)] == [prefixes.ids(epoch, n) for n in range(15)]


def test_a_vocabulary_without_the_tokens():
    tokenizer = Tokenizer.train(["x"], 300)
    tokenizer.token_id = lambda token: None
    with pytest.raises(TrainingError, match="the tokenizer lacks"):
        Prefixes(ORIGINS, tokenizer, 0.2, 0)


class TestInTheDataloader:
    @pytest.fixture
    def shards(self, toy_tokenizer, tmp_path):
        documents = [
            Document(f"def f{n}():\n    return {n}\n" * (1 + n % 7), f"m{n}.py", f"p{n % 3}",
                     "1", "MIT", stars=n, quality=(n % 2) * 0.9 + 0.05)
            for n in range(40)
        ]  # fmt: skip
        return build_token_shards(documents, toy_tokenizer, tmp_path / "tokens")

    def loader(self, shards, tokenizer, **changes):
        recipe = replace(DataRecipe(train="", tokenizer="", fim_rate=0.0), **changes)
        return Dataloader(Mixture([shards], [1.0]), tokenizer, recipe, 0)

    def test_every_token_of_every_document_and_prefix_once(self, shards, toy_tokenizer):
        loader = self.loader(shards, toy_tokenizer, metadata_rate=0.5)
        rows = islice(loader._rows(Cursor(), 64), 10_000)
        seen: dict[int, int] = {}
        expected = loader._prefixes.lengths(0) + shards.lengths
        for epoch, row, _ in rows:
            if epoch:
                break
            for piece, ids in zip(row, loader.row(epoch, row), strict=True):
                whole = loader._prefixes.ids(0, piece.document) + list(
                    shards.document(piece.document)
                )
                assert ids == whole[piece.start : piece.stop]
                seen[piece.document] = seen.get(piece.document, 0) + len(ids)
        assert [seen[n] for n in range(40)] == expected.tolist()

    @pytest.mark.parametrize("spm_rate", [0.0, 1.0])
    def test_the_prefix_stands_where_the_permuted_file_begins(
        self, shards, toy_tokenizer, spm_rate
    ):
        loader = self.loader(
            shards, toy_tokenizer, metadata_rate=1.0, fim_rate=1.0, spm_rate=spm_rate
        )
        tokens = toy_tokenizer.fim
        for n in range(40):
            before = loader._prefixes.ids(0, n)
            size = len(before) + int(shards.lengths[n])
            ids = loader._piece(0, Piece(n, 0, size, True))
            begin = 1 if spm_rate == 0 else ids.index(tokens.middle) + 1
            assert ids[0] == tokens.prefix
            assert ids[begin : begin + len(before)] == before
            rest = ids[:begin] + ids[begin + len(before) : -1]
            text = toy_tokenizer.decode(shards.document(n)[:-1].tolist())
            assert fim.unpermute(rest, toy_tokenizer.decode, tokens) == text

    def test_without_prefixes_nothing_changes(self, shards, toy_tokenizer):
        def inputs(**changes):
            loader = self.loader(shards, toy_tokenizer, fim_rate=0.5, **changes)
            return [batch.inputs for batch in islice(loader.batches(Cursor(), 64, 3), 5)]

        plain, off, on = inputs(), inputs(metadata_rate=0.0), inputs(metadata_rate=0.9)
        assert all(map(np.array_equal, plain, off))
        assert not all(map(np.array_equal, plain, on))

    def test_notebooks_keep_their_tokens(self, toy_tokenizer, tmp_path):
        text = f"{CONTROL}<jupyter_start>{CONTROL}<jupyter_code>x = 1\nprint(x)\n"
        documents = [Document(text, "n.ipynb", "p", "1", "MIT")] * 4
        shards = build_token_shards(documents, toy_tokenizer, tmp_path / "notebooks")
        loader = self.loader(shards, toy_tokenizer, fim_rate=1.0)
        for batch in islice(loader.batches(Cursor(), 64, 1), 2):
            code = toy_tokenizer.token_id("<jupyter_code>")
            real = batch.inputs[batch.targets != IGNORED]
            assert (real == code).sum() == (batch.inputs == code).sum() > 0
            assert toy_tokenizer.fim.prefix not in batch.inputs

    def test_quality_weighs_documents(self, shards, toy_tokenizer):
        good = [n for n in range(40) if n % 2]
        plain = self.loader(shards, toy_tokenizer)
        weighed = self.loader(shards, toy_tokenizer, quality_power=4.0)
        assert len(plain._documents(0)) == 40
        kept = weighed._documents(0)
        assert set(kept) <= set(good)
        assert len(kept) > 10
