"""Where prompts are cut, and that each is completed and judged."""

from collections.abc import Iterable, Iterator

import pytest

from tinystarcoder.errors import CorpusError
from tinystarcoder.evaluation.generators import Ask, Written
from tinystarcoder.evaluation.held_out import Source
from tinystarcoder.evaluation.parse_rate import (
    MAX_CHARACTERS,
    Prompt,
    cut_prompts,
    parse_rate,
)
from tinystarcoder.verdict import judge

MODULE = '''"""A module."""

import os


@os.fspath
def first(x):
    """A docstring."""
    if x:
        return 1
    try:
        y = 2
    except OSError:
        y = (
            3,
            4,
        )
    return y


class Second:
    attribute = 1

    async def method(self):
        a = 1; b = 2
        return a
'''


def test_prompts_end_where_a_statement_begins() -> None:
    source = Source("p 1", (("m.py", MODULE),), ())
    lines = MODULE.split("\n")
    found = {}
    with pytest.raises(CorpusError, match="only 8 prompts"):
        cut_prompts([source], 99)
    for prompt in cut_prompts([source], 8):
        found[prompt.line] = lines[prompt.line - 1].strip()
        assert MODULE.startswith(prompt.text) and prompt.text.count("\n") == prompt.line - 1
        rest = "\n".join(lines[prompt.line - 1 :])
        assert judge(prompt.text, rest, ended=True).passed
    assert sorted(found.values()) == sorted(
        [
            '"""A docstring."""',
            "if x:",
            "return 1",
            "try:",
            "y = (",  # In the handler, where the try is closed; not inside of the try.
            "return y",
            "a = 1; b = 2",
            "return a",
        ]
    )


def long_file() -> str:
    functions = (f"def f{i}(x):\n    y = x + {i}\n    return y\n" for i in range(400))
    return "import os\n\n" + "\n\n".join(functions)


def test_a_far_prompt_starts_at_a_top_level_statement() -> None:
    source = Source("p 1", (("m.py", long_file()),), ())
    prompts = cut_prompts([source], 40)
    assert any(not prompt.text.startswith("import") for prompt in prompts)
    for prompt in prompts:
        assert len(prompt.text) <= MAX_CHARACTERS
        assert prompt.text.startswith(("import", "def f"))
        if prompt.text.startswith("def"):
            assert len(prompt.text) > MAX_CHARACTERS - 100  # The farthest that is near enough.


def test_a_function_too_long_for_its_place_gives_no_prompt() -> None:
    body = "".join(f"    value_{i} = {i}\n" for i in range(1000))
    source = Source("p 1", (("m.py", f"def f():\n{body}"),), ())
    prompts = cut_prompts([source], 100)
    assert max(len(prompt.text) for prompt in prompts) <= MAX_CHARACTERS


def test_prompts_are_the_same_for_every_model_and_spread() -> None:
    files = tuple((f"m{i}.py", long_file()) for i in range(5))
    sources = [Source("p 1", files, ()), Source("q 2", files, ())]
    prompts = cut_prompts(sources, 9, seed=3)
    assert prompts == cut_prompts(sources, 9, seed=3)
    assert prompts != cut_prompts(sources, 9, seed=4)
    assert [prompt.source for prompt in prompts] == ["p 1"] * 5 + ["q 2"] * 4
    assert len({(prompt.source, prompt.path) for prompt in prompts}) == 9


def test_files_that_are_no_python_3_give_no_prompts() -> None:
    source = Source("p 1", (("old.py", "def f():\n    print 'x'\n"), ("m.py", MODULE)), ())
    assert {prompt.path for prompt in cut_prompts([source], 8)} == {"m.py"}


def test_every_prompt_is_completed_and_judged() -> None:
    prompts = [Prompt("p 1", "m.py", 2, "def f(x):\n"), Prompt("p 1", "n.py", 2, "def g(y):\n")]
    answers = {"def f(x):\n": ("    return x\n    y", False), "def g(y):\n": ("    pass", True)}

    class Answers:
        def generate(self, asked: Iterable[Ask]) -> Iterator[list[Written]]:
            for ask in asked:
                assert ask.suffix is None and ask.options.max_tokens == 7
                yield [Written(*answers[ask.prefix])]

    results = list(parse_rate(prompts, Answers(), max_tokens=7))
    assert [result.prompt for result in results] == prompts
    assert [result.verdict.passed for result in results] == [True, False]
