"""Natural ends, told at the first character that tells."""

import pytest

from tinystarcoder.completion.request import CompletionRequest, Mode
from tinystarcoder.completion.stopping import boundary, extent


def written(prefix: str, text: str, suffix: str = "", mode: Mode = "auto") -> tuple[str, int]:
    """What is kept of a text that comes character by character, and how many were needed."""
    allowed = extent(CompletionRequest(prefix, suffix, mode=mode))
    for length in range(1, len(text) + 1):
        end = boundary(allowed, text[:length])
        if end is not None:
            # Nothing that comes later changes it.
            assert all(boundary(allowed, text[:more]) == end for more in range(length, len(text)))
            return text[:end], length
    end = boundary(allowed, text, complete=True)
    return text[:end], len(text)


@pytest.mark.parametrize(
    ("prefix", "suffix", "is_block"),
    [
        ("x = ", "\n", False),
        ("x = 1\n", "\n", True),
        ("def f():\n    ", "", True),
        ("def f():", "\n", True),
        ("x = foo(", "\n", True),
        ("x = foo(", ")\n", False),
        ("x = foo(a, ", "\n", False),
        ("x = {'a':", "\n", False),
        ("    ", "x = 1\n", False),
        ("if x", ":\n", False),
    ],
)
def test_one_line_or_a_block(prefix: str, suffix: str, is_block: bool) -> None:
    assert extent(CompletionRequest(prefix, suffix)).is_block is is_block
    assert extent(CompletionRequest(prefix, suffix, mode="line")).is_block is False
    assert extent(CompletionRequest(prefix, suffix, mode="block")).is_block is True


def test_a_line_ends_with_the_line() -> None:
    assert written("x = ", "1\ny = 2") == ("1", 2)
    assert written("x = 1", "\ny = 2") == ("", 1)


@pytest.mark.parametrize(
    ("text", "needed"),
    [
        # The second line's first letter decides, unless it may begin a clause.
        ("return 1\n|    value = 2\n", "    v"),
        ("return 1\n|    elbow = 2\n", "    elb"),
        ("return 1\n    else:\n        return 2\n|    return 3\n", "    r"),
        ("return 1\n|else:\n    x\n", "else:"),
    ],
)
def test_as_soon_as_it_can_be_told(text: str, needed: str) -> None:
    kept, rest = text.split("|")
    assert written("def f(x):\n    if x:\n        ", kept + rest) == (
        kept.rstrip(),
        len(kept) + len(needed),
    )


def test_clauses_of_another_statement_are_not_taken() -> None:
    text = "pass\nelse:\n    z\n"
    assert written("for x in y:\n    ", text)[0] == text
    assert written("while x:\n    ", "pass\nexcept:\n    z\n")[0] == "pass"
    assert written("def f():\n    ", "pass\nelse:\n    z\n")[0] == "pass"
