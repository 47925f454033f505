"""What is kept of prefix and suffix: enough, whole lines, and the same from key to key."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinystarcoder.completion.context import BLOCK, LEAST_SNIPPETS, block_lines, fit, header
from tinystarcoder.completion.request import Snippet
from tinystarcoder.tokenizer import LineEncoder, Tokenizer

LINES = st.lists(st.sampled_from(["", "x = 1", "    return value", "é🙂", "def f(a, b):"]))
SIDES = st.tuples(LINES, st.sampled_from(["", "    ", "foo("])).map(
    lambda parts: "".join(f"{line}\n" for line in parts[0]) + parts[1]
)
ROOMS = st.integers(0, 400)


def kept(prefix: str, suffix: str, room: int, tokenizer: Tokenizer) -> tuple[str, str]:
    fitted = fit(prefix, suffix, room, tokenizer.encode)
    assert len(fitted.before) + len(fitted.after) <= room
    before, after = tokenizer.decode(fitted.before), tokenizer.decode(fitted.after)
    assert fitted.is_whole == ((before, after) == (prefix, suffix))
    return before, after


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
    fitted = fit(line * 2000, line * 2000, room, tokenizer.encode)
    step = block_lines(room) * len(tokenizer.encode(line))
    assert room // 4 - step <= len(fitted.after) <= room // 4
    assert room - room // 4 - 2 * step <= len(fitted.before)


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


@given(prefix=SIDES, room=st.integers(0, 400), copies=st.integers(1, 30))
def test_what_is_kept_is_what_fits_of_all(
    tokenizer: Tokenizer, prefix: str, room: int, copies: int
) -> None:
    """As if all of a long text were read: lines dropped in steps, or else one by one."""
    lines = (prefix * copies).splitlines(keepends=True)
    rests = [
        tokenizer.encode("".join(lines[dropped:]))
        for step in (block_lines(room), 1)
        for dropped in range(0, len(lines), step)
    ]
    expected = next((ids for ids in rests if len(ids) <= room), None)
    if expected is not None:
        assert fit(prefix * copies, "", room, tokenizer.encode).before == expected


@pytest.mark.parametrize("line", ["ab1+" * 5000, "=" * 20_000, "世" * 20_000])
@pytest.mark.parametrize("place", ["{line}\nx = 1\ny", "x = 1\n{line}", "{line}"])
def test_a_long_line_is_not_read_beyond_the_room(
    tokenizer: Tokenizer, place: str, line: str
) -> None:
    """Above the cursor it is left out, at the cursor its nearest part is kept."""
    room, read = 100, list[str]()

    def encode(text: str) -> list[int]:
        read.append(text)
        return tokenizer.encode(text)

    text = place.format(line=line)
    fitted = fit(text, text[::-1], room, encode)
    assert max(map(len, read)) <= 2 * 16 * room
    before, after = tokenizer.decode(fitted.before), tokenizer.decode(fitted.after)
    assert text.endswith(before) and text[::-1].startswith(after)
    assert not fitted.is_whole and (before == "x = 1\ny") == text.endswith("y")


def test_a_key_at_the_end_of_a_long_line_encodes_little(tokenizer: Tokenizer) -> None:
    encode, read = LineEncoder(tokenizer), list[str]()
    line = "".join(f"{number}, " for number in range(20_000))
    for typed in ("", "1"):
        read.clear()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tokenizer, "encode", lambda text: read.append(text) or [0])
            fit("x = [" + line + typed, "]\n", 1000, encode)
    assert 0 < sum(map(len, read)) < 500


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
