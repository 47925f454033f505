import ast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinystarcoder.corpus.license_headers import without_license_header

APACHE = """# Copyright 2024 The Authors
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
"""
CODE = '"""Says hello."""\n\n# A comment on the license of it all.\nprint("hello")\n'


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (APACHE + CODE, CODE),
        (APACHE + "\n\n" + CODE, CODE),
        ("\n\n" + APACHE + "\n" + CODE, CODE),
        ("#!/usr/bin/env python\n# -*- coding: utf-8 -*-\n" + APACHE + "\n" + CODE,
         "#!/usr/bin/env python\n# -*- coding: utf-8 -*-\n" + CODE),
        ("# What this module does.\n\n" + APACHE + "\n" + CODE,
         "# What this module does.\n\n" + CODE),
        (APACHE + "\n# What this module does.\n" + CODE, "# What this module does.\n" + CODE),
        ("# SPDX-License-Identifier: MIT\n" + CODE, CODE),
        (CODE, CODE),
        ("# What this module does.\n" + CODE, "# What this module does.\n" + CODE),
        (APACHE, ""),
        ("", ""),
        ("\n\n" + CODE, "\n\n" + CODE),
        ("x = 1\n" + APACHE, "x = 1\n" + APACHE),
    ],
)  # fmt: skip
def test_what_is_left(text, left):
    assert without_license_header(text) == left


LINE = st.sampled_from(
    ["", "#", "# words", "# Copyright Ann", "#!/bin/x", "# -*- coding: utf-8 -*-", "x = 1",
     '"""doc (c)"""', "if x:\n    # license\n    pass", "  "]
)  # fmt: skip


@given(st.lists(LINE, max_size=12).map("\n".join))
def test_code_stays_and_twice_is_once(text):
    once = without_license_header(text)
    assert without_license_header(once) == once
    assert ast.dump(ast.parse(once)) == ast.dump(ast.parse(text))
    assert once == text or len(once) < len(text)
