"""A corpus tells what is in it: report, lookup, notice, index, attribute."""

import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tinystarcoder.cli import attribute, corpus
from tinystarcoder.corpus import lookup
from tinystarcoder.corpus.licenses import LicenseClaims
from tinystarcoder.corpus.notice import copyright_lines, notice
from tinystarcoder.corpus.parquet import read_manifest
from tinystarcoder.corpus.pipeline import build_corpus
from tinystarcoder.corpus.report import html, markdown
from tinystarcoder.errors import CorpusError, RequestError

from .conftest import MIT, module

SNIPPET = "def alpha_only(first, second):\n    return first @ second\n"


@pytest.fixture
def wheels(make_wheel) -> list[Path]:
    licenses = {"LICENSE": f"Copyright (c) 2020 Ann <ann@example.org>\n\n{MIT}"}
    files = {"a.py": module(1) + SNIPPET, "b|c.py": module(2), "short.py": "", "copy.py": module(2)}
    alpha = make_wheel("Alpha.One", files, licenses=licenses)
    beta = make_wheel("beta", {"beta/a.py": module(3), "beta/_vendor/v.py": module(4)})
    gnu = make_wheel("gnu", {"g.py": module(5)}, metadata="License: GPLv3\n")
    return [alpha, beta, gnu]


@pytest.fixture
def made(wheels, make_wheel, tmp_path) -> Path:
    held_out = make_wheel("held-out", {"x.py": module(6)}, version="2.0")
    build_corpus(wheels, tmp_path / "corpus", excluded=[held_out])
    return tmp_path / "corpus"


def invoke(app, *arguments, code=0, stdin=None) -> str:
    result = CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False, input=stdin)
    assert result.exit_code == code, result.output
    return result.output


class Page(HTMLParser):
    """Complains of tags that do not match, and gathers the cells."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.cells: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        if tag not in {"meta", "rect"}:
            self.open.append(tag)
        assert not {"src", "href"} & {name for name, _ in attrs}

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "td":
            self.cells.append(data)


class TestReport:
    def test_the_commands_pages(self, made, tmp_path):
        invoke(corpus.app, "report", made, "--output", tmp_path / "pages")
        said = (tmp_path / "pages" / "report.md").read_text()
        assert said == markdown("Corpus corpus", read_manifest(made))
        page = Page((tmp_path / "pages" / "report.html").read_text())
        assert "Alpha.One: short.py" in page.cells

    def test_sizes_stage_by_stage(self, made):
        """Every stage takes what it drops; the last is what the corpus holds."""
        said = markdown("c", read_manifest(made))
        files = re.findall(r"^\| (read|after [\w -]+) \| (\d+) \|", said, re.MULTILINE)
        assert files == [
            ("read", "6"),
            ("after packages set aside", "6"),
            ("after filters", "4"),
            ("after exact dedup", "3"),
            ("after near-dedup", "3"),
        ]
        size = read_manifest(made)["totals"]["bytes"] / 1e6
        assert f"| after near-dedup | 3 | {size:.1f} |" in said

    def test_drops_have_reasons_and_examples(self, made):
        said = markdown("c", read_manifest(made))
        assert re.search(r"\| vendored \| 1 \| [\d.]+ \| beta: beta/_vendor/v.py \|", said)
        assert "| too short | 1 | 0.0 | Alpha.One: short.py |" in said
        assert "| exact duplicate | 1 | 0.0 | Alpha.One: copy.py |" in said
        assert "| gnu-1.0-py3-none-any.whl | license not permissive: GPL-3.0-only |" in said

    def test_what_is_written_cannot_break_a_page(self, made):
        manifest = read_manifest(made)
        manifest["packages"][0]["package"] = "<script>|x"
        page = html("c", manifest)
        Page(page)
        assert "<script>" not in page
        row = next(line for line in markdown("c", manifest).splitlines() if "<script>" in line)
        assert len(re.findall(r"(?<!\\)\|", row)) == 5

    def test_an_older_manifest_has_files_alone(self, made):
        manifest = read_manifest(made)
        del manifest["dropped_bytes"]
        assert "| after filters | 4 |  |" in markdown("c", manifest)
        Page(html("c", manifest))


class TestLookup:
    def test_a_package_by_any_of_its_names(self, made):
        said = invoke(corpus.app, "lookup", made, "--package", "alpha_one")
        assert said == (
            "Alpha.One 1.0 (MIT): 2 files, 0.0 MB, 1 dropped: exact duplicate, "
            "1 dropped: too short\n"
        )
        said = invoke(corpus.app, "lookup", made, "--package", "gnu")
        assert said == "gnu 1.0: set aside: license not permissive: GPL-3.0-only\n"
        said = invoke(corpus.app, "lookup", made, "--package", "Held_Out")
        assert said == "held-out 2.0: excluded, with near duplicates of its files\n"

    def test_a_path_from_a_folder_on(self, made):
        for pattern, expected in (
            ("a.py", ["a.py", "beta/a.py"]),
            ("beta/a.py", ["beta/a.py"]),
            ("ta/a.py", []),
            ("*.py", ["a.py", "b|c.py", "beta/a.py"]),
        ):
            assert [found.path for found in lookup.paths(made, pattern)] == expected
        said = invoke(corpus.app, "lookup", made, "--path", "beta/a.py")
        assert said == "beta 1.0 (MIT) beta/a.py\n"

    @pytest.mark.parametrize(
        ("snippet", "there"),
        [
            (SNIPPET, True),
            ("def  alpha_only( first,second ):\nreturn first@second", True),
            ("alpha_only", True),
            ("lpha_only", False),
            ("alpha_onl", False),
            ("defalpha_only(first", False),
            ("alpha_only(second", False),
            (SNIPPET + "more", False),
        ],
    )
    def test_a_snippet_with_other_white_space(self, made, tmp_path, snippet, there):
        (tmp_path / "mine.py").write_text(snippet)
        said = invoke(
            corpus.app, "lookup", made, "--snippet", tmp_path / "mine.py", code=0 if there else 1
        )
        line = module(1).count("\n") + 1
        assert said == (f"Alpha.One 1.0 (MIT) a.py:{line}\n" if there else "not in the corpus\n")
        assert invoke(corpus.app, "lookup", made, "--snippet", "-", stdin=snippet, code=not there)

    def test_bad_questions(self, made, tmp_path):
        with pytest.raises(RequestError, match="give one of"):
            invoke(corpus.app, "lookup", made)
        with pytest.raises(RequestError, match="give one of"):
            invoke(corpus.app, "lookup", made, "--package", "x", "--path", "y")
        with pytest.raises(CorpusError, match="the snippet is blank"):
            invoke(corpus.app, "lookup", made, "--snippet", "-", stdin=" \n")
        with pytest.raises(CorpusError, match="no readable manifest"):
            invoke(corpus.app, "lookup", tmp_path, "--package", "x")
        (made / read_manifest(made)["shards"][0]["file"]).write_bytes(b"cut")
        with pytest.raises(CorpusError, match="cannot be read as a corpus shard"):
            invoke(corpus.app, "lookup", made, "--path", "x")


class TestNotice:
    def test_packages_versions_licenses_and_holders(self, made, wheels, tmp_path):
        invoke(corpus.app, "notice", made, *wheels, "--output", tmp_path / "NOTICE")
        text = (tmp_path / "NOTICE").read_text()
        assert "\nAlpha.One 1.0 (MIT)\n    Copyright (c) 2020 Ann\n\nbeta 1.0 (MIT)\n" in text
        assert "gnu" not in text
        assert invoke(corpus.app, "notice", made, *wheels) == text
        assert "Ann" not in notice(read_manifest(made))

    def test_a_source_of_another_corpus_is_refused(self, made, make_wheel):
        with pytest.raises(CorpusError, match="the corpus was not built from it"):
            notice(read_manifest(made), [make_wheel("other", {"o.py": module(9)})])

    def test_lines_that_name_a_holder(self):
        text = (
            "# Copyright 2001, 2002 A. B., [C Ltd](https://c.example)\n"
            "   Copyright [yyyy] [name of copyright owner]\n"
            "copyright notice of 2003 shall be kept\n"
            "grant of copyright license\n"
            "* (c) nobody\n"
            "Copyright © D. E. <d@e.example>\n"
            "Copyright © D. E.\n"
        )
        claims = LicenseClaims(files=(("LICENSE", text), ("COPYING", "Copyright 2004 F\n" * 9)))
        assert copyright_lines(claims) == [
            "Copyright 2001, 2002 A. B., [C Ltd]",
            "Copyright © D. E.",
            "Copyright 2004 F",
        ]


class TestAttribute:
    @pytest.fixture
    def index(self, made, tmp_path) -> Path:
        said = invoke(corpus.app, "index", made, "--output", tmp_path / "index")
        assert "spans of 50 words and more" in said
        return tmp_path / "index"

    def test_whose_a_file_is(self, index, tmp_path):
        path = tmp_path / "mine.py"
        path.write_text("new = 1\n\n" + module(3) + "\nold = 2\n")
        said = invoke(attribute.app, path, "--index", index)
        lines = module(3).count("\n")
        assert re.match(rf"lines 3-{lines + 2}, \d+ words: def \w+\(", said)
        assert said.endswith("\n  beta 1.0 (MIT) beta/a.py\n")
        (span,) = json.loads(invoke(attribute.app, path, "--index", index, "--json"))
        assert (span["first_line"], span["last_line"]) == (3, lines + 2)
        assert span["sources"][0]["path"] == "beta/a.py"

    def test_what_is_nobodys(self, index):
        said = invoke(attribute.app, "--index", index, stdin="x = 1\n")
        assert said == "no span of 50 words or symbols was found\n"
        said = invoke(attribute.app, "-", "--index", index, "--at-least", 99, stdin=SNIPPET)
        assert said == "no span of 99 words or symbols was found\n"

    def test_a_compact_index_knows_packages(self, made, tmp_path):
        said = invoke(corpus.app, "index", made, "--output", tmp_path / "small", "--compact")
        assert "grams of 16 words, 1 word apart, of " in said
        said = invoke(attribute.app, "--index", tmp_path / "small", stdin=module(3))
        assert re.fullmatch(r"lines 1-\d+, \d+ words or more: .*\n  beta \(MIT\)\n", said)

    def test_many_files_are_counted_and_common_spans_are_last(self, make_wheel, tmp_path):
        files = {f"m{n}.py": module(n) + "\n\n" + module(50) for n in range(8)}
        licensed = '"""' + " ".join(f"w{n}" for n in range(60)) + '"""\n'
        wheels = [
            make_wheel("alpha", files),
            *(make_wheel(f"p{n}", {"p.py": licensed + module(90 + n)}) for n in range(3)),
        ]
        build_corpus(wheels, tmp_path / "corpus")
        invoke(corpus.app, "index", tmp_path / "corpus", "--output", tmp_path / "index")
        said = invoke(
            attribute.app, "--index", tmp_path / "index", stdin=licensed + "\n" + module(50)
        )
        first, *sources, more, common = said.splitlines()
        assert first.startswith("lines 3-")
        assert sources == [f"  alpha 1.0 (MIT) m{n}.py" for n in range(5)]
        assert more == "  and 3 more files"
        assert common == "common, in 3 packages or more: lines 1-3"

    def test_nothing_to_look_up(self, index, monkeypatch):
        monkeypatch.setattr("sys.stdin", type("T", (io.StringIO,), {"isatty": lambda self: True})())
        with pytest.raises(RequestError, match="nothing to look up"):
            attribute.attribute(index=index)
