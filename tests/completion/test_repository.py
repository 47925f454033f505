"""What other files say: what is imported is found, what is alike comes first, choices hold."""

import ast

from hypothesis import given
from hypothesis import strategies as st

from tinystarcoder.completion.repository import (
    ANCHOR,
    WINDOW,
    Neighbors,
    imported,
    signatures,
    similar,
)
from tinystarcoder.completion.request import Snippet

OTHERS = ["src/shop/cart.py", "src/shop/tax/__init__.py", "src/shop/tax/rates.py", "other/cart.py"]
HERE = "src/shop/main.py"

MODULE = '''\
"""A cart."""

import os

LIMIT = 3


@dataclass
class Cart(Base):
    """What a customer wants.

    More of it.
    """

    items: list[int]

    def add(self, item: int, *, count: int = 1) -> None:
        """Adds an item."""
        self.items += [item] * count

    def _hidden(self): ...


async def load(path):
    return Cart([])


def _private(): ...
'''


def test_imports_are_found_by_path() -> None:
    def found(text: str, path: str = HERE) -> dict[str, set[str]]:
        return {where: set(names) for where, names in imported(path, text, OTHERS).items()}

    assert found("from shop.cart import Cart, load as l\n") == {OTHERS[0]: {"Cart", "load"}}
    assert found("import shop.cart as c, json\n") == {OTHERS[0]: set()}
    assert found("from . import cart\n") == {OTHERS[0]: set()}
    assert found("    from .tax import (\n    rate,\n") == {OTHERS[1]: {"rate"}}
    assert found("from .tax import rates\n") == {OTHERS[1]: {"rates"}, OTHERS[2]: set()}
    assert found("from ..shop.cart import Cart\n") == {OTHERS[0]: {"Cart"}}
    assert found("import cart\n") == {OTHERS[0]: set()}  # The nearest of two.
    assert found("import cart\n", "other/main.py") == {OTHERS[3]: set()}
    assert found("from .missing import x\nimport os\nfrom . import (\nfrom import\n") == {}
    assert found("import shop.cart\nfrom shop.cart import Cart\n") == {OTHERS[0]: set()}


def test_signatures_are_python_without_bodies() -> None:
    assert signatures(MODULE) == (
        '@dataclass\nclass Cart(Base):\n    """What a customer wants."""\n    items: list[int]\n\n'
        "    def add(self, item: int, *, count: int=1) -> None:\n"
        '        """Adds an item."""\n\nasync def load(path):\n    ...'
    ).replace("\n\nasync", "\nasync")
    assert signatures(MODULE, frozenset({"_private"})) == "def _private():\n    ..."
    assert signatures("def broken(:\n") == signatures("\0") == signatures("(" * 5000) == ""


@given(text=st.text("aé\n\t ()[]:=.,#\"'\\\0\ud800def class import from", max_size=60))
def test_no_text_is_an_error(text: str) -> None:
    ast.parse(signatures(text))
    neighbors = Neighbors()
    neighbors.choose("a.py", text, text, [Snippet("b.py", text), Snippet("", text)])


def test_the_window_that_is_most_alike() -> None:
    filler = "".join(f"filler_{n} = unrelated_{n}\n" for n in range(3 * WINDOW))
    alike = "total_price = 0\nfor item in cart_items:\n    total_price += item.price * tax_rate\n"
    far = Snippet("far.py", "import sys\nprint(sys.argv)\n")
    near = Snippet("near.py", filler + alike * 6 + filler)
    prefix = "def price(cart_items, tax_rate):\n    total_price = 0\n    for item in cart_items:\n"
    (chosen,) = similar(prefix, [far, near])
    assert chosen.path == "near.py"
    assert alike in chosen.text
    assert len(chosen.text.splitlines()) <= WINDOW
    assert similar("", [near]) == ()
    assert len(similar(prefix, [Snippet(f"{n}.py", alike) for n in range(9)])) == 3


def test_a_choice_holds_while_one_types() -> None:
    one = Snippet("shop/one.py", "def total_price(cart_items): ...\n")
    two = Snippet("shop/two.py", "def other_name(): ...\n")
    neighbors, prefix = Neighbors(), "import shop.one\n\ntotal_price(cart_items"
    first = neighbors.choose("shop/main.py", prefix, "", [one, two])
    assert [snippet.path for snippet in first] == ["shop/one.py", "shop/one.py"]
    for typed in (")", ")\nother_name", ")\nother_name(total_price)\nother_name("):
        assert neighbors.choose("shop/main.py", prefix + typed, "", [one, two]) is first
    # What is imported now, the files themselves, and another place in the file change it.
    imports = "import shop.two\n" + prefix
    second = neighbors.choose("shop/main.py", imports, "", [one, two])
    assert "shop/two.py" in [snippet.path for snippet in second]
    assert neighbors.choose("shop/main.py", imports, "", [one]) == first
    moved = imports + "\n" * ANCHOR + "nothing_like_it"
    assert len(neighbors.choose("shop/main.py", moved, "", [one])) == 1
