"""What is kept of prefix and suffix: enough, whole lines, and the same from key to key."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from tinystarcoder.completion.context import BLOCK, LEAST_SNIPPETS, block_lines, fit, header
from tinystarcoder.completion.request import Snippet
from tinystarcoder.tokenizer import Tokenizer

LINES = st.lists(st.sampled_from(["", "x = 1", "    return value", "é🙂", "def f(a, b):"]))
SIDES = st.tuples(LINES, st.sampled_from(["", "    ", "foo("])).map(
    lambda parts: "".join(f"{line}\n" for line in parts[0]) + parts[1]
)
ROOMS = st.integers(0, 400)


def kept(prefix: str, suffix: str, room: int, tokenizer: Tokenizer) -> tuple[str, str]:
    before, after = fit(prefix, suffix, room, tokenizer.encode)
    assert len(before) + len(after) <= room
    return tokenizer.decode(before), tokenizer.decode(after)


@given(prefix=SIDES, suffix=SIDES, room=ROOMS)
def test_whole_lines_next_to_the_cursor(
    tokenizer: Tokenizer, prefix: str, suffix: str, room: int
) -> None:
    before, after = kept(prefix, suffix, room, tokenizer)
    nearest = (prefix.splitlines(keepends=True) or [""])[-1]
    if before != prefix and len(tokenizer.encode(nearest)) <= room * 3 // 4:
        assert prefix.endswith(before) and before
        assert prefix[: -len(before)].endswith("\n")
    nearest = (suffix.splitlines(keepends=True) or [""])[0]
    if after != suffix and len(tokenizer.encode(nearest)) <= room // 4:
        assert suffix.startswith(after) and after.endswith("\n")


@given(prefix=SIDES, suffix=SIDES)
def test_what_fits_is_not_cut(tokenizer: Tokenizer, prefix: str, suffix: str) -> None:
    room = len(tokenizer.encode(prefix)) + len(tokenizer.encode(suffix))
    assert kept(prefix, suffix, room, tokenizer) == (prefix, suffix)


@given(room=st.integers(64, 4000))
def test_three_to_one(tokenizer: Tokenizer, room: int) -> None:
    line = "    return [name for name in os.listdir(path)]\n"
    before, after = fit(line * 2000, line * 2000, room, tokenizer.encode)
    step = block_lines(room) * len(tokenizer.encode(line))
    assert room // 4 - step <= len(after) <= room // 4
    assert room - room // 4 - 2 * step <= len(before)


def test_the_cut_moves_in_blocks(tokenizer: Tokenizer) -> None:
    """A hundred new lines at the cursor move the left cut thrice or four times, 32 lines each."""
    room, suffix = 3000, "\nend = 1\n"
    cuts = []
    for number in range(1000, 1100, 4):
        prefix = "".join(f"x = {line:04}\n" for line in range(number))
        before, _ = kept(prefix, suffix, room, tokenizer)
        cuts.append(len(prefix) - len(before))
    line = len("x = 0000\n")
    moves = [b - a for a, b in pairwise(cuts) if a != b]
    assert moves == [BLOCK * line] * len(moves)
    assert len(moves) in (3, 4)


@given(suffix=SIDES, room=st.integers(40, 400), typed=st.sampled_from(["x", "\n", "y = 2\n"]))
def test_a_key_before_the_cursor_keeps_the_suffix(
    tokenizer: Tokenizer, suffix: str, room: int, typed: str
) -> None:
    """Its cut is counted from the file's end, which typing does not move."""
    prefix = "value = 10\n" * 100
    suffix += "end = 1\n" * room  # More than its share of the room.
    _, before_key = kept(prefix, suffix, room, tokenizer)
    _, after_key = kept(prefix + typed, suffix, room, tokenizer)
    assert after_key == before_key


def test_a_line_beyond_the_room(tokenizer: Tokenizer) -> None:
    before, after = kept("a" * 500 + "b" * 30, "c" * 500, 40, tokenizer)
    assert before and set(before) == {"b"}
    assert after and set(after) == {"c"}
    assert kept("x", "y", 0, tokenizer) == ("", "")


SNIPPETS = st.lists(
    st.builds(Snippet, st.sampled_from(["", "b.py", "a\n# b.py"]), SIDES), max_size=4
)


@given(snippets=SNIPPETS, room=st.integers(0, 1200), path=st.sampled_from([None, "a.py"]))
def test_snippets_have_a_quarter_and_whole_lines(
    tokenizer: Tokenizer, snippets: list[Snippet], room: int, path: str | None
) -> None:
    ids = header(path, snippets, room, tokenizer.encode)
    text = tokenizer.decode(ids)
    assert len(ids) <= room // 4
    if room // 4 < LEAST_SNIPPETS or not any(snippet.text.strip() for snippet in snippets):
        assert not ids
    else:
        assert not ids or text.endswith("# Path: a.py\n" if path else "\n\n")
        known = {line for snippet in snippets for line in snippet.text.split("\n")}
        titles = {"# Path: b.py", "# Path: a # b.py", "# Path: a.py", ""}
        assert set(text.split("\n")) <= known | {line.rstrip() for line in known} | titles


def test_the_first_snippet_is_nearest_and_goes_last(tokenizer: Tokenizer) -> None:
    lines = [f"value = {number:03}\n" for number in range(60)]
    one, two = Snippet("one.py", "".join(lines[:4])), Snippet("two.py", "".join(lines))
    assert tokenizer.decode(header("a.py", [one, one], 2000, tokenizer.encode)) == (
        f"# Path: one.py\n{one.text}\n" * 2 + "# Path: a.py\n"
    )
    text = tokenizer.decode(header("a.py", [one, two], 1200, tokenizer.encode))
    assert text.endswith(f"\n\n# Path: one.py\n{one.text}\n# Path: a.py\n")
    cut = text.removeprefix("# Path: two.py\n").partition("\n\n")[0] + "\n"
    assert two.text.startswith(cut) and 4 < cut.count("\n") < 60
    assert header("a.py", [two, one], 400, tokenizer.encode)
    assert "one.py" not in tokenizer.decode(header("a.py", [two, one], 400, tokenizer.encode))
