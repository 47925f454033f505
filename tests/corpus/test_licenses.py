import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinystarcoder.corpus.licenses import (
    PERMISSIVE,
    LicenseClaims,
    canonical,
    decide,
    header_license,
    header_reason,
    identifiers,
    is_permissive,
    license_of_text,
)
from tinystarcoder.errors import CorpusError

MIT = "(c) Someone\n\nPermission is hereby granted, free of charge, to any\nperson obtaining a copy"
BSD2 = "Redistribution and use in source and binary forms, with or without\nmodification"
BSD3 = f"{BSD2} ... Neither the name of the copyright holder may be used"
APACHE = "                 Apache License\n           Version 2.0, January 2004\n"
GPL = "GNU GENERAL PUBLIC LICENSE\nVersion 3, 29 June 2007"
LGPL = "GNU LESSER GENERAL PUBLIC LICENSE\nVersion 3, 29 June 2007"
ISC = (
    "Permission to use, copy, modify, and/or distribute this software for any purpose with or "
    "without fee is hereby granted, provided that the above copyright notice"
)


class TestTexts:
    @pytest.mark.parametrize(
        ("text", "spdx"),
        [
            (MIT, "MIT"),
            (BSD2, "BSD-2-Clause"),
            (BSD3, "BSD-3-Clause"),
            (APACHE, "Apache-2.0"),
            (GPL, "GPL-1.0-or-later"),
            (LGPL, "LGPL-2.0-or-later"),
            (ISC, "ISC"),
            (ISC.partition(", provided")[0], "0BSD"),
            ("Mozilla Public License Version 2.0", "MPL-2.0"),
            ("All rights reserved.", None),
            ("", None),
        ],
    )
    def test_telling_phrases(self, text, spdx):
        assert license_of_text(text) == spdx

    def test_the_first_license_is_the_package_s_own(self):
        assert license_of_text(f"{BSD3}\n\nThis wheel bundles libfoo:\n{GPL}") == "BSD-3-Clause"
        assert license_of_text(f"{GPL}\n\nParts are under:\n{MIT}") == "GPL-1.0-or-later"


class TestDecisions:
    @pytest.mark.parametrize(
        ("claims", "license_"),
        [
            (LicenseClaims(expression="mit"), "MIT"),
            (LicenseClaims(expression="Apache-2.0 AND MIT"), "Apache-2.0 AND MIT"),
            (LicenseClaims(expression="GPL-3.0-only OR MIT"), "GPL-3.0-only OR MIT"),
            (LicenseClaims(free_text="Apache License, Version 2.0"), "Apache-2.0"),
            (LicenseClaims(free_text="The MIT License (MIT)"), "MIT"),
            (LicenseClaims(free_text="BSD 3-Clause License"), "BSD-3-Clause"),
            (LicenseClaims(free_text=MIT * 5), "MIT"),
            (LicenseClaims(classifiers=("License :: OSI Approved :: ISC License (ISCL)",)), "ISC"),
            # Two classifiers may mean "both": then both must be permissive.
            (
                LicenseClaims(
                    classifiers=(
                        "License :: OSI Approved :: MIT License",
                        "License :: OSI Approved :: Apache Software License",
                    )
                ),
                "Apache-2.0 AND MIT",
            ),
            # "BSD" is either; the text says which.
            (LicenseClaims(free_text="BSD"), "BSD-2-Clause OR BSD-3-Clause"),
            (LicenseClaims(free_text="BSD", files=(("LICENSE", BSD3),)), "BSD-3-Clause"),
            (LicenseClaims(free_text="BSD", files=(("LICENSE", BSD2),)), "BSD-2-Clause"),
            (LicenseClaims(files=(("LICENSE", APACHE),)), "Apache-2.0"),
            # A bundled library's license after the package's own.
            (LicenseClaims(expression="MIT", files=(("LICENSE", MIT + GPL),)), "MIT"),
        ],
    )
    def test_taken(self, claims, license_):
        verdict = decide(claims)
        assert (verdict.license, verdict.reason) == (license_, None)

    @pytest.mark.parametrize(
        ("claims", "reason"),
        [
            (LicenseClaims(), "unknown"),
            (LicenseClaims(free_text="Free for friends"), "unknown: 'Free for friends'"),
            (LicenseClaims(expression="no such license"), "no SPDX expression"),
            (LicenseClaims(expression="GPL-3.0-or-later"), "not permissive: GPL-3.0-or-later"),
            (LicenseClaims(expression="MPL-2.0 AND MIT"), "not permissive"),
            (LicenseClaims(free_text="GPLv3"), "not permissive"),
            (LicenseClaims(files=(("COPYING", GPL),)), "not permissive"),
            (LicenseClaims(free_text="Proprietary"), "unknown"),
            (
                LicenseClaims(
                    free_text="MIT",
                    classifiers=(
                        "License :: OSI Approved :: GNU General Public License v3 (GPLv3)",
                    ),
                ),
                "not permissive",
            ),
            (LicenseClaims(expression="MIT", files=(("COPYING", GPL),)), "COPYING is GPL"),
            (LicenseClaims(expression="MIT", files=(("LICENSE", APACHE),)), "LICENSE is Apache"),
            (
                LicenseClaims(expression="MIT", files=(("LICENSE", MIT), ("LICENSE.x", LGPL))),
                "LICENSE.x is LGPL",
            ),
        ],
    )
    def test_set_aside(self, claims, reason):
        verdict = decide(claims)
        assert verdict.reason is not None
        assert reason in verdict.reason
        assert verdict.license == ""

    def test_the_fallback_is_for_those_who_say_nothing(self):
        assert decide(LicenseClaims(), "PSF-2.0").license == "PSF-2.0"
        assert decide(LicenseClaims(expression="MIT"), "PSF-2.0").license == "MIT"
        assert decide(LicenseClaims(files=(("LICENSE", ISC),)), "PSF-2.0").license == "ISC"
        assert decide(LicenseClaims(), "GPL-3.0-only").reason is not None


NODES = st.recursive(
    st.sampled_from(["MIT", "ISC", "GPL-3.0-only", "MPL-2.0", "Apache-2.0 WITH LLVM-exception"]),
    lambda inner: st.tuples(inner, st.sampled_from(["AND", "OR"]), inner).map(
        lambda parts: f"({' '.join(parts)})"
    ),
    max_leaves=8,
)


class TestExpressions:
    @given(NODES)
    def test_or_needs_one_and_and_needs_all(self, expression):
        def truth(name):
            return str(name[0].removesuffix(" WITH LLVM-exception") in PERMISSIVE)

        oracle = re.sub(r"[A-Z][\w.-]*-[\w.-]+(?: WITH LLVM-exception)?|MIT|ISC", truth, expression)
        oracle = oracle.replace("AND", "and").replace("OR", "or")
        assert is_permissive(canonical(expression)) == eval(oracle)

    def test_and_binds_tighter(self):
        assert is_permissive("MIT OR GPL-3.0-only AND GPL-2.0-only")
        assert not is_permissive("(MIT OR GPL-3.0-only) AND GPL-2.0-only")

    def test_the_allow_list_is_spdx_and_holds_no_copyleft(self):
        assert all(canonical(spdx) == spdx for spdx in PERMISSIVE)
        assert not any(re.match(r"[AL]?GPL|MPL|EPL|EUPL|CC-BY", spdx) for spdx in PERMISSIVE)

    def test_no_expression(self):
        with pytest.raises(CorpusError, match="no SPDX expression"):
            canonical("free as in beer")


class TestHeaders:
    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ("# SPDX-License-Identifier: MIT\n", None),
            ("# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only\n", None),
            ("# SPDX-License-Identifier: GPL-2.0-only\n", "license header not permissive"),
            ("/* SPDX-License-Identifier: LGPL-2.1-or-later */", "license header not permissive"),
            ('tag = "SPDX-License-Identifier: %s"\n', None),
            ("# under the terms of the GNU General Public License\n", "copyleft header"),
            ("# terms of the GNU\n# Lesser General Public License\n", "copyleft header"),
            (
                '"""This Source Code Form is under the Mozilla Public\nLicense."""',
                "copyleft header",
            ),
            ("x = 1\n" * 1000 + "# GNU General Public License\n", None),
            ("import re\n", None),
        ],
    )
    def test_headers(self, text, reason):
        assert header_reason(text) == reason


@given(st.lists(st.sampled_from(["MIT", "ISC", "Apache-2.0", "GPL-3.0-only", "no license"])))
def test_a_files_license_is_what_its_tags_say(tags):
    text = "".join(f"# SPDX-License-Identifier: {tag}\n" for tag in tags) + "x = 1\n"
    known = set(tags) - {"no license"}
    license_ = header_license(text)
    assert identifiers(license_ or "") == known
    assert (header_reason(text) is None) == (license_ is None or is_permissive(license_))
