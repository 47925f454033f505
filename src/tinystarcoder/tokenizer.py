"""Text to ids and back: StarCoder's byte-level BPE, over the ``tokenizers`` library.

Every digit stands alone, then GPT-2's pattern splits, then the merges. Two
ways in: ``encode(text)`` takes text as text, so that a file that spells
``<|endoftext|>`` gets no control token; ``encode(text, special=True)`` parses
special tokens, for raw prompts alone.

What it gives up: characters that the vocabulary cannot spell (lone surrogates
always; in StarCoder's own vocabulary U+40000 to U+7FFFF, whose first byte F1
has no token) become U+FFFD instead of an error, so that one odd character in a
file never costs an editor its suggestion.
"""

import codecs
import json
import re
from collections.abc import Iterable, Sequence
from functools import cached_property, lru_cache
from pathlib import Path

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors, trainers

from .errors import TokenizerError
from .files import write_atomically
from .fim import SPELLINGS, FimTokens

END_OF_TEXT = "<|endoftext|>"

# StarCoder's special tokens; in a vocabulary trained here they are ids 0 to 18.
SPECIAL_TOKENS = (
    END_OF_TEXT,
    *("<fim_prefix>", "<fim_middle>", "<fim_suffix>", "<fim_pad>"),
    *("<filename>", "<gh_stars>", "<issue_start>", "<issue_comment>", "<issue_closed>"),
    *("<jupyter_start>", "<jupyter_text>", "<jupyter_code>", "<jupyter_output>", "<empty_output>"),
    *("<commit_before>", "<commit_msg>", "<commit_after>", "<reponame>"),
)

MAX_VOCABULARY = 1 << 16
"""What is trained here has no more: token shards hold ids of 16 bits."""

_REPLACEMENT = "\ufffd"
_REMEMBERED = 400  # Characters of the longest part that is, but for a few.
_LONG_PARTS = 16
# The end of a run of ASCII's letters or digits: there GPT-2's pattern always parts two words.
_SEAM = re.compile(r"[A-Za-z](?=[\x00-@\[-`{-\x7f])|[0-9](?=[\x00-/:-\x7f])")


def _byte_of_symbol() -> dict[str, int]:
    """GPT-2's alphabet: the printable symbol that stands for each byte, and its byte."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    table = {chr(byte): byte for byte in printable}
    table.update({chr(256 + index): byte for index, byte in enumerate(others)})
    return table


_BYTE_OF_SYMBOL = _byte_of_symbol()


class Tokenizer:
    """One vocabulary. Safe to share between threads: encoding changes no state."""

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        self._raw = backend
        # A twin that reads the spelling of a special token as plain text.
        self._text = tokenizers.Tokenizer.from_str(backend.to_str())
        self._text.encode_special_tokens = True
        added = backend.get_added_tokens_decoder()
        self.special_ids: frozenset[int] = frozenset(i for i, t in added.items() if t.special)
        self._unspellable = _unspellable(backend)
        eos = backend.token_to_id(END_OF_TEXT)
        if eos is None:
            raise TokenizerError(f"the tokenizer has no {END_OF_TEXT} token")
        self.eos_id: int = eos

    @property
    def vocab_size(self) -> int:
        """Ids in use, special and added tokens included: the smallest model that fits."""
        return max(self._raw.get_vocab(with_added_tokens=True).values()) + 1

    @property
    def fim(self) -> FimTokens | None:
        """The sentinels' ids, in whichever spelling the vocabulary has; None without any."""
        for spelling in SPELLINGS:
            ids = [i for token in spelling if (i := self.token_id(token)) is not None]
            if len(ids) == len(spelling):
                prefix, middle, suffix, pad = ids
                return FimTokens(prefix=prefix, middle=middle, suffix=suffix, pad=pad)
        return None

    @cached_property
    def parts_at_lines(self) -> bool:
        """Whether a line's end, behind anything but a blank, always begins a new token."""
        splitter = self._text.pre_tokenizer
        if splitter is None or self._text.normalizer is not None:
            return False
        found = json.loads(splitter.__getstate__())
        added = self._text.get_added_tokens_decoder().values()
        return all(token.special for token in added) and all(
            step["type"] == "Digits"
            or (step["type"] == "ByteLevel" and step["use_regex"] and not step["add_prefix_space"])
            for step in found.get("pretokenizers", [found])
        )

    def token_id(self, token: str) -> int | None:
        """The id of a token by its spelling in the vocabulary, e.g. ``"<filename>"``."""
        found: int | None = self._raw.token_to_id(token)
        return found

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes that one id stands for; none for a special token or an unused id."""
        if token_id in self.special_ids:
            return b""
        symbols = self._raw.id_to_token(token_id) or ""
        try:
            return bytes(_BYTE_OF_SYMBOL[symbol] for symbol in symbols)
        except KeyError:  # An added token is spelled as plain text.
            return symbols.encode()

    @cached_property
    def vocabulary(self) -> list[bytes]:
        """:meth:`token_bytes` of every id."""
        return [self.token_bytes(token_id) for token_id in range(self.vocab_size)]

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """Ids of ``text``; special tokens in it are parsed only with ``special=True``."""
        backend = self._raw if special else self._text
        ids: list[int] = backend.encode(self.spellable(text), add_special_tokens=False).ids
        return ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of many texts, on all cores, special tokens never parsed."""
        spellable = [self.spellable(text) for text in texts]
        batch = self._text.encode_batch_fast(spellable, add_special_tokens=False)
        return [encoding.ids for encoding in batch]

    def decode(self, ids: Sequence[int], *, skip_special: bool = False) -> str:
        """Text of ``ids``; bytes that are no UTF-8 (half a character) become U+FFFD."""
        text: str = self._raw.decode(list(ids), skip_special_tokens=skip_special)
        return text

    def stream(self) -> "IncrementalDecoder":
        """A decoder fed id by id, special tokens skipped."""
        return IncrementalDecoder(self)

    def to_json(self) -> str:
        """The text of ``tokenizer.json``."""
        text: str = self._raw.to_str(pretty=True)
        return text

    def save(self, folder: Path) -> None:
        """Writes ``tokenizer.json`` and the config that makes AutoTokenizer read just it."""
        write_atomically(folder / "tokenizer.json", self.to_json().encode())
        config = {
            # As GPT2Tokenizer, some transformers versions rebuild the pre-tokenizer
            # and lose the digits step.
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": END_OF_TEXT,
            "eos_token": END_OF_TEXT,
            "unk_token": END_OF_TEXT,
            "clean_up_tokenization_spaces": False,
        }
        text = json.dumps(config, indent=2) + "\n"
        write_atomically(folder / "tokenizer_config.json", text.encode())

    @classmethod
    def from_folder(cls, folder: Path) -> "Tokenizer":
        """Reads ``tokenizer.json``, or else ``vocab.json`` and ``merges.txt``.

        Raises TokenizerError where neither is there or one is broken.
        """
        path = folder / "tokenizer.json"
        try:
            if path.exists():
                return cls(tokenizers.Tokenizer.from_str(path.read_text(encoding="utf-8")))
            path = folder / "vocab.json"
            if path.exists():
                model = models.BPE.from_file(str(path), str(folder / "merges.txt"))
                return cls(_backend(model))
        except TokenizerError as error:
            raise TokenizerError(f"{path}: {error}") from error
        # The tokenizers library raises bare Exceptions.
        except Exception as error:
            raise TokenizerError(f"{path}: cannot be read as a tokenizer: {error}") from error
        raise TokenizerError(
            f"{folder}: no tokenizer here; expected tokenizer.json, or vocab.json and merges.txt"
        )

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int, *, progress: bool = False) -> "Tokenizer":
        """Learns a byte-level BPE of at most ``vocab_size`` ids; special tokens are 0 to 18.

        Raises TokenizerError where these do not fit, or for more than MAX_VOCABULARY.
        """
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        if vocab_size < len(SPECIAL_TOKENS) + len(alphabet):
            raise TokenizerError(
                f"vocab_size {vocab_size} has no room for {len(alphabet)} bytes "
                f"and {len(SPECIAL_TOKENS)} special tokens"
            )
        if vocab_size > MAX_VOCABULARY:
            raise TokenizerError(
                f"vocab_size {vocab_size}: at most {MAX_VOCABULARY}, which token shards hold"
            )
        backend = _backend(models.BPE())
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=list(SPECIAL_TOKENS),
            initial_alphabet=alphabet,
            show_progress=progress,
        )
        backend.train_from_iterator(texts, trainer)
        return cls(backend)

    def spellable(self, text: str) -> str:
        """The text with U+FFFD for the characters that the vocabulary cannot spell."""
        return text if text.isascii() else self._unspellable.sub(_REPLACEMENT, text)


class LineEncoder:
    """Encodes as :meth:`Tokenizer.encode` does, and remembers lines: the next text shares most.

    A line's end behind anything but a blank always parts two words of GPT-2's
    pattern, so what stands between two such places has the same ids in any text.
    So it is with a name's or a number's end, where a long line is parted. Of a
    vocabulary that splits text otherwise, nothing is remembered.
    """

    def __init__(self, tokenizer: Tokenizer, capacity: int = 8192) -> None:
        def encode(part: str) -> Sequence[int]:
            return tuple(tokenizer.encode(part))

        self._encode = tokenizer.encode
        self._remembered = lru_cache(capacity)(encode)
        self._remembered_long = lru_cache(_LONG_PARTS)(encode)
        self._parts_at_lines = tokenizer.parts_at_lines

    def __call__(self, text: str) -> list[int]:
        if not self._parts_at_lines:
            return self._encode(text)
        ids: list[int] = []
        first, *lines = text.split("\n")
        part = first
        for line in lines:
            if not part or part[-1].isspace():
                part = f"{part}\n{line}"
            else:
                ids += self._part(part)
                part = f"\n{line}"
        ids += self._part(part)
        return ids

    def _part(self, part: str) -> Sequence[int]:
        if len(part) <= _REMEMBERED:
            return self._remembered(part)
        ids, start = list[int](), 0
        # Counted from its beginning, so that typing at its end changes the last piece alone.
        while seam := _SEAM.search(part, start + _REMEMBERED // 2):
            ids += self._piece(part[start : seam.end()])
            start = seam.end()
        return [*ids, *self._piece(part[start:])]

    def _piece(self, piece: str) -> Sequence[int]:
        return (self._remembered if len(piece) <= _REMEMBERED else self._remembered_long)(piece)


class IncrementalDecoder:
    """Turns ids into text as they come, and never emits half a character."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, token_id: int) -> str:
        """The text that is complete with this id; empty while a character is not."""
        return self._utf8.decode(self._tokenizer.token_bytes(token_id))

    def flush(self) -> str:
        """What was held back, at the end of a stream: U+FFFD for half a character."""
        return self._utf8.decode(b"", final=True)


def _backend(model: models.BPE) -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.ByteLevel(trim_offsets=False)
    hyphened = [token.replace("_", "-") for token in SPECIAL_TOKENS]
    present = [t for t in (*SPECIAL_TOKENS, *hyphened) if backend.token_to_id(t) is not None]
    backend.add_special_tokens(present)
    return backend


def _unspellable(backend: tokenizers.Tokenizer) -> re.Pattern[str]:
    """Matches the characters whose UTF-8 needs a byte that the vocabulary lacks."""
    ranges = ["\ud800-\udfff"]
    missing = {
        byte for symbol, byte in _BYTE_OF_SYMBOL.items() if backend.token_to_id(symbol) is None
    }
    # First bytes F1 to F4 each open 2**18 code points (F4 only up to U+10FFFF);
    # other bytes are in every vocabulary of this family or in no UTF-8.
    for first_byte in sorted(missing & set(range(0xF1, 0xF5))):
        low = (first_byte - 0xF0) << 18
        ranges.append(f"{chr(low)}-{chr(min(low + (1 << 18) - 1, 0x10FFFF))}")
    return re.compile(f"[{''.join(ranges)}]")
