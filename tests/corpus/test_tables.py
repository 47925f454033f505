import gzip
import json
import sys
from types import SimpleNamespace

import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from tinystarcoder.corpus import tables
from tinystarcoder.corpus.decoding import SetAside
from tinystarcoder.corpus.sources import File
from tinystarcoder.corpus.tables import open_dataset, open_table
from tinystarcoder.errors import CorpusError

ROWS = [
    {
        "content": "x = 1\r\n",
        "max_stars_repo_path": "src/a.py",
        "max_stars_repo_name": "ann/alpha",
        "max_stars_count": 42,
        "max_stars_repo_licenses": ["MIT", "Apache-2.0"],
    },
    {
        "content": "y = 2\n",
        "max_stars_repo_path": "b.py",
        "max_stars_repo_name": "ben/beta",
        "max_stars_count": None,
        "max_stars_repo_licenses": None,
    },
]
FILES = [
    File("src/a.py", "x = 1\n", "ann/alpha", "", "Apache-2.0 AND MIT", 42),
    File("b.py", "y = 2\n", "ben/beta"),
]


def shown(file: File) -> tuple[str, str]:
    content = file.content
    return file.path, f"<{content}>" if isinstance(content, SetAside) else content


def json_lines(rows) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


@pytest.mark.parametrize("name", ["t.parquet", "t.jsonl", "t.jsonl.gz", "t.jsonl.zst"])
def test_every_form_has_the_same_files(tmp_path, name):
    path = tmp_path / name
    if name == "t.parquet":
        parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    else:
        with pyarrow.output_stream(str(path), compression="detect") as stream:
            stream.write(json_lines(ROWS))
    table = open_table(path)
    assert table.claims is None
    assert list(table.records()) == FILES


def test_starcoderdata_has_no_licenses_and_a_corpus_has_its_own_columns(tmp_path):
    path = tmp_path / "t.jsonl"
    own = {"content": "z = 3\n", "path": "c.py", "package": "gamma", "version": "1.0"}
    path.write_bytes(
        json_lines(
            [{k: v for k, v in ROWS[0].items() if "licenses" not in k}, own | {"license": "ISC"}]
        )
    )
    assert list(open_table(path).records()) == [
        File("src/a.py", "x = 1\n", "ann/alpha", stars=42),
        File("c.py", "z = 3\n", "gamma", "1.0", "ISC"),
    ]


def test_rows_that_cannot_be_used_cost_themselves(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "MAX_ROW_BYTES", 1000)
    path = tmp_path / "t.jsonl"
    lines = [
        b"no json",
        b"[1]",
        b"[" * 900,
        json.dumps({"content": 7}).encode(),
        json.dumps({"content": "x\0"}).encode(),
        b'{"content": "\\ud800"}',
        json.dumps({"content": "#" * 5000}).encode(),
        b"",
        json.dumps({"content": "x = 1\n", "path": "n.ipynb"}).encode(),
        json.dumps({"content": "x = 1\n", "license": "no such license"}).encode(),
    ]
    path.write_bytes(b"\n".join(lines))
    found = list(open_table(path).records())
    assert [shown(file)[1] for file in found] == [
        "<broken row>",
        "<broken row>",
        "<broken row>",
        "<broken row>",
        "<NUL bytes>",
        "<wrong encoding>",
        "<larger than 16 MiB>",
        "<not a notebook>",
        "x = 1\n",
    ]
    assert (found[-1].path, found[-1].license) == ("row-8.py", "")


@pytest.mark.parametrize("said", [float("nan"), float("inf"), "many", [3], 10**30, -1])
def test_stars_that_are_no_number_are_not_known(tmp_path, said):
    path = tmp_path / "t.jsonl"
    path.write_bytes(json_lines([{"content": "x = 1\n", "stars": said}]))
    assert list(open_table(path).records()) == [File("row-0.py", "x = 1\n")]


@pytest.mark.parametrize("said", [5, True, {"MIT": 1.5}, [["MIT"]]])
def test_a_license_that_is_no_text_is_none(tmp_path, said):
    path = tmp_path / "t.jsonl"
    path.write_bytes(json_lines([{"content": "x = 1\n", "license": said}]))
    assert list(open_table(path).records()) == [File("row-0.py", "x = 1\n")]


def test_names_that_no_utf8_file_can_hold_are_mended(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text('{"content": "x = 1\\n", "path": "\\ud800.py", "package": "a\\udfffb"}\n')
    assert list(open_table(path).records()) == [File("\ufffd.py", "x = 1\n", "a\ufffdb")]


@pytest.mark.parametrize("name", ["t.parquet", "t.jsonl.gz", "t.jsonl.zst"])
@pytest.mark.parametrize("kept", [0, 20, 0.5])
def test_broken_tables_are_one_error(tmp_path, name, kept):
    path = tmp_path / name
    if name == "t.parquet":
        parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    else:
        with pyarrow.output_stream(str(path), compression="detect") as stream:
            stream.write(json_lines(ROWS * 5000))
    data = path.read_bytes()
    cut = kept if kept > 1 else int(len(data) * kept)
    path.write_bytes(b"garbage" + data[:cut] if kept == 20 else data[:cut])
    if cut == 0 and name != "t.parquet":
        assert list(open_table(path).records()) == []
        return
    with pytest.raises(CorpusError, match=f"{name}: cannot be read as a table"):
        list(open_table(path).records())


def test_a_table_without_code(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_bytes(json_lines([{"text": "x = 1"}]))
    with pytest.raises(CorpusError, match=r"t\.jsonl: no column 'content' but text"):
        list(open_table(path).records())


class TestDatasets:
    def test_by_name_streamed(self, monkeypatch):
        asked = []

        def load_dataset(name, **options):
            asked.append((name, options))
            return iter(ROWS)

        monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
        assert list(open_dataset("bigcode/starcoderdata", "main").records()) == FILES
        options = {"revision": "main", "split": "train", "streaming": True}
        assert asked == [("bigcode/starcoderdata", options)]

    def test_out_of_reach_is_one_error(self, monkeypatch):
        def load_dataset(name, **options):
            raise ConnectionError("cannot reach it\nsecond line")

        monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
        with pytest.raises(CorpusError, match=r"^hf:a/b: cannot be read: cannot reach it$"):
            list(open_dataset("a/b").records())

    def test_without_the_package(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "datasets", None)
        with pytest.raises(CorpusError, match="pip install datasets"):
            open_dataset("a/b")

    def test_the_real_package_on_a_local_folder(self, tmp_path, monkeypatch):
        pytest.importorskip("datasets", reason="the datasets package is not installed")
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
        (tmp_path / "data").mkdir()
        parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "data" / "train.parquet")
        assert list(open_dataset(str(tmp_path / "data")).records()) == FILES


@given(st.binary(max_size=300))
def test_any_bytes_are_rows_or_one_error(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("t") / "t.jsonl"
    path.write_bytes(data)
    for row in tables.rows_of(path):
        assert isinstance(row, (dict, SetAside))
    path.with_suffix(".jsonl.gz").write_bytes(gzip.compress(data))
    with pytest.raises(CorpusError):
        path = path.with_suffix(".parquet")
        path.write_bytes(data)
        list(tables.rows_of(path))
