import pytest

from tinystarcoder.corpus import parquet, token_shards, tokenizing
from tinystarcoder.corpus.docstrings import with_short_docstrings
from tinystarcoder.corpus.parquet import read_documents
from tinystarcoder.corpus.pipeline import build_corpus
from tinystarcoder.corpus.token_shards import TokenShards, build_token_shards
from tinystarcoder.corpus.tokenizing import tokenize_corpus
from tinystarcoder.errors import CorpusError, TokenizerError
from tinystarcoder.tokenizer import Tokenizer

from .conftest import module


@pytest.fixture
def corpus(make_wheel, tmp_path, monkeypatch):
    """A corpus of several shards."""
    monkeypatch.setattr(parquet, "SHARD_BYTES", 3000)
    wheel = make_wheel(files={f"m{n}.py": module(n) for n in range(9)})
    build_corpus([wheel], tmp_path / "corpus")
    return tmp_path / "corpus"


@pytest.fixture
def vocabulary(tmp_path):
    Tokenizer.train([module(n) for n in range(4)], vocab_size=320).save(tmp_path / "vocabulary")
    return tmp_path / "vocabulary"


def content(shards: TokenShards) -> list[list[int]]:
    return [shards.document(index).tolist() for index in range(len(shards))]


def test_a_token_shard_for_each_of_the_corpus(corpus, vocabulary, tmp_path):
    seen = []
    shards = tokenize_corpus(
        corpus, vocabulary, tmp_path / "tokens", progress=lambda *done: seen.append(done)
    )
    whole = build_token_shards(
        read_documents(corpus), Tokenizer.from_folder(vocabulary), tmp_path / "whole"
    )
    assert content(shards) == content(whole)
    assert list(shards.documents()) == list(whole.documents())
    assert shards.byte_lengths.tolist() == whole.byte_lengths.tolist()
    count = len(list(corpus.glob("*.parquet")))
    assert count > 2
    assert len(list(shards.folder.glob("*.bin"))) == count
    assert seen[0] == ("tokenizing", 0, count)
    assert ("tokenizing", count, count) in seen
    shards.verify()
    assert not (tmp_path / "tokens.partial").exists()


def test_any_number_of_workers_makes_the_same_bytes(corpus, vocabulary, tmp_path):
    folders = [
        tokenize_corpus(corpus, vocabulary, tmp_path / f"{jobs}", jobs=jobs).folder
        for jobs in (1, 3)
    ]
    one, other = ({path.name: path.read_bytes() for path in f.iterdir()} for f in folders)
    assert one == other


def test_docstrings_are_cut_where_they_are_tokenized(make_wheel, vocabulary, tmp_path):
    docstring = '"""Sums.\n\nAnd more.\n"""\n\n'
    wheel = make_wheel(files={f"m{n}.py": docstring + module(n) for n in range(9)})
    build_corpus([wheel], tmp_path / "corpus")
    documents = list(read_documents(tmp_path / "corpus"))

    def texts(jobs):
        shards = tokenize_corpus(
            tmp_path / "corpus", vocabulary, tmp_path / f"{jobs}", short_docstrings=0.5, jobs=jobs
        )
        return [Tokenizer.from_folder(vocabulary).decode(ids[:-1]) for ids in content(shards)]

    cut = texts(1)
    assert 0 < sum("more" in text for text in cut) < len(documents)
    assert cut == texts(2)
    assert cut == [with_short_docstrings(d.text, 0.5, f"{d.package}/{d.path}") for d in documents]


def test_a_stopped_tokenization_goes_on(corpus, vocabulary, tmp_path, monkeypatch):
    whole = tokenize_corpus(corpus, vocabulary, tmp_path / "whole")
    write_piece, made = token_shards.write_piece, []

    def stopping(at):
        def counted(batches, encode, folder, number):
            if len(made) == at:
                (folder / "tokens" / ".tokens-00002.bin.x.tmp").write_bytes(b"half")
                raise KeyboardInterrupt
            made.append(number)
            return write_piece(batches, encode, folder, number)

        return counted

    monkeypatch.setattr(tokenizing, "write_piece", stopping(at=2))
    with pytest.raises(KeyboardInterrupt):
        tokenize_corpus(corpus, vocabulary, tmp_path / "tokens")
    assert not (tmp_path / "tokens").exists()
    monkeypatch.setattr(tokenizing, "write_piece", stopping(at=None))
    shards = tokenize_corpus(corpus, vocabulary, tmp_path / "tokens")
    assert made == list(range(len(list(corpus.glob("*.parquet")))))
    assert shards.fingerprint == whole.fingerprint


class TestBadInput:
    def test_no_corpus(self, vocabulary, tmp_path):
        with pytest.raises(CorpusError, match="no readable manifest"):
            tokenize_corpus(tmp_path, vocabulary, tmp_path / "tokens")

    def test_no_tokenizer(self, corpus, tmp_path):
        with pytest.raises(TokenizerError, match="no tokenizer here"):
            tokenize_corpus(corpus, tmp_path, tmp_path / "tokens")

    def test_an_existing_output(self, corpus, vocabulary, tmp_path):
        (tmp_path / "tokens").mkdir()
        with pytest.raises(CorpusError, match="tokens: exists"):
            tokenize_corpus(corpus, vocabulary, tmp_path / "tokens")

    def test_a_damaged_shard_of_the_corpus(self, corpus, vocabulary, tmp_path):
        (corpus / "documents-00001.parquet").write_bytes(b"PAR1")
        with pytest.raises(CorpusError, match=r"documents-00001\.parquet: cannot be read"):
            tokenize_corpus(corpus, vocabulary, tmp_path / "tokens")
        assert not (tmp_path / "tokens").exists()
