import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinystarcoder.corpus.document import Document
from tinystarcoder.corpus.opt_out import REASON, OptOuts, read_opt_outs
from tinystarcoder.errors import CorpusError

LIST = """
packages = ["Some.Package", "ann-*"]
repositories = ["Ann/Private", "ben/*"]
paths = ["pkg/secret/*.py", "*/keep_out.py"]
authors = ["Ann@Example.org"]
"""


@pytest.fixture
def opt_outs(tmp_path) -> OptOuts:
    path = tmp_path / "opt-out.toml"
    path.write_text(LIST)
    return read_opt_outs(path)


@pytest.mark.parametrize(
    ("package", "path", "text", "out"),
    [
        ("some_package", "a.py", "", True),
        ("some-package2", "a.py", "", False),
        ("ann_tools", "a.py", "", True),
        ("joann_tools", "a.py", "", False),
        ("ann/private", "a.py", "", True),
        ("ann/public", "a.py", "", False),
        ("ben/anything", "a.py", "", True),
        ("pkg", "secret/deep/a.py", "", True),
        ("pkg", "secrets/a.py", "", False),
        ("pkg", "x/y/keep_out.py", "", True),
        ("pkg", "a.py", "# by ann@example.org\n", True),
        ("pkg", "a.py", "# by <ANN@EXAMPLE.ORG>.\n", True),
        ("pkg", "a.py", "# by joann@example.org or ann@example.organic\n", False),
        ("pkg", "a.py", "# ann at example.org\n", False),
    ],
)
def test_who_is_left_out(opt_outs, package, path, text, out):
    document = Document(text, path, package, "1.0", "MIT")
    assert opt_outs(document) == (REASON if out else None)


def test_a_package_is_left_out_by_its_name_or_its_authors(opt_outs):
    assert opt_outs.wants_out("Some-Package", frozenset())
    assert opt_outs.wants_out("other", frozenset({"ann@example.org", "ben@example.org"}))
    assert not opt_outs.wants_out("other", frozenset({"ben@example.org"}))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("packages = [", "cannot be read as an opt-out list"),
        ("package = ['a']", "unknown key 'package'; known are packages, repositories"),
        ("packages = 'a'", "packages must be a list of strings"),
        ("paths = [1]", "paths must be a list of strings"),
        ("authors = ['']", "authors must be a list of strings"),
    ],
)
def test_a_list_that_cannot_be_honored_is_an_error(tmp_path, text, message):
    path = tmp_path / "list.toml"
    path.write_text(text)
    with pytest.raises(CorpusError, match=message):
        read_opt_outs(path)


def test_a_missing_list_is_an_error(tmp_path):
    with pytest.raises(CorpusError, match=r"gone\.toml: cannot be read"):
        read_opt_outs(tmp_path / "gone.toml")


NAME = st.from_regex(r"[a-z][a-z0-9]{0,6}([-_.][a-z0-9]{1,4})?", fullmatch=True)


@given(NAME, NAME, st.lists(NAME, max_size=3))
def test_whoever_is_listed_is_out_and_nobody_else(listed, other, more):
    document = Document("x = 1\n", "a.py", listed.upper().replace("-", "_"), "1.0", "MIT")
    assert OptOuts(packages=[*more, listed])(document) == REASON
    assert OptOuts(paths=[f"{document.package}/*"])(document) == REASON
    names = {name.replace("_", "-").replace(".", "-") for name in (other, *more)}
    expected = REASON if listed.replace("_", "-").replace(".", "-") in names else None
    assert OptOuts(packages=[other, *more])(document) == expected
    assert OptOuts()(document) is None
