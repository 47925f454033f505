"""A request says what is wrong with it."""

import math
from typing import Any

import pytest

from tinystarcoder.completion.request import CompletionRequest
from tinystarcoder.errors import RequestError


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"mode": "word"}, "mode 'word': must be one of line, block, auto"),
        ({"deadline": 0}, "deadline 0"),
        ({"deadline": -1.0}, "deadline -1.0"),
        ({"deadline": math.nan}, "deadline nan"),
        ({"deadline": math.inf}, "deadline inf"),
    ],
)
def test_out_of_range(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(RequestError, match=told):
        CompletionRequest("x", **fields)
