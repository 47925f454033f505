import errno
import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from random import Random
from time import perf_counter
from unittest.mock import Mock

import pytest

from tinystarcoder.corpus import duplicates
from tinystarcoder.corpus.parquet import read_documents, read_manifest, sha256_of
from tinystarcoder.corpus.pipeline import Settings, build_corpus
from tinystarcoder.errors import CorpusError
from tinystarcoder.tokenizer import Tokenizer

from .conftest import GPL, module


def paths_of(corpus: Path) -> list[tuple[str, str]]:
    return [(document.package, document.path) for document in read_documents(corpus)]


def snapshot(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class TestContent:
    def test_documents_and_where_they_come_from(self, make_wheel, make_sdist, tmp_path):
        folder = tmp_path / "own"
        folder.mkdir()
        (folder / "c.py").write_text(module(3))
        wheel = make_wheel("alpha", {"a.py": module(1), "tests/t.py": module(4)})
        sdist = make_sdist("beta", {"b.py": module(2)}, version="2.0")
        output = tmp_path / "corpus"
        build_corpus([wheel, sdist, folder], output, settings=Settings(license="psf-2.0"))
        found = [(d.text, d.path, d.package, d.version, d.license) for d in read_documents(output)]
        assert found == [
            (module(1), "a.py", "alpha", "1.0", "MIT"),
            (module(4), "tests/t.py", "alpha", "1.0", "MIT"),
            (module(2), "b.py", "beta", "2.0", "MIT"),
            (module(3), "c.py", "own", "", "PSF-2.0"),
        ]
        assert sorted(path.name for path in tmp_path.iterdir() if "partial" in path.name) == []

    def test_the_manifest_accounts_for_every_file(self, make_wheel, tmp_path):
        files = {
            "a.py": module(1),
            "copy.py": module(1) + "\n\n",
            "near.py": module(1) + "\nx = 1\n",
            "short.py": "",
            "_vendor/v.py": module(2),
            "bad.py": module(3) + "\nprint 'x'\n",
            "nul.py": module(4) + "\0",
        }
        copyleft = make_wheel("gnu", {"g.py": module(5)}, metadata="License: GPLv3\n")
        liar = make_wheel("liar", {"l.py": module(6)}, licenses={"COPYING": GPL})
        alpha = make_wheel("alpha", files)
        output = tmp_path / "corpus"
        manifest = build_corpus([alpha, copyleft, liar], output)
        assert json.loads(json.dumps(manifest)) == read_manifest(output)
        assert manifest["dropped_files"] == {
            "NUL bytes": 1,
            "exact duplicate": 1,
            "near duplicate": 1,
            "Python 2": 1,
            "too short": 1,
            "vendored": 1,
        }
        assert manifest["packages_set_aside"] == {
            "license not permissive": 1,
            "license disagrees": 1,
        }
        (entry, gnu, _) = manifest["packages"]
        assert entry["dropped"]["vendored"] == {
            "files": 1,
            "bytes": len(module(2).encode()),
            "examples": ["_vendor/v.py"],
        }
        dropped_bytes = sum(manifest["dropped_bytes"].values())
        assert entry["read_bytes"] == entry["bytes"] + dropped_bytes
        assert (entry["read_files"], entry["files"]) == (7, 1)
        assert entry["bytes"] == len(module(1).encode())
        assert entry["sha256"] == sha256_of(alpha)
        assert gnu["set_aside"] == "license not permissive: GPL-3.0-only"
        assert manifest["totals"]["files"] == 1
        assert manifest["totals"]["read_files"] == 7
        assert manifest["licenses"] == {
            "MIT": {"packages": 1, "files": 1, "bytes": len(module(1).encode())}
        }
        (shard,) = manifest["shards"]
        assert shard["sha256"] == sha256_of(output / shard["file"])
        assert (shard["documents"], shard["bytes"]) == (1, entry["bytes"])

    def test_a_folder_without_a_license_is_set_aside(self, make_wheel, tmp_path):
        (tmp_path / "own").mkdir()
        (tmp_path / "own" / "c.py").write_text(module(3))
        wheel = make_wheel(files={"a.py": module(1)})
        manifest = build_corpus([wheel, tmp_path / "own"], tmp_path / "corpus")
        assert [p["set_aside"] for p in manifest["packages"]] == [None, "license unknown"]

    def test_the_license_of_folders_is_not_lent_to_packages(self, make_wheel, tmp_path):
        wheels = [
            make_wheel("alpha", {"a.py": module(1)}),
            make_wheel("beta", {"b.py": module(2)}, metadata="", licenses={}),
        ]
        settings = Settings(license="MIT")
        manifest = build_corpus(wheels, tmp_path / "corpus", settings=settings)
        assert [p["set_aside"] for p in manifest["packages"]] == [None, "license unknown"]

    def test_near_dedup_can_be_left_out(self, make_wheel, tmp_path):
        wheel = make_wheel(files={"a.py": module(1), "b.py": module(1) + "\nx = 1\n"})
        build_corpus([wheel], tmp_path / "corpus", settings=Settings(near_dedup=False))
        assert len(paths_of(tmp_path / "corpus")) == 2

    def test_redaction_is_asked_for_and_counted(self, make_wheel, tmp_path):
        secret = module(1) + "\n# ask ann@harbor.org or ben@harbor.org\n"
        wheel = make_wheel(files={"a.py": secret, "b.py": module(2)})
        for redact, expected in (
            (False, secret),
            (True, module(1) + "\n# ask <EMAIL> or <EMAIL>\n"),
        ):
            output = tmp_path / f"corpus{redact}"
            manifest = build_corpus([wheel], output, settings=Settings(redact=redact))
            assert [document.text for document in read_documents(output)] == [expected, module(2)]
            assert manifest["redacted"].get("EMAIL", 0) == 2 * redact
        assert manifest["packages"][0]["redacted"] == {"EMAIL": 2}

    def test_copies_of_excluded_files_are_known_when_both_are_redacted(self, make_wheel, tmp_path):
        copied = module(1) + "\n# ask ann@harbor.org\n"
        held_out = make_wheel("held-out", {"x.py": copied})
        alpha = make_wheel("alpha", {"a.py": copied, "b.py": module(2)})
        settings = Settings(redact=True)
        manifest = build_corpus([alpha], tmp_path / "c", settings=settings, excluded=[held_out])
        assert manifest["dropped_files"] == {"exact duplicate of excluded": 1}

    def test_a_file_that_redaction_would_break_is_dropped(self, make_wheel, tmp_path):
        wheel = make_wheel(files={"a.py": module(1) + "\ny = x@w.me\n", "b.py": module(2)})
        manifest = build_corpus([wheel], tmp_path / "c", settings=Settings(redact=True))
        assert manifest["dropped_files"] == {"redaction broke it": 1}
        assert manifest["redacted"]["EMAIL"] == 0

    def test_the_first_of_two_packages_keeps_a_shared_file(self, make_wheel, tmp_path):
        alpha = make_wheel("alpha", {"a.py": module(1), "own.py": module(2)})
        beta = make_wheel("beta", {"b.py": module(1), "own.py": module(3)})
        build_corpus([beta, alpha], tmp_path / "corpus")
        expected = [("beta", "b.py"), ("beta", "own.py"), ("alpha", "own.py")]
        assert paths_of(tmp_path / "corpus") == expected


class TestExclusion:
    def test_near_duplicates_of_excluded_files_are_dropped(self, make_wheel, tmp_path):
        held_out = make_wheel(
            "held-out", {"_vendor/x.py": module(1), "y.py": module(2)}, metadata="License: GPLv3\n"
        )
        alpha = make_wheel(
            "alpha",
            {"a.py": module(1) + "\nx = 1\n", "b.py": module(2) + "\n\n", "c.py": module(3)},
        )
        manifest = build_corpus([alpha], tmp_path / "corpus", excluded=[held_out])
        assert paths_of(tmp_path / "corpus") == [("alpha", "c.py")]
        assert manifest["dropped_files"] == {
            "near duplicate of excluded": 1,
            "exact duplicate of excluded": 1,
        }
        assert manifest["excluded"] == ["held-out 1.0"]
        assert [package["package"] for package in manifest["packages"]] == ["alpha"]

    def test_an_excluded_package_enters_in_no_version(self, make_wheel, tmp_path):
        held_out = make_wheel("Held_Out", {"x.py": module(1)})
        newer = make_wheel("held.out", {"x.py": module(2)}, version="2.0")
        alpha = make_wheel("alpha", {"a.py": module(3)})
        manifest = build_corpus([newer, alpha], tmp_path / "corpus", excluded=[held_out])
        assert paths_of(tmp_path / "corpus") == [("alpha", "a.py")]
        assert manifest["packages"][0]["set_aside"] == "excluded package"

    def test_a_broken_exclusion_stops_the_build(self, make_wheel, tmp_path):
        broken = tmp_path / "broken.whl"
        broken.write_bytes(b"")
        with pytest.raises(CorpusError, match=r"broken\.whl: not a readable archive"):
            build_corpus([make_wheel()], tmp_path / "corpus", excluded=[broken])


class TestDeterminism:
    def test_any_number_of_workers_makes_the_same_bytes(self, make_wheel, tmp_path):
        wheels = [
            make_wheel(f"p{n}", {f"m{k}.py": module(n * 3 + k) for k in range(5)}) for n in range(5)
        ]
        for jobs in (1, 3):
            build_corpus(wheels, tmp_path / f"corpus{jobs}", jobs=jobs)
        assert snapshot(tmp_path / "corpus1") == snapshot(tmp_path / "corpus3")
        # Each package repeats two modules of the one before it.
        assert len(paths_of(tmp_path / "corpus1")) == 5 * 3 + 2

    def test_large_corpora_are_sharded(self, make_wheel, tmp_path, monkeypatch):
        monkeypatch.setattr("tinystarcoder.corpus.parquet.SHARD_BYTES", 3000)
        monkeypatch.setattr("tinystarcoder.corpus.document.BATCH", 2)
        wheel = make_wheel(files={f"m{n}.py": module(n) for n in range(9)})
        manifest = build_corpus([wheel], tmp_path / "corpus")
        assert len(manifest["shards"]) > 2
        assert sum(shard["documents"] for shard in manifest["shards"]) == 9
        assert [path for _, path in paths_of(tmp_path / "corpus")] == [f"m{n}.py" for n in range(9)]


class TestInterruption:
    def test_a_stopped_build_leaves_nothing_and_goes_on(self, make_wheel, tmp_path, monkeypatch):
        wheels = [make_wheel(f"p{n}", {"m.py": module(n)}) for n in range(4)]
        build_corpus(wheels, tmp_path / "whole")
        columns_of, made = duplicates.columns_of, []

        def stopping(at):
            def counted(texts, *, near):
                if len(made) == at:
                    raise KeyboardInterrupt
                made.extend(texts)
                return columns_of(texts, near=near)

            return counted

        monkeypatch.setattr(duplicates, "columns_of", stopping(at=2))
        with pytest.raises(KeyboardInterrupt):
            build_corpus(wheels, tmp_path / "corpus")
        assert not (tmp_path / "corpus").exists()
        monkeypatch.setattr(duplicates, "columns_of", stopping(at=None))
        build_corpus(wheels, tmp_path / "corpus")
        # Nothing is done twice, nothing left out.
        assert sorted(made) == sorted(module(n) for n in range(4))
        assert snapshot(tmp_path / "corpus") == snapshot(tmp_path / "whole")
        assert not (tmp_path / "corpus.partial").exists()

    @pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
    def test_a_killed_build_goes_on_as_if_nothing_had_been(self, make_wheel, tmp_path):
        files = {f"m{n}.py": module(n) for n in range(3)}
        wheels = [make_wheel("alpha", files), make_wheel("beta", {"b.py": module(9)})]
        killed = tmp_path / "killed.py"
        killed.write_text(
            "import os, signal, sys\n"
            "from pathlib import Path\n"
            "from tinystarcoder.corpus import dedup, pipeline\n"
            "content_key, calls = dedup.content_key, []\n"
            "def die_at_the_third(text):\n"
            "    calls.append(text)\n"
            "    if len(calls) == 3: os.kill(os.getpid(), signal.SIGKILL)\n"
            "    return content_key(text)\n"
            "dedup.content_key = die_at_the_third\n"
            "pipeline.build_corpus([Path(name) for name in sys.argv[2:]], Path(sys.argv[1]))\n"
        )
        command = [sys.executable, str(killed), str(tmp_path / "corpus"), *map(str, wheels)]
        assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
        assert not (tmp_path / "corpus").exists()
        build_corpus(wheels, tmp_path / "corpus")
        build_corpus(wheels, tmp_path / "whole")
        assert snapshot(tmp_path / "corpus") == snapshot(tmp_path / "whole")
        assert not (tmp_path / "corpus.partial").exists()

    @pytest.mark.full
    @pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
    def test_builds_killed_at_random_moments_lose_and_double_nothing(self, make_wheel, tmp_path):
        """Corpus and tokens, on two workers, killed again and again until they are done."""
        files = {f"m{n}.py": module(n) for n in range(40)}
        wheels = [make_wheel(f"p{n}", {"own.py": module(100 + n)} | files) for n in range(6)]
        Tokenizer.train([module(1)], vocab_size=300).save(tmp_path / "vocabulary")
        work = tmp_path / "work.py"
        work.write_text(
            "import sys\n"
            "from pathlib import Path\n"
            "from tinystarcoder.corpus import parquet, pipeline, tokenizing\n"
            "parquet.SHARD_BYTES = 20_000\n"
            "if __name__ == '__main__':\n"
            "    folder, *wheels = map(Path, sys.argv[1:])\n"
            "    corpus, tokens = folder / 'corpus', folder / 'tokens'\n"
            "    if not corpus.exists():\n"
            "        pipeline.build_corpus(wheels, corpus, jobs=2)\n"
            "    vocabulary = folder.parent / 'vocabulary'\n"
            "    tokenizing.tokenize_corpus(corpus, vocabulary, tokens, jobs=2)\n"
        )
        rng, begun, kills = Random(5), perf_counter(), 0
        command = [sys.executable, str(work), str(tmp_path / "whole"), *map(str, wheels)]
        (tmp_path / "whole").mkdir()
        subprocess.run(command, check=True)
        seconds = perf_counter() - begun
        (tmp_path / "killed").mkdir()
        command[2] = str(tmp_path / "killed")
        while not (tmp_path / "killed" / "tokens").exists():
            # Each stretch longer than the last, so that an end is reached on any machine.
            patience = rng.uniform(0.1, 0.3 + 0.1 * kills) * seconds
            with subprocess.Popen(command) as process:
                try:
                    assert process.wait(patience) == 0
                except subprocess.TimeoutExpired:
                    process.kill()
                    kills += 1
        assert kills > 2
        for folder in ("corpus", "tokens"):
            whole, killed = (snapshot(tmp_path / name / folder) for name in ("whole", "killed"))
            assert killed == whole
        assert sorted(path.name for path in (tmp_path / "killed").iterdir()) == ["corpus", "tokens"]

    def test_a_changed_source_is_read_again(self, make_wheel, tmp_path, monkeypatch):
        wheel = make_wheel("alpha", {"m.py": module(1)})
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(duplicates, "judge", Mock(side_effect=KeyboardInterrupt))
            build_corpus([wheel], tmp_path / "corpus")
        wheel = make_wheel("alpha", {"m.py": module(2) + "\nlonger = 1\n"})
        build_corpus([wheel], tmp_path / "corpus")
        (document,) = read_documents(tmp_path / "corpus")
        assert document.text.endswith("longer = 1\n")

    def test_a_full_disk_is_one_clear_error(self, make_wheel, tmp_path, monkeypatch):
        full = Mock(side_effect=OSError(errno.ENOSPC, "No space left on device"))
        monkeypatch.setattr(duplicates, "gather", full)
        with pytest.raises(CorpusError, match=r"corpus: cannot be built: .*No space left"):
            build_corpus([make_wheel(files={"a.py": module(1)})], tmp_path / "corpus")
        assert not (tmp_path / "corpus").exists()

    def test_a_dead_worker_is_one_clear_error(self, make_wheel, tmp_path):
        """In a process of its own: the workers import the module that kills them."""
        wheels = [str(make_wheel(f"p{n}", {"m.py": module(n)})) for n in range(2)]
        killer = tmp_path / "killer.py"
        killer.write_text(
            "import os, sys\n"
            "from pathlib import Path\n"
            "from tinystarcoder.corpus import duplicates, pipeline\n"
            "def die(texts, near): os._exit(9)\n"
            "duplicates.columns_of = die\n"
            "if __name__ == '__main__':\n"
            "    sources = [Path(name) for name in sys.argv[2:]]\n"
            "    pipeline.build_corpus(sources, Path(sys.argv[1]), jobs=2)\n"
        )
        command = [sys.executable, str(killer), str(tmp_path / "corpus"), *wheels]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert "CorpusError: a worker died" in done.stderr
        assert not (tmp_path / "corpus").exists()


class TestBadInput:
    def test_a_broken_archive_is_set_aside(self, make_wheel, tmp_path):
        broken = tmp_path / "broken.whl"
        broken.write_bytes(b"PK no more")
        wheel = make_wheel(files={"a.py": module(1)})
        manifest = build_corpus([broken, wheel], tmp_path / "corpus")
        assert manifest["packages"][0]["set_aside"].startswith("not a readable archive")
        assert paths_of(tmp_path / "corpus") == [("alpha", "a.py")]

    def test_an_existing_output_is_not_touched(self, make_wheel, tmp_path):
        (tmp_path / "corpus").mkdir()
        with pytest.raises(CorpusError, match="corpus: exists"):
            build_corpus([make_wheel()], tmp_path / "corpus")
        assert list((tmp_path / "corpus").iterdir()) == []

    @pytest.mark.parametrize(
        ("files", "why"),
        [({}, "no Python file"), ({"a.py": "x = 1\n"}, "1 of 1 files dropped, such as a.py: ")],
    )
    def test_an_empty_corpus_is_an_error(self, make_wheel, tmp_path, files, why):
        said = f"nothing is left of alpha-1.0-py3-none-any.whl: {why}"
        with pytest.raises(CorpusError, match=re.escape(said)):
            build_corpus([make_wheel(files=files)], tmp_path / "corpus")
        assert not (tmp_path / "corpus").exists()

    def test_an_empty_corpus_says_why(self, make_wheel, tmp_path):
        wheel = make_wheel(files={"a.py": module(1)}, metadata="License: GPLv3\n")
        with pytest.raises(
            CorpusError, match=r"left of alpha-\S+, nor of 1 more: license not perm"
        ):
            build_corpus([wheel, tmp_path], tmp_path / "corpus")

    def test_a_missing_source_is_found_before_any_work(self, make_wheel, tmp_path):
        with pytest.raises(CorpusError, match="no such source"):
            build_corpus([make_wheel(), tmp_path / "gone.whl"], tmp_path / "corpus")
        assert not (tmp_path / "corpus.partial").exists()

    def test_a_license_that_is_none(self, make_wheel, tmp_path):
        with pytest.raises(CorpusError, match="'whatever' is no SPDX expression"):
            settings = Settings(license="whatever")
            build_corpus([make_wheel()], tmp_path / "corpus", settings=settings)


class TestReading:
    def test_no_corpus(self, tmp_path):
        with pytest.raises(CorpusError, match=r"manifest\.json: no readable manifest"):
            list(read_documents(tmp_path))
        (tmp_path / "manifest.json").write_text(json.dumps([1]))
        with pytest.raises(CorpusError, match="not the manifest of a corpus"):
            list(read_documents(tmp_path))

    @pytest.mark.parametrize("damage", ["missing", "cut"])
    def test_a_damaged_shard_is_named(self, make_wheel, tmp_path, damage):
        build_corpus([make_wheel(files={"a.py": module(1)})], tmp_path / "corpus")
        shard = tmp_path / "corpus" / "documents-00000.parquet"
        data = shard.read_bytes()
        shard.unlink()
        if damage == "cut":
            shard.write_bytes(data[: len(data) // 2])
        with pytest.raises(CorpusError, match=r"documents-00000\.parquet: cannot be read"):
            list(read_documents(tmp_path / "corpus"))
