"""What stands in the corpus is found, whatever stands around it; what does not, is not."""

import inspect
import json
import textwrap
from collections.abc import Iterator
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinystarcoder
from tinystarcoder.corpus.attribution import CompactIndex, FullIndex, Source, open_index
from tinystarcoder.corpus.attribution_index import build_compact, build_full
from tinystarcoder.corpus.document import Document
from tinystarcoder.corpus.words import WORD, gram_codes, words_of
from tinystarcoder.errors import CorpusError

from .conftest import module

HEADER = "# " + " ".join(f"licensed{number}," for number in range(40)) + "\n"


def documents() -> Iterator[Document]:
    """Six packages of four modules, the last three packages under one header."""
    for number in range(24):
        package = "abcdef"[number // 4]
        text = module(number)
        if package in "def":
            text = HEADER + text
        yield Document(text, f"{package}/m{number}.py", package, f"1.{number // 4}", "MIT")


@pytest.fixture(scope="module")
def full(tmp_path_factory) -> FullIndex:
    folder = tmp_path_factory.mktemp("attribution") / "full"
    build_full(documents(), folder)
    index = open_index(folder)
    assert isinstance(index, FullIndex)
    return index


@pytest.fixture(scope="module")
def compact(full) -> CompactIndex:
    """Room for every third gram or so."""
    build_compact(full, full.folder.with_name("compact"), size=8000)
    index = open_index(full.folder.with_name("compact"))
    assert isinstance(index, CompactIndex)
    return index


def stretch(text: str, first: int, words: int) -> str:
    data = text.encode()
    found = words_of(data)
    return data[found.starts[first] : found.ends[first + words - 1]].decode()


class TestWords:
    @given(st.text(st.sampled_from("ab_1(( \n\t..äß中\x0b\0\x85\xa0"), max_size=40))
    def test_they_are_what_the_pattern_matches(self, text):
        data = text.encode()
        words = words_of(data)
        spelled = [data[a:b] for a, b in zip(words.starts, words.ends, strict=True)]
        assert spelled == [match[0] for match in WORD.finditer(data)]
        alone = [words_of(word).codes[0] for word in spelled]
        assert words.codes.tolist() == alone

    def test_different_words_differ_but_for_one_in_65536(self):
        names = [f"{a}{b}" for a in ("x", "name", "0.") for b in range(300)]
        codes = [tuple(words_of(name.encode()).codes) for name in names]
        assert len(set(codes)) >= len(names) - 30
        assert words_of(b"ab").codes != words_of(b"ba").codes
        assert words_of(b"a" * 70_000).codes != words_of(b"a" * 70_001).codes

    @given(st.integers(0, 60), st.integers(1, 9), st.integers(1, 9))
    def test_grams_at_a_stride_are_some_of_all(self, length, gram, stride):
        words = np.arange(length, dtype=np.uint16)
        every = gram_codes(words, gram)
        assert len(every) == max(0, length - gram + 1)
        assert np.array_equal(gram_codes(words, gram, stride), every[::stride])
        assert len(set(every.tolist())) == len(every)


class TestFull:
    @pytest.mark.parametrize("words", [50, 60, 75])
    def test_every_planted_span_is_found(self, full, words):
        rng = Random(words)
        everything = list(documents())
        for _ in range(100):
            document = rng.choice(everything)
            total = len(words_of(document.text.encode()).codes)
            # One word of the header has no span of its own file.
            first = rng.randrange(80 if document.package in "def" else 0, total - words + 1)
            planted = stretch(document.text, first, words)
            text = "ä = 1 # new\n" + planted.replace("\n", "\n        ") + "\nnew = words\n"
            (span,) = full.find(text)
            assert (span.words, span.files, span.common) == (words, 1, False)
            assert text[span.start : span.end].split() == planted.split()
            source = Source(document.package, "MIT", document.version, document.path, words=words)
            assert span.sources == (source,)

    def test_shorter_spans_are_not(self, full):
        assert full.find(stretch(module(3), 10, 49)) == []
        assert full.find("") == full.find("x") == full.find("other words " * 60) == []

    def test_longer_ones_can_be_asked_for(self, full):
        text = stretch(module(3), 10, 60)
        assert [span.words for span in full.find(text, 60)] == [60]
        assert full.find(text, 61) == []
        with pytest.raises(CorpusError, match="finds those of 50 and more"):
            full.find(text, 49)

    def test_a_span_ends_with_its_document(self, full):
        """m3.py and m4.py stand side by side in the index."""
        end, begin = module(3), module(4)
        spans = full.find(end + "\n" + begin)
        assert [span.sources[0].path for span in spans] == ["a/m3.py", "b/m4.py"]
        assert sum(span.words for span in spans) == len(words_of((end + begin).encode()).codes)

    def test_spans_of_two_files_are_both_named(self, full):
        text = stretch(module(0), 0, 60) + "\n" + stretch(module(5), 20, 80)
        assert [(s.words, s.sources[0].package) for s in full.find(text)] == [(60, "a"), (80, "b")]

    def test_what_stands_in_many_packages_is_common(self, full):
        (span,) = full.find(HEADER)
        assert (span.common, span.files, len(span.sources)) == (True, 12, 12)
        assert [source.package for source in span.sources[:3]] == ["d", "e", "f"]

    def test_a_copy_below_a_common_header_is_not_common(self, full):
        text = HEADER + module(17)
        (span,) = full.find(text)
        assert (span.common, span.files) == (False, 1)
        assert [source.path for source in span.sources] == ["e/m17.py"]
        (span,) = full.find(HEADER + stretch(module(17), 0, 10))
        assert span.common

    def test_other_lengths(self, tmp_path):
        index = build_full(documents(), tmp_path / "index", at_least=9)
        for first in range(30):
            assert index.find(stretch(module(2), first, 9))
        with pytest.raises(CorpusError, match="an index is for 8 and more"):
            build_full(documents(), tmp_path / "short", at_least=7)
        for words, told in ((8, "8"), (1, "8, the least there is")):
            with pytest.raises(CorpusError, match=f"corpus index --at-least {told}$"):
                index.find("x", words)

    def test_what_stands_in_very_many_places_is_found(self, tmp_path):
        table = Document("0, " * 300_000, "table.py", "t", "1", "MIT")
        index = build_full([table], tmp_path / "index")
        (span,) = index.find("0, " * 100)
        assert (span.words, span.files) == (200, 1)


class TestCompact:
    def test_it_has_the_size_that_it_is_given(self, compact):
        assert sum(path.stat().st_size for path in compact.folder.iterdir()) <= 8000
        assert compact.stride > 1

    def test_spans_of_a_gram_and_a_stride_are_found(self, compact):
        words = compact.gram + compact.stride - 1
        for number, document in enumerate(documents()):
            planted = stretch(document.text, 80 + number, words)
            found = compact.find("new = text\n" + planted)
            source = Source(document.package, "MIT")
            assert any(span.sources == (source,) for span in found), number
            for span in found:
                assert span.end > span.start >= 11

    def test_what_stands_in_many_packages_is_common(self, compact):
        spans = compact.find(HEADER)
        assert spans
        assert {(span.common, span.sources) for span in spans} == {(True, ())}

    def test_no_package_is_named_for_what_lies_across_two_files(self, tmp_path):
        one, two = (stretch(module(number), 0, 80) for number in (1, 2))
        texts = {"a": one, "b": two, "c": f"{one}\n{two}"}
        files = [Document(text, f"{name}.py", name, "1", "MIT") for name, text in texts.items()]
        build_full(files, tmp_path / "full")
        across = stretch(texts["c"], 80 - 15, 30)
        for size in (20_000, 3000):  # Every gram, and every other or so.
            full = open_index(tmp_path / "full")
            compact = build_compact(full, tmp_path / str(size), size=size)
            spans = compact.find(across)
            assert [span.sources for span in spans] == [(Source("c", "MIT"),)] * len(spans)
            assert spans or size == 3000

    def test_what_is_new_is_hardly_ever_named(self, compact):
        texts = [module(seed) for seed in range(100, 200)]
        assert sum(bool(compact.find(text)) for text in texts) <= 30
        assert compact.find("") == []

    def test_of_longer_spans_those_are_shown_of_which_so_much_was_seen(self, compact):
        text = module(2) + "\nnew = text\n" + stretch(module(3), 0, compact.gram + compact.stride)
        words = [span.words for span in compact.find(text, 50)]
        assert words == [span.words for span in compact.find(text)]
        seen = max(words)
        assert min(words) < 50 < seen
        assert {span.words for span in compact.find(text, seen)} == {seen}
        assert compact.find(text, seen + 1) == []

    def test_shorter_spans_are_refused(self, compact):
        with pytest.raises(CorpusError, match="for those of 50 and more; make a full one"):
            compact.find("x", 49)

    def test_too_little_room(self, full, tmp_path):
        with pytest.raises(CorpusError, match="too few for an index of 6 packages"):
            build_compact(full, tmp_path / "small", size=2000)


class TestFolders:
    def test_equal_corpora_have_equal_indexes(self, full, compact, tmp_path):
        again = build_full(documents(), tmp_path / "full")
        build_compact(again, tmp_path / "compact", size=8000)
        for folder, other in ((full.folder, "full"), (compact.folder, "compact")):
            for path in folder.iterdir():
                assert path.read_bytes() == (tmp_path / other / path.name).read_bytes()

    def test_a_broken_index_is_told(self, full, tmp_path):
        with pytest.raises(CorpusError, match=r"index\.json: missing; no attribution index here"):
            open_index(tmp_path)
        for text in ("{", "[]", json.dumps({"format": 1})):
            (tmp_path / "index.json").write_text(text)
            with pytest.raises(CorpusError, match="cannot be read as an attribution index"):
                open_index(tmp_path)
        (tmp_path / "index.json").write_text(json.dumps({"format": 99}))
        with pytest.raises(CorpusError, match="format 99, not 1; index again"):
            open_index(tmp_path)
        for path in full.folder.iterdir():
            (tmp_path / path.name).write_bytes(path.read_bytes())
        (tmp_path / "grams.npy").write_bytes(b"")
        with pytest.raises(CorpusError, match=r"grams\.npy: 0 bytes, not \d+; index again"):
            open_index(tmp_path)

    def test_nothing_is_left_of_an_index_that_failed(self, full, tmp_path):
        with pytest.raises(CorpusError, match="no document to index"):
            build_full([], tmp_path / "index")
        assert list(tmp_path.iterdir()) == []
        with pytest.raises(CorpusError, match="exists; remove it or choose another --output"):
            build_full(documents(), full.folder)


class TestBundled:
    """What ships beside nano: the compact index and the NOTICE of its corpus."""

    @pytest.fixture
    def nano(self) -> Path:
        folder = Path(tinystarcoder.__file__).parent / "weights" / "nano"
        if not (folder / "attribution").is_dir():
            pytest.skip("the bundled index is not here yet")
        return folder

    def test_it_is_small(self, nano):
        assert sum(path.stat().st_size for path in (nano / "attribution").iterdir()) <= 10**7

    def test_it_is_of_the_packages_of_the_manifest(self, nano):
        entries = json.loads((nano / "manifest.json").read_text(encoding="utf-8"))["packages"]
        trained_on = [entry for entry in entries if entry["files"]]
        sources = open_index(nano / "attribution").sources
        assert {source["package"] for source in sources} == {e["package"] for e in trained_on}
        notice = (nano / "NOTICE").read_text(encoding="utf-8")
        for entry in trained_on:
            line = f"{entry['package']} {entry['version']}".strip() + f" ({entry['license']})"
            assert f"\n{line}\n" in notice

    def test_it_knows_the_standard_library(self, nano):
        """Whose text this Python brings along, whichever its version."""
        spans = open_index(nano / "attribution").find(inspect.getsource(textwrap.TextWrapper))
        named = [source.package for span in spans for source in span.sources]
        assert sum(name.startswith("python") for name in named) > len(named) / 2
