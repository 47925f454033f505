"""The list of stages, and builds that use every one of them, from sources of every kind."""

import json
import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinystarcoder.corpus.decoding import SetAside
from tinystarcoder.corpus.document import CONTROL, Document
from tinystarcoder.corpus.parquet import read_documents
from tinystarcoder.corpus.pipeline import build_corpus
from tinystarcoder.corpus.settings import Settings
from tinystarcoder.corpus.stages import Stages
from tinystarcoder.errors import CorpusError

from .conftest import GPL, MIT, module
from .test_license_headers import APACHE
from .test_notebooks import code, notebook

GOOD = module(1)
DEFAULTS = Settings()


def document(text: str = GOOD, **facts) -> Document:
    fields = {"path": "a.py", "package": "pkg", "version": "1.0", "license": "MIT"}
    return Document(text, **fields | facts)


def passed(document: Document, settings: Settings = DEFAULTS, raw: bool = False) -> Document:
    found = Stages(settings, raw)(document)
    assert isinstance(found, Document), found
    return found


class TestStages:
    @pytest.mark.parametrize(
        ("document", "reason"),
        [
            (document(license=""), "license unknown"),
            (document(license="GPL-3.0-only"), "license not permissive"),
            (document(f"# SPDX-License-Identifier: GPL-2.0-only\n{GOOD}"), "license header not"),
            (document(f"# GNU General Public License\n{GOOD}"), "copyleft header"),
            (document("x = 1\n"), "too short"),
            (document(f"{GOOD}\nprint x\n"), "Python 2"),
        ],
    )
    def test_reasons(self, document, reason):
        found = Stages(Settings())(document)
        assert isinstance(found, SetAside)
        assert str(found).startswith(reason)
        # Excluded sources are not judged.
        assert passed(document, raw=True) == document

    def test_a_file_has_the_license_that_it_says(self):
        tagged = f"# SPDX-License-Identifier: BSD-3-Clause OR apache-2.0\n{GOOD}"
        assert passed(document(tagged)).license == "BSD-3-Clause OR Apache-2.0"
        assert passed(document()).license == "MIT"

    def test_headers_are_stripped_after_they_were_read(self):
        tagged = f"# SPDX-License-Identifier: ISC\n{APACHE}\n{GOOD}"
        settings = Settings(strip_license_headers=True)
        found = passed(document(tagged), settings)
        assert (found.text, found.license) == (GOOD, "ISC")
        assert passed(document(APACHE + GOOD), settings, raw=True).text == GOOD
        assert passed(document(APACHE + GOOD)).text == APACHE + GOOD
        # What is left of a file that was all header is judged as it is.
        assert str(Stages(settings)(document(APACHE))) == "too short"

    def test_quality_is_noted_and_cuts_only_on_request(self):
        score = passed(document()).quality
        assert score is not None
        assert 0 < score < 1
        assert passed(document(), Settings(min_quality=score)).quality == score
        assert str(Stages(Settings(min_quality=score + 0.01))(document())) == "low quality"

    def test_lists_are_read_before_any_work(self, tmp_path):
        missing = str(tmp_path / "gone.toml")
        for settings in (Settings(opt_out=missing), Settings(decontaminate=(missing,))):
            with pytest.raises(CorpusError, match=r"gone\.toml: cannot be read"):
                build_corpus([tmp_path], tmp_path / "corpus", settings=settings)
        assert not (tmp_path / "corpus.partial").exists()


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), max_size=300))
def test_a_document_comes_out_whole_or_with_a_reason(text):
    """All that a stage may change is what it is for; raw ones pass."""
    given_ = document(f"{GOOD}\n# {text}")
    found = Stages(Settings())(given_)
    if isinstance(found, Document):
        assert found.text == given_.text
        assert (found.path, found.package, found.version) == ("a.py", "pkg", "1.0")
    else:
        assert str(found)
    assert Stages(Settings(), raw=True)(given_) == given_


class TestBuilds:
    def test_every_kind_of_source_in_one_corpus(self, make_wheel, make_sdist, tmp_path):
        wheel = make_wheel("alpha", {"a.py": module(1)})
        sdist = make_sdist("beta", {"b.py": module(2)})
        folder = tmp_path / "own"
        folder.mkdir()
        (folder / "c.py").write_text(module(3))
        cells = notebook(code(module(4)), code("%ls"))
        (folder / "n.ipynb").write_bytes(cells)
        table = tmp_path / "t.jsonl"
        rows = [
            {"content": module(5), "max_stars_repo_path": "d.py", "max_stars_repo_name": "ann/d",
             "max_stars_count": 7, "max_stars_repo_licenses": ["ISC"]},
            {"content": module(6), "max_stars_repo_path": "e.py", "max_stars_repo_name": "ben/e"},
            {"content": module(7), "max_stars_repo_path": "f.py", "max_stars_repo_name": "ben/e",
             "max_stars_repo_licenses": ["GPL-3.0-only"]},
        ]  # fmt: skip
        table.write_text("".join(json.dumps(row) + "\n" for row in rows))
        output = tmp_path / "corpus"
        settings = Settings(license="PSF-2.0")
        manifest = build_corpus([wheel, sdist, folder, table], output, settings=settings)
        found = {d.path: (d.package, d.license, d.stars) for d in read_documents(output)}
        assert found == {
            "a.py": ("alpha", "MIT", None),
            "b.py": ("beta", "MIT", None),
            "c.py": ("own", "PSF-2.0", None),
            "n.ipynb": ("own", "PSF-2.0", None),
            "d.py": ("ann/d", "ISC", 7),
            "e.py": ("ben/e", "PSF-2.0", None),
        }
        assert manifest["dropped_files"] == {"license not permissive": 1}
        counts = {name: entry["files"] for name, entry in manifest["licenses"].items()}
        assert counts == {"MIT": 2, "PSF-2.0": 3, "ISC": 1}
        assert all(d.quality is not None for d in read_documents(output))
        texts = {d.path: d.text for d in read_documents(output)}
        assert texts["n.ipynb"].startswith(f"{CONTROL}<jupyter_start>{CONTROL}<jupyter_code>def ")

    @pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
    def test_a_repository_and_the_corpus_itself_as_sources(self, tmp_path):
        repository = tmp_path / "repository"
        repository.mkdir()
        (repository / "a.py").write_text(module(1))
        (repository / "LICENSE").write_text(MIT)
        for command in (
            "init --quiet",
            "add .",
            "-c user.name=A -c user.email=a@example.org commit --quiet -m x",
        ):
            subprocess.run(["git", *command.split()], cwd=repository, check=True)
        (repository / "untracked.py").write_text(module(2))
        build_corpus([f"git+file://{repository}"], tmp_path / "one")
        (first,) = read_documents(tmp_path / "one")
        assert (first.package, first.license, len(first.version)) == ("repository", "MIT", 40)
        build_corpus([tmp_path / "one" / "documents-00000.parquet"], tmp_path / "two")
        assert list(read_documents(tmp_path / "two")) == [first]

    def test_opt_outs_are_left_out_and_counted(self, make_wheel, tmp_path):
        opt_out = tmp_path / "out.toml"
        opt_out.write_text(
            'packages = ["beta"]\npaths = ["alpha/private/*"]\nauthors = ["ann@example.org"]\n'
        )
        wheels = [
            make_wheel("alpha", {
                "a.py": module(1), "private/p.py": module(2),
                "by.py": f"# by Ann@Example.org\n{module(3)}",
            }),
            make_wheel("beta", {"b.py": module(4)}),
            make_wheel("gamma", {"c.py": module(5)},
                       metadata="License: MIT\nAuthor-email: Ann <Ann@example.org>\n"),
        ]  # fmt: skip
        settings = Settings(opt_out=str(opt_out))
        manifest = build_corpus(wheels, tmp_path / "corpus", settings=settings)
        assert [d.path for d in read_documents(tmp_path / "corpus")] == ["a.py"]
        assert manifest["dropped_files"] == {"opted out": 2}
        assert [p["set_aside"] for p in manifest["packages"]] == [None, "opted out", "opted out"]
        # The manifest says which list it was, not what is on it.
        assert manifest["settings"]["opt_out"]["file"] == "out.toml"
        assert "ann@example.org" not in json.dumps(manifest).lower()

    def test_benchmarks_do_not_enter(self, make_wheel, tmp_path):
        bench = tmp_path / "bench.jsonl"
        bench.write_text(json.dumps({"canonical_solution": module(1)}) + "\n")
        wheel = make_wheel("alpha", {"a.py": module(1), "b.py": module(2)})
        settings = Settings(decontaminate=(str(bench),))
        manifest = build_corpus([wheel], tmp_path / "corpus", settings=settings)
        assert manifest["dropped_files"] == {"in benchmark bench": 1}

    def test_a_changed_list_makes_new_parts(self, make_wheel, tmp_path, monkeypatch):
        from tinystarcoder.corpus import pipeline

        opt_out = tmp_path / "out.toml"
        opt_out.write_text("")
        settings = Settings(opt_out=str(opt_out))
        source = pipeline.find_source(make_wheel())
        before = pipeline._Task(source, settings).key()
        assert pipeline._Task(source, settings).key() == before
        opt_out.write_text('packages = ["x"]\n')
        assert pipeline._Task(source, settings).key() != before

    def test_a_folder_below_a_license_of_its_own(self, make_wheel, tmp_path):
        wheel = make_wheel("alpha", {
            "a.py": module(1), "sub/b.py": module(2), "sub/LICENSE.txt": GPL,
            "other/deep/c.py": module(3), "other/COPYING": "Apache License, Version 2.0",
        })  # fmt: skip
        manifest = build_corpus([wheel], tmp_path / "corpus")
        found = {d.path: d.license for d in read_documents(tmp_path / "corpus")}
        assert found == {"a.py": "MIT", "other/deep/c.py": "Apache-2.0"}
        assert manifest["dropped_files"] == {"license not permissive": 1}

    def test_packages_by_name_and_those_without_a_wheel(self, make_wheel, tmp_path, monkeypatch):
        from tinystarcoder.corpus import pypi

        wheel = make_wheel("alpha", {"a.py": module(1)})

        def fetch(requirement, cache):
            if requirement != "alpha":
                raise SetAside("no wheel of it")
            return wheel

        monkeypatch.setattr(pypi, "fetch_wheel", fetch)
        manifest = build_corpus(["alpha", "pypi:gone"], tmp_path / "corpus")
        assert [p["set_aside"] for p in manifest["packages"]] == [None, "no wheel of it"]
        with pytest.raises(CorpusError, match="no wheel of it"):
            build_corpus(["alpha"], tmp_path / "again", excluded=["pypi:gone"])

    @pytest.mark.full
    def test_a_hundred_megabytes_on_one_line_cost_one_file(self, make_wheel, tmp_path):
        table = tmp_path / "t.jsonl"
        row = {"content": module(2), "path": "b.py", "package": "beta", "license": "MIT"}
        with table.open("w") as stream:
            stream.write('{"content": "')
            for _ in range(100):
                stream.write("x" * 1_000_000)
            stream.write('"}\n' + json.dumps(row) + "\n")
        wheel = make_wheel("alpha", {"a.py": module(1), "long.py": b"x" * 100_000_000})
        manifest = build_corpus([wheel, table], tmp_path / "corpus")
        assert manifest["dropped_files"] == {"larger than 8 MiB": 1, "larger than 16 MiB": 1}
        assert [d.path for d in read_documents(tmp_path / "corpus")] == ["a.py", "b.py"]

    def test_a_broken_table_is_set_aside_and_leaves_nothing(self, make_wheel, tmp_path):
        table = tmp_path / "t.parquet"
        table.write_bytes(b"PAR1 no more")
        wheel = make_wheel("alpha", {"a.py": module(1)})
        manifest = build_corpus([wheel, table], tmp_path / "corpus")
        assert manifest["packages"][1]["set_aside"].startswith("cannot be read as a table")
        assert [d.path for d in read_documents(tmp_path / "corpus")] == ["a.py"]
