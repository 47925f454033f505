import os
import zipfile
from pathlib import Path

import pytest

from tinystarcoder.corpus import sources
from tinystarcoder.corpus.decoding import SetAside, decode
from tinystarcoder.corpus.sources import open_package
from tinystarcoder.errors import CorpusError


def contents(path: Path) -> dict[str, str]:
    """Path to text, or to the reason in angle brackets."""
    files = open_package(path).files()
    return {name: f"<{text}>" if isinstance(text, SetAside) else text for name, text in files}


FILES = {"pkg/a.py": "x = 1\n", "pkg/data.json": "{}", "pkg/b.py": "y = 2\r\nz = 3\r"}
TEXTS = {"pkg/a.py": "x = 1\n", "pkg/b.py": "y = 2\nz = 3\n"}


class TestKinds:
    def test_wheel(self, make_wheel):
        package = open_package(make_wheel("alpha", FILES, version="2.1"))
        assert (package.name, package.version) == ("alpha", "2.1")
        assert dict(package.files()) == TEXTS
        assert package.claims.expression == "MIT"
        assert [name for name, _ in package.claims.files] == [
            "alpha-2.1.dist-info/licenses/LICENSE"
        ]

    @pytest.mark.parametrize("suffix", [".tar.gz", ".zip"])
    def test_sdist(self, make_sdist, suffix):
        package = open_package(make_sdist("alpha", FILES, version="2.1", suffix=suffix))
        assert (package.name, package.version) == ("alpha", "2.1")
        # Without the folder that everything in an sdist lies in.
        assert dict(package.files()) == TEXTS
        assert package.claims.free_text == "MIT"
        assert [name for name, _ in package.claims.files] == ["LICENSE"]

    def test_a_folder_with_a_pyproject(self, tmp_path):
        root = tmp_path / "somewhere"
        for name, text in FILES.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(text.encode())
        (root / "pyproject.toml").write_text(
            '[project]\nname = "beta"\nversion = "3"\nlicense = "ISC"\n'
        )
        package = open_package(root)
        assert (package.name, package.version) == ("beta", "3")
        assert package.claims.expression == "ISC"
        assert dict(package.files()) == TEXTS

    def test_a_bare_folder_is_named_after_itself(self, tmp_path):
        (tmp_path / "notes.py").write_text("x = 1\n")
        package = open_package(tmp_path)
        assert (package.name, package.version) == (tmp_path.name, "")

    def test_folders_of_others_are_not_entered(self, tmp_path):
        for folder in ("site-packages", "node_modules", "__pycache__", ".hidden", "test", "kept"):
            (tmp_path / folder).mkdir()
            (tmp_path / folder / "a.py").write_text("x = 1\n")
        skipped = sources.SKIPPED_FOLDERS | {"test"}
        assert [name for name, _ in open_package(tmp_path, skipped).files()] == ["kept/a.py"]

    @pytest.mark.parametrize("name", ["a.egg", "a.py", "wheel"])
    def test_anything_else_is_refused(self, tmp_path, name):
        (tmp_path / name).write_text("")
        with pytest.raises(CorpusError, match="neither a wheel"):
            open_package(tmp_path / name)

    def test_a_missing_source_is_named(self, tmp_path):
        with pytest.raises(CorpusError, match=r"gone\.whl: no such source"):
            open_package(tmp_path / "gone.whl")


class TestHostileArchives:
    @pytest.mark.parametrize(
        "name", ["../evil.py", "pkg/../../evil.py", "/etc/evil.py", "..\\evil.py", "C:\\evil.py"]
    )
    def test_path_traversal(self, make_wheel, name):
        found = contents(make_wheel(files={name: "x = 1\n", "ok.py": "y = 2\n"}))
        assert found.pop("ok.py") == "y = 2\n"
        assert list(found.values()) == ["<path traversal>"]

    def test_path_traversal_in_a_tar(self, make_sdist):
        found = contents(make_sdist(files={"../../evil.py": "x = 1\n", "ok.py": "y = 2\n"}))
        assert found == {"../../evil.py": "<path traversal>", "ok.py": "y = 2\n"}

    def test_symlink_in_a_wheel(self, make_wheel):
        path = make_wheel(files={"ok.py": "y = 2\n"})
        with zipfile.ZipFile(path, "a") as archive:
            link = zipfile.ZipInfo("link.py")
            link.external_attr = 0o120777 << 16
            archive.writestr(link, "/etc/passwd")
        assert contents(path) == {"ok.py": "y = 2\n", "link.py": "<symlink>"}

    def test_symlink_in_a_tar(self, make_sdist):
        found = contents(make_sdist(files={"link.py": None, "ok.py": "y = 2\n"}))
        assert found == {"link.py": "<symlink>", "ok.py": "y = 2\n"}

    @pytest.mark.skipif(not hasattr(os, "symlink"), reason="no symlinks here")
    def test_symlink_in_a_folder(self, tmp_path):
        (tmp_path / "secret").write_text("x = 1\n")
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder" / "link.py").symlink_to(tmp_path / "secret")
        (tmp_path / "folder" / "dangling.py").symlink_to(tmp_path / "gone")
        found = contents(tmp_path / "folder")
        assert found == {"link.py": "<symlink>", "dangling.py": "<symlink>"}

    def test_a_large_member_is_not_read(self, make_wheel, make_sdist, monkeypatch):
        monkeypatch.setattr(sources, "MAX_MEMBER_BYTES", 1000)
        files = {"big.py": "#" * 1001, "ok.py": "#" * 1000}
        for path in (make_wheel(files=files), make_sdist(files=files)):
            assert contents(path) == {"big.py": "<larger than 8 MiB>", "ok.py": "#" * 1000}

    def test_a_zip_bomb_is_refused_by_its_directory(self, make_wheel, monkeypatch):
        monkeypatch.setattr(sources, "MAX_ARCHIVE_BYTES", 100_000)
        path = make_wheel(files={f"{n}.py": "#" * 30_000 for n in range(4)})
        with pytest.raises(CorpusError, match=r"alpha-1\.0.*unpacks to more than"):
            open_package(path)

    def test_a_tar_bomb_is_refused_while_it_unpacks(self, make_sdist, monkeypatch):
        monkeypatch.setattr(sources, "MAX_ARCHIVE_BYTES", 100_000)
        path = make_sdist(files={"zeros.bin": bytes(10_000_000)})
        assert path.stat().st_size < 100_000
        with pytest.raises(CorpusError, match=r"alpha-1\.0.*unpacks to more than"):
            open_package(path)

    @pytest.mark.parametrize("name", ["broken.whl", "broken.tar.gz", "broken.zip"])
    @pytest.mark.parametrize("data", [b"", b"no archive at all", b"\x1f\x8b\x08\0\0\0\0\0"])
    def test_no_archive(self, tmp_path, name, data):
        said = "" if name.endswith(".tar.gz") else "File is not a zip file"
        (tmp_path / name).write_bytes(data)
        with pytest.raises(CorpusError, match=f"{name}: not a readable archive: {said}"):
            open_package(tmp_path / name)

    @pytest.mark.parametrize("kept", [0.2, 0.5, 0.9])
    def test_cut_archives(self, make_wheel, make_sdist, kept):
        files = {f"{n}.py": os.urandom(2000).hex() for n in range(20)}
        for path in (make_wheel(files=files), make_sdist(files=files)):
            data = path.read_bytes()
            path.write_bytes(data[: int(len(data) * kept)])
            with pytest.raises(CorpusError, match="not a readable archive"):
                open_package(path)

    def test_names_that_are_no_utf8(self, make_sdist, make_wheel):
        """In a tar they are bytes; a zip that calls them UTF-8 lies."""
        found = contents(make_sdist(files={"caf\udce9.py": "x = 1\n"}))
        assert found == {"caf\ufffd.py": "x = 1\n"}
        path = make_wheel(files={"caf\u00e9.py": "x = 1\n"})
        path.write_bytes(path.read_bytes().replace("\u00e9".encode(), b"\xc3("))
        with pytest.raises(CorpusError, match="not a readable archive"):
            open_package(path)

    def test_one_broken_member_costs_one_file(self, make_wheel):
        path = make_wheel(files={"bad.py": "x = 1\n" * 500, "ok.py": "y = 2\n"})
        with zipfile.ZipFile(path) as archive:
            offset = archive.getinfo("bad.py").header_offset + len("bad.py") + 32
        data = bytearray(path.read_bytes())
        data[offset] ^= 0xFF
        path.write_bytes(data)
        assert contents(path) == {"bad.py": "<broken archive member>", "ok.py": "y = 2\n"}


class TestDecoding:
    def test_utf8_and_its_byte_order_mark(self):
        assert decode("é = 1\n".encode()) == "é = 1\n"
        assert decode(b"\xef\xbb\xbfx = 1\n") == "x = 1\n"

    def test_a_coding_cookie_is_honored(self):
        text = "# -*- coding: latin-1 -*-\ns = 'é'\n"
        assert decode(text.encode("latin-1")) == text

    @pytest.mark.parametrize(
        "data",
        [
            b"s = '\xe9'\n",  # Latin-1 without a cookie.
            b"# coding: no-such-codec\n",
            b"# coding: hex\n6162\n",  # Not a text codec.
            b"# coding: ascii\ns = '\xe9'\n",
            b"\xef\xbb\xbf# coding: latin-1\n",  # Contradicts its byte order mark.
            b"# coding: raw_unicode_escape\ns = '\\ud800'\n",  # A lone surrogate.
            "x = 1\n".encode("utf-16")[2:].replace(b"\0", b"\x80"),
        ],
    )
    def test_wrong_encodings_are_set_aside(self, data):
        with pytest.raises(SetAside, match="wrong encoding"):
            decode(data)

    def test_nul_bytes_are_set_aside(self):
        with pytest.raises(SetAside, match="NUL bytes"):
            decode(b"x = 1\n\0")
