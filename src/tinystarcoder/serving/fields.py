"""JSON at the edge: from bytes to typed values, each complaint with the field's name.

It gives up schemas: a dialect takes its fields one by one, and what is left
over is refused by name.
"""

import json
import math
from typing import Any, NoReturn

_DIGITS = 400
_NEUTRAL = {"presence_penalty": 0, "frequency_penalty": 0, "typical_p": 1, "mirostat": 0}


class FieldError(Exception):
    """A body or a field that cannot be served; ``field`` is its name, if it is one field."""

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class Fields:
    """A JSON object's fields, taken one by one. ``null`` is the same as absent."""

    def __init__(self, values: dict[str, Any], path: str = "") -> None:
        self._left = {name: value for name, value in values.items() if value is not None}
        self._path = path

    @classmethod
    def parse(cls, body: bytes) -> "Fields":
        """Raises FieldError for what is not UTF-8, not JSON, or no object."""
        try:
            values = json.loads(body.decode(), parse_constant=_refuse_constant, parse_int=_integer)
        except UnicodeDecodeError as error:
            raise FieldError(f"the body is not UTF-8: {error}") from error
        except RecursionError as error:
            raise FieldError("the body is nested too deeply") from error
        except ValueError as error:
            raise FieldError(f"the body is not JSON: {error}") from error
        if not isinstance(values, dict):
            raise FieldError("the body must be a JSON object")
        return cls(values)

    def text(self, name: str, default: str | None = None) -> str:
        """A string; required where it has no default."""
        value = self._left.pop(name, default)
        if value is None:
            self._fail(name, "is missing: it must be a string")
        if not isinstance(value, str):
            self._complain(name, "a string")
        return value

    def one_text(self, name: str) -> str:
        """A string, alone or the only one of a list; required."""
        value = self._left.get(name)
        if isinstance(value, list):
            if len(value) != 1 or not isinstance(value[0], str):
                self._complain(name, "a string, or a list of one")
            self._left[name] = value[0]
        return self.text(name)

    def integer(self, name: str, default: int, low: int, high: float = math.inf) -> int:
        """A whole number in a range."""
        value = self._left.pop(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            self._complain(name, f"a whole number {_range(low, high)}")
        return value

    def number(self, name: str, default: float, low: float, high: float = math.inf) -> float:
        """A number in a range."""
        value = self._left.pop(name, default)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not (is_number and low <= value <= high and abs(value) <= 1e300):
            self._complain(name, f"a number {_range(low, high)}")
        return float(value)

    def flag(self, name: str, default: bool = False) -> bool:
        """True or false."""
        value = self._left.pop(name, default)
        if not isinstance(value, bool):
            self._complain(name, "true or false")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of strings, or one alone; none where absent."""
        value = self._left.pop(name, ())
        values = [value] if isinstance(value, str) else value
        if not isinstance(values, list | tuple) or not all(isinstance(v, str) for v in values):
            self._complain(name, "a string or a list of strings")
        return tuple(values)

    def integers(self, name: str, low: int, high: int) -> list[int]:
        """A list of whole numbers in a range; required."""
        values = self._left.pop(name, None)
        if not isinstance(values, list) or not all(
            isinstance(v, int) and not isinstance(v, bool) and low <= v <= high for v in values
        ):
            self._complain(name, f"a list of whole numbers {_range(low, high)}")
        return values

    def inner(self, name: str) -> "Fields":
        """An object's own fields; none where absent."""
        value = self._left.pop(name, {})
        if not isinstance(value, dict):
            self._complain(name, "an object")
        return Fields(value, f"{self._path}{name}.")

    def inners(self, name: str) -> list["Fields"]:
        """A list of objects, each with fields of its own; none where absent."""
        values = self._left.pop(name, [])
        if not isinstance(values, list) or not all(isinstance(v, dict) for v in values):
            self._complain(name, "a list of objects")
        return [Fields(v, f"{self._path}{name}[{at}].") for at, v in enumerate(values)]

    def has(self, name: str) -> bool:
        """Whether the field is there, and not null."""
        return name in self._left

    def ignore(self, *names: str) -> None:
        """Drops fields that change nothing in the answer."""
        for name in names:
            self._left.pop(name, None)

    def expect(self, name: str, *allowed: object) -> None:
        """Drops a field that is served with these values alone."""
        value = self._left.pop(name, allowed[0])
        is_bool = isinstance(value, bool)  # To Python, true is 1.
        if not any(value == one and isinstance(one, bool) == is_bool for one in allowed):
            listed = " or ".join(json.dumps(one) for one in allowed)
            self._fail(name, f"is served as {listed} only")

    def expect_neutral(self) -> None:
        """Drops llama.cpp's options that change nothing as they stand, and are not served else."""
        for name, value in _NEUTRAL.items():
            self.expect(name, value)

    def refuse(self, *names: str) -> None:
        """Drops fields that are empty; refuses them otherwise."""
        for name in names:
            if self._left.pop(name, None):
                self._fail(name, "is not served here")

    def end(self) -> None:
        """Refuses whatever has not been taken."""
        for name in self._left:
            self._fail(name, "is not served here")

    def _complain(self, name: str, expected: str) -> NoReturn:
        self._fail(name, f"must be {expected}")

    def _fail(self, name: str, problem: str) -> NoReturn:
        shown = self._path + (name if len(name) <= 64 else name[:64] + "…")
        raise FieldError(f"{shown} {problem}", shown)


def _integer(digits: str) -> int:
    # Python refuses some thousands too, unless a library in the process has lifted that.
    if len(digits) > _DIGITS:
        raise ValueError(f"a number of more than {_DIGITS} digits")
    return int(digits)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _range(low: float, high: float) -> str:
    return f"from {low} on" if high == math.inf else f"from {low} to {high}"
