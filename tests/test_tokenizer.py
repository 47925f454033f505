"""The tokenizer: golden ids, any text back, special tokens, and transformers' reading."""

import json
import re
import shutil
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from tinystarcoder.errors import TokenizerError
from tinystarcoder.tokenizer import SPECIAL_TOKENS, LineEncoder, Tokenizer

HELLO = [589, 1459, 81, 7656, 81, 5860, 2262]

# Characters whose first byte is F1: the one kind that StarCoder's vocabulary cannot spell.
UNSPELLABLE = re.compile("[\U00040000-\U0007ffff]")


@pytest.fixture(scope="session")
def starcoder(shared_data: Path) -> Tokenizer:
    return Tokenizer.from_folder(shared_data / "starcoder_tokenizer")


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory, starcoder: Tokenizer) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    starcoder.save(folder)
    return folder


@pytest.fixture(scope="session")
def automatic(saved: Path) -> PreTrainedTokenizerBase:
    """What transformers makes of a folder that was saved here."""
    return AutoTokenizer.from_pretrained(saved)


class TestStarCoder:
    def test_golden_strings(self, starcoder: Tokenizer, shared_data: Path) -> None:
        """47 strings, the empty one after the last divider too, and the published ids."""
        folder = shared_data / "starcoder_tokenizer"
        inputs = (folder / "golden.inp").read_bytes().decode().split("\n__ggml_vocab_test__\n")
        outputs = (folder / "golden.out").read_text().split("\n")
        assert len(inputs) == 47
        for text, ids in zip(inputs, outputs, strict=True):
            assert starcoder.encode(text) == [int(i) for i in ids.split()], repr(text)
            assert starcoder.decode(starcoder.encode(text)) == text

    def test_a_known_prompt(self, starcoder: Tokenizer) -> None:
        assert starcoder.encode("def print_hello_world():") == HELLO

    def test_vocabulary(self, starcoder: Tokenizer) -> None:
        assert starcoder.vocab_size == 49152
        assert [starcoder.token_id(token) for token in SPECIAL_TOKENS] == list(range(19))
        assert starcoder.special_ids == frozenset(range(19))
        assert starcoder.eos_id == 0

    @given(text=st.text())
    def test_decode_is_the_inverse(self, starcoder: Tokenizer, text: str) -> None:
        assert starcoder.decode(starcoder.encode(text)) == UNSPELLABLE.sub("\ufffd", text)

    @given(character=st.integers(0, 0x10FFFF).map(chr))
    def test_every_character_is_spelled_or_replaced(
        self, starcoder: Tokenizer, character: str
    ) -> None:
        expected = UNSPELLABLE.sub("\ufffd", re.sub("[\ud800-\udfff]", "\ufffd", character))
        assert starcoder.decode(starcoder.encode(character)) == expected

    @pytest.mark.parametrize(
        ("text", "shown"),
        [
            ("\U00040000", "\ufffd"),
            ("\U0007ffff", "\ufffd"),
            ("\U0003ffff", "\U0003ffff"),
            ("\U00080000", "\U00080000"),
            ("\U0010ffff", "\U0010ffff"),
            ("a\ud800b", "a\ufffdb"),
            # Bytes C0, C1, F1 and F5 to FF, as a file with errors gives them.
            (b"a\xc0\xc1\xf1\xf5\xff!".decode(errors="surrogateescape"), "a" + "\ufffd" * 5 + "!"),
        ],
    )
    def test_what_cannot_be_spelled(self, starcoder: Tokenizer, text: str, shown: str) -> None:
        assert starcoder.decode(starcoder.encode(text)) == shown
        assert starcoder.decode(starcoder.encode_batch([text])[0]) == shown

    @pytest.mark.parametrize(
        "text", ["x = 12345", "a1b22 333", "\uff11\u0662 ½", "print('hi')\n\n\t x"]
    )
    def test_transformers_gives_the_same_ids(
        self, starcoder: Tokenizer, automatic: PreTrainedTokenizerBase, text: str
    ) -> None:
        assert automatic.encode(text) == starcoder.encode(text)
        assert automatic.decode(starcoder.encode(text)) == text

    def test_digits_stand_alone(self, starcoder: Tokenizer) -> None:
        pieces = [starcoder.decode([i]) for i in starcoder.encode("x = 12345")]
        assert pieces == ["x", " =", " ", "1", "2", "3", "4", "5"]

    @given(text=st.text() | st.sampled_from(SPECIAL_TOKENS).map(lambda token: f"a{token} b"))
    def test_transformers_gives_the_same_ids_for_any_raw_text(
        self, starcoder: Tokenizer, automatic: PreTrainedTokenizerBase, text: str
    ) -> None:
        text = UNSPELLABLE.sub("", text)
        assert automatic.encode(text) == starcoder.encode(text, special=True)

    def test_a_saved_folder_is_the_same_tokenizer(self, starcoder: Tokenizer, saved: Path) -> None:
        again = Tokenizer.from_folder(saved)
        text = "".join(SPECIAL_TOKENS) + "\tx = 12345 # 世界 🙂\r\n"
        assert again.encode(text) == starcoder.encode(text)
        assert again.encode(text, special=True) == starcoder.encode(text, special=True)
        assert again.vocab_size == starcoder.vocab_size
        assert again.special_ids == starcoder.special_ids

    def test_transformers_knows_the_end_of_text(self, automatic: PreTrainedTokenizerBase) -> None:
        assert automatic.eos_token_id == 0
        assert len(automatic) == 49152


class TestSpecialTokens:
    @given(token=st.sampled_from(SPECIAL_TOKENS), around=st.text(max_size=3))
    def test_are_parsed_only_on_demand(self, tokenizer: Tokenizer, token: str, around: str) -> None:
        text = f"{around}{token}{around}"
        for plain in (tokenizer.encode(text), *tokenizer.encode_batch([text])):
            assert not tokenizer.special_ids.intersection(plain)
            assert tokenizer.decode(plain) == text
        parsed = tokenizer.encode(text, special=True)
        special = tokenizer.special_ids.intersection(parsed)
        assert special == {tokenizer.token_id(token)}
        assert tokenizer.decode(parsed, skip_special=True) == around + around

    def test_have_no_bytes(self, tokenizer: Tokenizer) -> None:
        assert {tokenizer.token_bytes(i) for i in tokenizer.special_ids} == {b""}


# What lines are made of, and what could join them: blanks of all kinds, and quotes before letters.
LINES = st.text("\n\n\n  \t\r\x1c\x85\xa0\u2028a'st1+é世", max_size=30)


# What stands on either side of a place where a long line may be parted, or not.
SEAMS = [*"aZ09+_.' \t\r\"", "'s", "'re", "  ", "é", "e\u0301", "世", "²", "\x1c", "\u2028"]


class TestLineEncoder:
    @given(texts=st.lists(st.text() | LINES, max_size=4))
    def test_the_same_ids_each_time(self, tokenizer: Tokenizer, texts: list[str]) -> None:
        encode = LineEncoder(tokenizer)
        for text in [*texts, "".join(texts), *texts]:
            assert encode(text) == tokenizer.encode(text)

    @given(text=LINES)
    def test_in_starcoders_own_vocabulary(self, starcoder: Tokenizer, text: str) -> None:
        assert LineEncoder(starcoder)(text) == starcoder.encode(text)

    def test_a_key_encodes_its_line(
        self, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        read, encode = [], tokenizer.encode
        monkeypatch.setattr(tokenizer, "encode", lambda text: read.append(text) or encode(text))
        remembering = LineEncoder(tokenizer)
        assert tokenizer.parts_at_lines
        remembering("def f(x):\n\n    return x\n" * 3 + "y = ")
        read.clear()
        remembering("def f(x):\n\n    return x\n" * 3 + "y = 1")
        remembering("z" * 10_000)
        remembering("z" * 10_000)
        assert read == ["\ny = 1", "z" * 10_000]

    @given(words=st.lists(st.sampled_from(SEAMS), min_size=200, max_size=600))
    def test_a_long_line_has_the_same_ids(self, tokenizer: Tokenizer, words: list[str]) -> None:
        text = "".join(words)
        assert LineEncoder(tokenizer)(text) == tokenizer.encode(text)

    def test_a_key_encodes_the_end_of_a_long_line(
        self, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        read, encode, line = [], tokenizer.encode, "".join(f"{n}, " for n in range(10_000))
        monkeypatch.setattr(tokenizer, "encode", lambda text: read.append(text) or encode(text))
        remembering = LineEncoder(tokenizer)
        remembering(line)
        read.clear()
        remembering(line + "1")
        assert sum(map(len, read)) < 500

    def test_a_vocabulary_that_splits_otherwise(self, tokenizer: Tokenizer) -> None:
        backend = tokenizers.Tokenizer.from_str(tokenizer.to_json())
        backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(use_regex=False)
        other = Tokenizer(backend)
        assert not other.parts_at_lines
        text = "x\n    y\n" * 3
        assert LineEncoder(other)(text) == other.encode(text)


class TestIncrementalDecoding:
    @given(text=st.text())
    def test_is_decode(self, tokenizer: Tokenizer, text: str) -> None:
        stream = tokenizer.stream()
        pieces = [stream.feed(token_id) for token_id in tokenizer.encode(text)]
        assert "".join(pieces) + stream.flush() == text

    @given(text=st.text("é世🙂a", min_size=1))
    def test_never_emits_half_a_character(self, tokenizer: Tokenizer, text: str) -> None:
        stream = tokenizer.stream()
        shown = ""
        for token_id in tokenizer.encode(text):
            shown += stream.feed(token_id)
            assert text.startswith(shown)

    @given(ids=st.lists(st.integers(19, 399)))
    def test_any_ids_at_all(self, tokenizer: Tokenizer, ids: list[int]) -> None:
        """Where the bytes are no UTF-8, both show U+FFFD in their place."""
        stream = tokenizer.stream()
        text = "".join(map(stream.feed, ids)) + stream.flush()
        assert text == tokenizer.decode(ids)
        assert text == b"".join(map(tokenizer.token_bytes, ids)).decode(errors="replace")

    def test_special_tokens_are_skipped(self, tokenizer: Tokenizer) -> None:
        ids = tokenizer.encode("a<|endoftext|>b<fim_pad>", special=True)
        stream = tokenizer.stream()
        assert "".join(map(stream.feed, ids)) == "ab"

    def test_flush_tells_of_half_a_character(self, tokenizer: Tokenizer) -> None:
        ids = tokenizer.encode("𝄞")
        assert len(ids) == 4
        stream = tokenizer.stream()
        assert [stream.feed(i) for i in ids[:2]] == ["", ""]
        assert stream.flush() == "\ufffd"


class TestTraining:
    def test_keeps_the_special_ids(self, tokenizer: Tokenizer) -> None:
        assert [tokenizer.token_id(token) for token in SPECIAL_TOKENS] == list(range(19))
        assert tokenizer.vocab_size == 400
        assert tokenizer.fim is not None
        assert tokenizer.fim.prefix == 1

    @given(text=st.text())
    def test_spells_any_text(self, tokenizer: Tokenizer, text: str) -> None:
        assert tokenizer.decode(tokenizer.encode(text)) == text
        assert tokenizer.encode_batch([text, text]) == [tokenizer.encode(text)] * 2

    def test_special_tokens_in_the_texts_are_text(self) -> None:
        trained = Tokenizer.train(["<fim_pad> and <|endoftext|>"] * 50, 300)
        assert [trained.token_id(token) for token in SPECIAL_TOKENS] == list(range(19))
        assert not trained.special_ids & set(trained.encode("<fim_pad>"))

    def test_transformers_reads_it(self, tokenizer: Tokenizer, tmp_path: Path) -> None:
        tokenizer.save(tmp_path)
        automatic = AutoTokenizer.from_pretrained(tmp_path)
        for text in ("x = 12345", "def print_hello_world():\n    print('世界 🙂')"):
            assert automatic.encode(text) == tokenizer.encode(text)
            assert automatic.decode(tokenizer.encode(text)) == text

    def test_a_vocabulary_without_room_for_all_bytes(self) -> None:
        with pytest.raises(TokenizerError, match="vocab_size 274 has no room"):
            Tokenizer.train(["text"], 274)
        assert Tokenizer.train(["text"], 275).vocab_size == 275

    def test_a_vocabulary_beyond_what_token_shards_hold(self) -> None:
        with pytest.raises(TokenizerError, match="vocab_size 1000000000: at most 65536"):
            Tokenizer.train(["text"], 1_000_000_000)


class TestBrokenFiles:
    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("tokenizer.json", ""),
            ("tokenizer.json", "{"),
            ("tokenizer.json", "{}"),
            ("tokenizer.json", '{"version": "1.0", "model": {"type": "Magic"}}'),
            ("vocab.json", "{"),
            ("vocab.json", '{"a": "b"}'),
        ],
    )
    def test_nonsense(self, tmp_path: Path, name: str, text: str) -> None:
        (tmp_path / name).write_text(text)
        (tmp_path / "merges.txt").write_text("#version: 0.2\n")
        with pytest.raises(TokenizerError, match=re.escape(str(tmp_path / name))) as caught:
            Tokenizer.from_folder(tmp_path)
        assert "\n" not in str(caught.value)

    def test_bytes_that_are_no_text(self, tmp_path: Path) -> None:
        (tmp_path / "tokenizer.json").write_bytes(b"\xff\xfe\x00")
        with pytest.raises(TokenizerError, match=r"tokenizer\.json: cannot be read"):
            Tokenizer.from_folder(tmp_path)

    def test_truncated(self, tmp_path: Path, tokenizer: Tokenizer) -> None:
        tokenizer.save(tmp_path)
        path = tmp_path / "tokenizer.json"
        path.write_bytes(path.read_bytes()[:-100])
        with pytest.raises(TokenizerError, match=r"tokenizer\.json: cannot be read"):
            Tokenizer.from_folder(tmp_path)

    def test_missing_merges(self, tmp_path: Path) -> None:
        (tmp_path / "vocab.json").write_text('{"<|endoftext|>": 0}')
        with pytest.raises(TokenizerError, match="cannot be read as a tokenizer"):
            Tokenizer.from_folder(tmp_path)

    def test_merges_of_another_vocabulary(self, tmp_path: Path) -> None:
        (tmp_path / "vocab.json").write_text('{"<|endoftext|>": 0, "a": 1}')
        (tmp_path / "merges.txt").write_text("#version: 0.2\nx y\n")
        with pytest.raises(TokenizerError, match="cannot be read as a tokenizer"):
            Tokenizer.from_folder(tmp_path)

    def test_nothing_there(self, tmp_path: Path) -> None:
        with pytest.raises(TokenizerError, match=r"no tokenizer here; expected tokenizer\.json"):
            Tokenizer.from_folder(tmp_path)

    def test_no_end_of_text(self, tmp_path: Path) -> None:
        (tmp_path / "vocab.json").write_text('{"a": 0}')
        (tmp_path / "merges.txt").write_text("#version: 0.2\n")
        with pytest.raises(TokenizerError, match=r"vocab\.json: .*no <\|endoftext\|> token"):
            Tokenizer.from_folder(tmp_path)

    def test_a_broken_tokenizer_json_is_not_passed_over(
        self, tmp_path: Path, shared_data: Path
    ) -> None:
        """With sound vocab.json and merges.txt beside it, it still is an error."""
        for name in ("vocab.json", "merges.txt"):
            shutil.copy(shared_data / "starcoder_tokenizer" / name, tmp_path)
        (tmp_path / "tokenizer.json").write_text("{")
        with pytest.raises(TokenizerError, match=r"tokenizer\.json"):
            Tokenizer.from_folder(tmp_path)


def test_the_saved_config_names_the_class_that_reads_just_the_file(saved: Path) -> None:
    """As GPT2Tokenizer, some transformers versions drop the digits step."""
    config = json.loads((saved / "tokenizer_config.json").read_text())
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"
