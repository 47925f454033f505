import ast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinystarcoder.corpus.docstrings import with_short_docstrings

FUNCTION = 'def f(x):\n    """Doubles.\n\n    :param x: what\n    """\n    return 2 * x\n'


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (FUNCTION, 'def f(x):\n    """Doubles."""\n    return 2 * x\n'),
        ('"""Sums.\n\nMore."""\n\nimport os\n', '"""Sums."""\n\nimport os\n'),
        ("class A:\n    '''\n    Begins\n    below.\n\n    More.\n    '''\n",
         "class A:\n    '''\n    Begins\n    below.\n    '''\n"),
        ('async def f():\n    """Über é\n    lines.\n\n    日本"""\n',
         'async def f():\n    """Über é\n    lines."""\n'),
        ('"""\n\n\nLate.\n\nMore.\n"""\n', '"""\n\n\nLate.\n"""\n'),
        ('x = "é"; y = """A.\n\nB."""\n', 'x = "é"; y = """A.\n\nB."""\n'),  # No docstring.
        ('def f():\n    """One.\n    Two.\n    """\n',
         'def f():\n    """One.\n    Two.\n    """\n'),
        ('def f():\n    r"""A.\n\n    B."""\n', 'def f():\n    r"""A.\n\n    B."""\n'),
        ('def f():\n    """A.\n\n    B.""" """C.\n\n    D."""\n',
         'def f():\n    """A.\n\n    B.""" """C.\n\n    D."""\n'),
        ('print "A"\n"""A.\n\nB."""\n', 'print "A"\n"""A.\n\nB."""\n'),  # Python 2.
        ('"""   """\n', '"""   """\n'),
        ("", ""),
    ],
)  # fmt: skip
def test_what_is_left(text, left):
    assert with_short_docstrings(text, 1.0, "p/a.py") == left


def test_no_share_changes_nothing_and_a_half_about_half():
    text = "".join(FUNCTION.replace("f(", f"f{n}(") for n in range(200))
    assert with_short_docstrings(text, 0.0, "p/a.py") == text
    half = with_short_docstrings(text, 0.5, "p/a.py")
    assert 70 < half.count('."""') < 130
    assert half == with_short_docstrings(text, 0.5, "p/a.py")
    assert half != with_short_docstrings(text, 0.5, "p/b.py")


LINE = st.sampled_from(["", "    Words.", "    é :param x:", "    ", "    >>> f('''a''')", "\\\\"])
DOCSTRING = st.lists(LINE, max_size=8).map("\n".join)


@given(st.lists(st.tuples(DOCSTRING, st.sampled_from(["'''", '"""'])), max_size=4))
def test_only_docstrings_change_and_twice_is_once(docstrings):
    text = "".join(
        f"def f{n}():\n    {quotes}{body.replace(quotes, '')}{quotes}\n    return {n}\n"
        for n, (body, quotes) in enumerate(docstrings)
    )
    once = with_short_docstrings(text, 1.0, "p/a.py")
    assert with_short_docstrings(once, 1.0, "p/a.py") == once
    assert once == text or len(once) < len(text)
    before, after = (ast.parse(each).body for each in (text, once))
    for ours, theirs in zip(before, after, strict=True):
        assert ast.dump(ours.body[1]) == ast.dump(theirs.body[1])
        # What is left is what it began with.
        whole, cut = (ast.get_docstring(node, clean=False) for node in (ours, theirs))
        assert whole.startswith(cut.rstrip())
