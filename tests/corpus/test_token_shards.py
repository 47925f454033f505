import errno
import json
from unittest.mock import Mock

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tinystarcoder.corpus import bulk_encoding, token_shards
from tinystarcoder.corpus import document as document_
from tinystarcoder.corpus.document import CONTROL, Document
from tinystarcoder.corpus.token_shards import TokenShards, build_token_shards
from tinystarcoder.errors import CorpusError
from tinystarcoder.tokenizer import Tokenizer

from .conftest import module

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=80)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train([module(n) for n in range(4)], vocab_size=320)


def documents(texts: list[str]) -> list[Document]:
    return [Document(text, f"m{n}.py", "pkg", "1.0", "MIT") for n, text in enumerate(texts)]


@pytest.fixture
def folder(tokenizer, tmp_path):
    build_token_shards(documents([module(n) for n in range(3)]), tokenizer, tmp_path / "tokens")
    return tmp_path / "tokens"


@given(st.lists(TEXT, min_size=1, max_size=12), st.integers(1, 200))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=12)
def test_every_document_comes_back(tokenizer, tmp_path_factory, texts, shard_tokens):
    texts[0] += "<|endoftext|>"  # Spelled in a text, it is text.
    output = tmp_path_factory.mktemp("tokens") / "tokens"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(document_, "BATCH", 3)
        shards = build_token_shards(documents(texts), tokenizer, output, shard_tokens=shard_tokens)
    assert len(shards) == len(texts)
    for index, text in enumerate(texts):
        ids = shards.document(index)
        assert ids.dtype == np.uint16
        assert ids[-1] == tokenizer.eos_id
        assert tokenizer.eos_id not in ids[:-1]
        assert tokenizer.decode(ids[:-1].tolist()) == text
        assert shards.lengths[index] == len(ids)
        assert shards.byte_lengths[index] == len(text.encode())
    assert shards.num_tokens == shards.lengths.sum()
    assert shards.num_bytes == sum(len(text.encode()) for text in texts)
    assert [facts["path"] for facts in shards.documents()] == [
        f"m{n}.py" for n in range(len(texts))
    ]


def test_what_the_index_says(folder, tokenizer):
    shards = TokenShards.open(folder)
    assert (shards.vocab_size, shards.eos_id) == (tokenizer.vocab_size, tokenizer.eos_id)
    assert next(shards.documents()) == {"path": "m0.py", "package": "pkg", "license": "MIT"}
    # The vocabulary that made the tokens lies beside them.
    assert Tokenizer.from_folder(folder).encode(module(9)) == tokenizer.encode(module(9))
    assert sorted(path.name for path in folder.parent.iterdir()) == ["tokens"]
    shards.verify()


def test_the_fingerprint_is_the_content_s(folder, tokenizer, tmp_path):
    texts = [module(n) for n in range(3)]
    same = build_token_shards(documents(texts), tokenizer, tmp_path / "same")
    other = build_token_shards(documents([*texts[:2], texts[0]]), tokenizer, tmp_path / "other")
    fewer_ids = Tokenizer.train(texts, vocab_size=300)
    recoded = build_token_shards(documents(texts), fewer_ids, tmp_path / "recoded")
    fingerprint = TokenShards.open(folder).fingerprint
    assert same.fingerprint == fingerprint
    assert len({fingerprint, other.fingerprint, recoded.fingerprint}) == 3


def test_tokens_are_little_endian_on_any_machine(folder):
    shards = TokenShards.open(folder)
    data = (folder / "tokens-00000.bin").read_bytes()
    assert data[:2] == int(shards.document(0)[0]).to_bytes(2, "little")


@pytest.mark.parametrize(
    "name", ["tokens-00000.bin", "ends.npy", "bytes.npy", "documents.jsonl", "tokenizer.json"]
)
class TestDamage:
    def test_a_missing_file_is_named(self, folder, name):
        (folder / name).unlink()
        with pytest.raises(CorpusError, match=f"{name}: missing"):
            TokenShards.open(folder)

    def test_a_cut_file_is_named(self, folder, name):
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[:-2])
        with pytest.raises(CorpusError, match=f"{name}: {len(data) - 2} bytes instead of"):
            TokenShards.open(folder)

    def test_a_changed_byte_is_found_by_verify(self, folder, name):
        data = bytearray((folder / name).read_bytes())
        data[-1] ^= 1
        shards = TokenShards.open(folder)
        (folder / name).write_bytes(data)
        with pytest.raises(CorpusError, match=f"{name}: wrong checksum"):
            shards.verify()


def test_no_index(tmp_path):
    with pytest.raises(CorpusError, match=r"index\.json: missing"):
        TokenShards.open(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 1}', '{"format": 1, "files": 3}'])
def test_a_broken_index(folder, text):
    (folder / "index.json").write_text(text)
    with pytest.raises(CorpusError, match=r"index\.json: cannot be read"):
        TokenShards.open(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 99}, "format 99, not 1"),
        ({"documents": 2}, "ends.npy: disagrees"),
        ({"tokens": 5}, "ends.npy: disagrees"),
    ],
)
def test_an_index_that_does_not_fit(folder, change, message):
    index = json.loads((folder / "index.json").read_text())
    (folder / "index.json").write_text(json.dumps(index | change))
    with pytest.raises(CorpusError, match=message):
        TokenShards.open(folder)


def test_no_documents(tokenizer, tmp_path):
    with pytest.raises(CorpusError, match="no document"):
        build_token_shards([], tokenizer, tmp_path / "tokens")
    assert list(tmp_path.iterdir()) == []


def test_an_existing_output(tokenizer, folder):
    with pytest.raises(CorpusError, match="tokens: exists"):
        build_token_shards(documents(["x"]), tokenizer, folder)


def test_ids_that_do_not_fit_16_bits(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(token_shards, "MAX_VOCABULARY", 319)
    with pytest.raises(CorpusError, match="320 ids does not fit"):
        build_token_shards(documents(["x"]), tokenizer, tmp_path / "tokens")


def test_a_full_disk_leaves_nothing(tokenizer, tmp_path, monkeypatch):
    full = Mock(side_effect=OSError(errno.ENOSPC, "No space left on device"))
    monkeypatch.setattr(token_shards, "write_index", full)
    with pytest.raises(CorpusError, match=r"tokens: cannot be written: .*No space left"):
        build_token_shards(documents(["x"]), tokenizer, tmp_path / "tokens")
    assert list(tmp_path.iterdir()) == []


class TestBulkEncoding:
    """fastokens, where it is installed, and the tokenizers library alone."""

    @pytest.fixture(autouse=True, params=["fastokens", "tokenizers"])
    def library(self, request, monkeypatch):
        if request.param == "tokenizers":
            monkeypatch.setattr(bulk_encoding, "fastokens", None)
        else:
            pytest.importorskip("fastokens")
        return request.param

    @given(st.lists(TEXT, min_size=1, max_size=5))
    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
    def test_ids_are_the_tokenizer_s(self, tokenizer, texts):
        texts[0] += "<|endoftext|> <fim_prefix>\U00050000"
        encoded = bulk_encoding.BulkEncoder(tokenizer, check_every=1)(documents(texts))
        expected = [[*tokenizer.encode(text), tokenizer.eos_id] for text in texts]
        assert [ids.tolist() for ids in encoded] == expected

    def test_marked_tokens_become_their_ids(self, tokenizer):
        text = f"a = 1{CONTROL}<jupyter_code>b<jupyter_code>{CONTROL}<no_such>c"
        (ids,) = bulk_encoding.BulkEncoder(tokenizer)(documents([text]))
        code = tokenizer.token_id("<jupyter_code>")
        assert ids.tolist() == [
            *tokenizer.encode("a = 1"),
            code,
            *tokenizer.encode("b<jupyter_code>"),
            *tokenizer.encode("<no_such>"),
            *tokenizer.encode("c"),
            tokenizer.eos_id,
        ]
        assert tokenizer.decode(ids[:-1].tolist()) == text.replace(CONTROL, "")

    def test_a_difference_stops_the_work(self, tokenizer, library, monkeypatch, tmp_path):
        """The third document is the first to be checked that differs."""
        if library == "tokenizers":
            pytest.skip("nothing to compare with itself")
        texts = ["a", "b", "c", "d", "e"]
        encode = bulk_encoding.BulkEncoder._encode

        def wrong(self, batch):
            return [
                ids if text in "ab" else ids + 1
                for text, ids in zip(batch, encode(self, batch), strict=True)
            ]

        monkeypatch.setattr(bulk_encoding.BulkEncoder, "_encode", wrong)
        with pytest.raises(CorpusError, match=r"pkg: m2\.py: fastokens .* differ"):
            bulk_encoding.BulkEncoder(tokenizer, check_every=2)(documents(texts))
        assert len(bulk_encoding.BulkEncoder(tokenizer, check_every=8)(documents(texts))) == 5


def test_a_vocabulary_that_fastokens_cannot_read_is_encoded_all_the_same(tokenizer, monkeypatch):
    fastokens = Mock()
    fastokens.Tokenizer.from_json_str.side_effect = ValueError("unsupported")
    monkeypatch.setattr(bulk_encoding, "fastokens", fastokens)
    (ids,) = bulk_encoding.BulkEncoder(tokenizer)(documents(["x = 1"]))
    assert ids.tolist() == [*tokenizer.encode("x = 1"), tokenizer.eos_id]
