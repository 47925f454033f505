"""The door, and packages by name through a real pip on a folder of wheels."""

import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinystarcoder.corpus import pypi
from tinystarcoder.corpus.decoding import SetAside
from tinystarcoder.corpus.open_source import Source, fetched, find_source
from tinystarcoder.corpus.pipeline import build_corpus
from tinystarcoder.corpus.pypi import fetch_wheel, is_name
from tinystarcoder.corpus.settings import Settings
from tinystarcoder.corpus.sources import SKIPPED_FOLDERS
from tinystarcoder.errors import CorpusError

from .conftest import module


@pytest.fixture
def index(tmp_path, monkeypatch):
    """pip sees the wheels in this folder and nothing else."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return folder


class TestPackagesByName:
    def test_from_the_index_then_from_the_cache(self, make_wheel, index, tmp_path):
        wheel_file = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        files = {"a.py": module(1), "my_alpha-1.0.dist-info/WHEEL": wheel_file}
        make_wheel("my_alpha", files).rename(index / "my_alpha-1.0-py3-none-any.whl")
        cache = tmp_path / "cache"
        wheel = fetch_wheel("My.Alpha", cache)
        assert wheel == cache / "my_alpha-1.0-py3-none-any.whl"
        shutil.rmtree(index)
        assert fetch_wheel("my-alpha", cache) == fetch_wheel("my-alpha==1.0", cache) == wheel
        assert [path.name for path in cache.iterdir()] == [wheel.name]

    def test_an_sdist_alone_is_no_wheel_and_is_never_built(self, make_sdist, index, tmp_path):
        trap = tmp_path / "sprung"
        sdist = make_sdist("beta", {"setup.py": f"open({str(trap)!r}, 'w')\n"})
        sdist.rename(index / sdist.name)
        with pytest.raises(SetAside, match="no wheel of it"):
            fetch_wheel("beta", tmp_path / "cache")
        assert not trap.exists()
        assert list((tmp_path / "cache").iterdir()) == []

    @pytest.mark.parametrize(
        ("said", "error", "message"),
        [
            (
                "WARNING: Retrying (Retry(total=0))\nERROR: No matching distribution",
                CorpusError,
                "cannot be downloaded; start again to go on",
            ),
            ("ERROR: No matching distribution found for x", SetAside, "no wheel of it"),
            ("ERROR: Something else", SetAside, "not to be downloaded: Something else"),
            ("ERROR: [Errno 28] No space left on device", CorpusError, "start again to go on"),
            ("", SetAside, "pip said nothing"),
        ],
    )
    def test_what_pip_says(self, monkeypatch, tmp_path, said, error, message):
        failed = subprocess.CompletedProcess([], 1, "", said)
        monkeypatch.setattr(pypi.subprocess, "run", lambda *_, **__: failed)
        with pytest.raises(error, match=message):
            fetch_wheel("x", tmp_path)

    def test_a_cache_that_cannot_be_written(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(CorpusError, match="x: cannot be kept in"):
            fetch_wheel("x", tmp_path / "file" / "cache")

    def test_the_cache_stands_where_the_user_wants(self, monkeypatch, tmp_path):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        assert pypi.default_cache() == tmp_path / "tinystarcoder" / "wheels"


class TestTheDoor:
    def test_every_kind(self, make_wheel, make_sdist, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "folder").mkdir()
        for name in ("t.parquet", "t.jsonl.gz", "n.ipynb", "a.py"):
            (tmp_path / name).write_text("")
        wheel, sdist = make_wheel(), make_sdist()
        kinds = {
            str(wheel): "package",
            str(sdist): "package",
            "folder": "folder",
            "t.parquet": "table",
            "t.jsonl.gz": "table",
            "n.ipynb": "file",
            "a.py": "file",
            "hf:bigcode/the-stack@main": "dataset",
        }
        for said, kind in kinds.items():
            source = find_source(said)
            assert isinstance(source, Source)
            assert source.kind == kind
            assert source.borrows_license == (kind != "package")
        assert find_source("requests") == find_source("pypi:requests") == "requests"
        assert find_source("requests==2.0") == "requests==2.0"
        # What is on the disk wins.
        assert find_source("pypi:folder") == "folder"

    @pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
    def test_repositories(self, tmp_path):
        for command in (
            "init --quiet",
            "-c user.name=A -c user.email=a@example.org commit --quiet --allow-empty -m x",
            "tag v1",
        ):
            subprocess.run(["git", *command.split()], cwd=tmp_path, check=True)
        found = {find_source(s) for s in (tmp_path, f"git+file://{tmp_path}@v1")}
        assert len({source.revision for source in found}) == 1
        for said in (
            f"git+file://{tmp_path}@gone",
            f"git+file://{tmp_path}/x",
            "git+https://a.test/b",
        ):
            with pytest.raises(CorpusError):
                find_source(said)

    @pytest.mark.parametrize(
        "said", ["gone.whl", "gone.tar.gz", "a/gone", "gone.parquet", "-r", "", "pypi:-r", "a b"]
    )
    def test_what_is_none(self, said):
        with pytest.raises(CorpusError, match=r"no such source|no package name"):
            find_source(said)

    def test_what_may_be_a_mistyped_path_is_no_package(self):
        with pytest.raises(CorpusError, match=r"no such file or folder; .* give pypi:data\.csv"):
            find_source("data.csv")
        assert find_source("pypi:zope.interface") == "zope.interface"

    def test_who_gives_a_license_means_a_folder(self, tmp_path, monkeypatch):
        monkeypatch.setattr(pypi, "fetch_wheel", lambda *_: pytest.fail("downloaded"))
        settings = Settings(license="MIT")
        with pytest.raises(CorpusError, match="there is no missing here: name what exists"):
            build_corpus(["missing"], tmp_path / "corpus", settings=settings)

    def test_what_is_downloaded_is_announced(self, index, tmp_path):
        told = []
        with pytest.raises(CorpusError, match="nothing is left of gone: no wheel of it"):
            build_corpus(
                ["gone", "pypi:gone"], tmp_path / "corpus", cache=tmp_path, announce=told.append
            )
        assert told == [["gone"]]

    def test_all_are_checked_before_anything_is_downloaded(self, tmp_path, monkeypatch):
        monkeypatch.setattr(pypi, "fetch_wheel", lambda *_: pytest.fail("downloaded"))
        with pytest.raises(CorpusError, match=r"gone\.whl"):
            build_corpus(["gone.whl"], tmp_path / "corpus", excluded=["alpha"])

    def test_a_name_without_a_wheel_says_so_when_it_is_opened(
        self, make_wheel, tmp_path, monkeypatch
    ):
        wheel = make_wheel("alpha", {"a.py": module(1)})

        def fetch(requirement, cache):
            if requirement == "gone":
                raise SetAside("no wheel of it")
            return wheel

        monkeypatch.setattr(pypi, "fetch_wheel", fetch)
        seen = []
        said = map(find_source, ["alpha", "gone", "pypi:alpha"])
        found = fetched(list(said), tmp_path, lambda *n: seen.append(n))
        assert [source.name for source in found] == ["alpha-1.0-py3-none-any.whl", "gone"]
        assert [file.path for file in found[0].open().records()] == ["a.py"]
        assert seen == [(0, 2), (1, 2)]
        with pytest.raises(CorpusError, match="no wheel of it"):
            found[1].open()

    def test_a_single_file_is_a_package_of_its_own(self, tmp_path):
        (tmp_path / "a.py").write_text("x = 1\n")
        (tmp_path / "b.py").write_text("y = 1\n")
        source = find_source(tmp_path / "a.py")
        assert isinstance(source, Source)
        assert [(f.path, f.content) for f in source.open().records()] == [("a.py", "x = 1\n")]

    def test_facts_change_with_the_content(self, tmp_path):
        (tmp_path / "a.py").write_text("x = 1\n")
        source = find_source(tmp_path)
        before = source.facts(SKIPPED_FOLDERS)
        assert source.facts(SKIPPED_FOLDERS) == before
        (tmp_path / "a.py").write_text("x = 12\n")
        assert source.facts(SKIPPED_FOLDERS) != before
        assert source.facts(SKIPPED_FOLDERS | {"x"}) == source.facts(SKIPPED_FOLDERS)


@given(st.text(max_size=20))
def test_a_name_never_looks_like_an_option_or_a_path(text):
    if is_name(text):
        assert not text.startswith("-")
        assert not set(text) & set("/\\ \n;@")
