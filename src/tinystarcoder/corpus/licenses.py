"""Which license a package is under, as an SPDX expression, and whether it is permissive.

A package states its license in up to four places: ``License-Expression``,
``License`` and the classifiers of its metadata, and the text of its license
files. :func:`decide` reads them all and takes the package only where what is
declared is permissive and agrees with the texts that lie beside it.

What it gives up: a license text is known by its telling phrase, not compared
word for word; a package whose license cannot be told is set aside, so some
permissive packages with unusual wordings are lost.
"""

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..errors import CorpusError, MissingExtraError

try:
    from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression
except ModuleNotFoundError as error:
    raise MissingExtraError("reading licenses", "corpus") from error

# The allow-list, a file that anyone can read. In an expression, OR needs one of these
# and AND needs all.
ALLOW_LIST = Path(__file__).with_name("permissive_licenses.txt")
PERMISSIVE = frozenset(
    line.split()[0]
    for line in ALLOW_LIST.read_text(encoding="utf-8").splitlines()
    if line.strip() and not line.startswith("#")
)

_EITHER_BSD = "BSD-2-Clause OR BSD-3-Clause"
_ANY_GPL = "GPL-1.0-or-later"
_ANY_LGPL = "LGPL-2.0-or-later"

# What people write in ``License`` and what the classifiers are called, in the
# normal form of `_plain`.
_ALIASES = {
    "mit": "MIT",
    "expat": "MIT",
    "mit expat": "MIT",
    "mit cmu": "MIT-CMU",
    "bsd": _EITHER_BSD,
    "new bsd": "BSD-3-Clause",
    "modified bsd": "BSD-3-Clause",
    "simplified bsd": "BSD-2-Clause",
    **{f"bsd {n}": f"BSD-{n}-Clause" for n in (2, 3)},
    **{f"{n} clause bsd": f"BSD-{n}-Clause" for n in (2, 3)},
    **{f"bsd {n} clause": f"BSD-{n}-Clause" for n in (2, 3)},
    "apache": "Apache-2.0",
    "apache software": "Apache-2.0",
    "apache 2": "Apache-2.0",
    "apache 2.0": "Apache-2.0",
    "apache v2": "Apache-2.0",
    "apache v2.0": "Apache-2.0",
    "apache version 2.0": "Apache-2.0",
    "apache software 2.0": "Apache-2.0",
    "apache software version 2.0": "Apache-2.0",
    "asl 2": "Apache-2.0",
    "asl 2.0": "Apache-2.0",
    "isc": "ISC",
    "isc iscl": "ISC",
    "psf": "PSF-2.0",
    "psfl": "PSF-2.0",
    "python software foundation": "PSF-2.0",
    "zlib": "Zlib",
    "zlib libpng": "Zlib",
    "unlicense": "Unlicense",
    "public domain": "LicenseRef-Public-Domain",
    "cc0": "CC0-1.0",
    "cc0 1.0 universal public domain dedication": "CC0-1.0",
    "boost software 1.0 bsl": "BSL-1.0",
    "historical permission notice and disclaimer hpnd": "HPND",
    "zope public": "ZPL-2.1",
    "mulan permissive software v2 mulanpsl 2.0": "MulanPSL-2.0",
    "university of illinois ncsa open source": "NCSA",
    "gpl": _ANY_GPL,
    "gplv2": "GPL-2.0-only",
    "gpl v2": "GPL-2.0-only",
    "gplv3": "GPL-3.0-only",
    "gpl v3": "GPL-3.0-only",
    "gnu general public gpl": _ANY_GPL,
    "gnu general public v2 gplv2": "GPL-2.0-only",
    "gnu general public v2 or later gplv2+": "GPL-2.0-or-later",
    "gnu general public v3 gplv3": "GPL-3.0-only",
    "gnu general public v3 or later gplv3+": "GPL-3.0-or-later",
    "lgpl": _ANY_LGPL,
    "gnu library or lesser general public lgpl": _ANY_LGPL,
    "gnu lesser general public v2 lgplv2": "LGPL-2.0-only",
    "gnu lesser general public v2 or later lgplv2+": "LGPL-2.0-or-later",
    "gnu lesser general public v3 lgplv3": "LGPL-3.0-only",
    "gnu lesser general public v3 or later lgplv3+": "LGPL-3.0-or-later",
    "gnu affero general public v3": "AGPL-3.0-only",
    "gnu affero general public v3 or later agplv3+": "AGPL-3.0-or-later",
    "mozilla public 2.0 mpl": "MPL-2.0",
    "mpl 2.0": "MPL-2.0",
    "other proprietary": "LicenseRef-Proprietary",
}

# A telling phrase of each license text, blanks folded and in lower case.
_PHRASES = (
    ("MIT", r"permission is hereby granted, free of charge, to any person obtaining a copy"),
    ("MIT", r"\b(?:the mit license|mit license|mit licensed)\b"),
    ("Apache-2.0", r"apache license,? version 2\.0"),
    ("BSD", r"redistribution and use in source and binary forms"),
    ("ISC", r"permission to use, copy, modify,? (?:and/or|and) distribute this software for any"),
    ("HPND", r"permission to use, copy, modify,? and distribute this software and its"),
    ("HPND", r"permission to use, copy, modify,? and distribute this .{0,40}documentation"),
    ("PSF-2.0", r"this license agreement is between|python software foundation license version 2"),
    ("Unlicense", r"this is free and unencumbered software released into the public domain"),
    ("CC0-1.0", r"\bcc0 1\.0 universal"),
    ("BSL-1.0", r"boost software license - version 1\.0"),
    ("Zlib", r"in no event will the authors be held liable for any damages arising from"),
    ("ZPL-2.1", r"zope public license \(zpl\) version 2\.1"),
    ("AGPL-3.0-or-later", r"gnu affero general public license"),
    ("LGPL-2.0-or-later", r"gnu (?:lesser|library) general public license"),
    ("GPL-1.0-or-later", r"gnu general public license"),
    ("MPL-2.0", r"mozilla public license"),
    ("EPL-2.0", r"eclipse public license"),
    ("EUPL-1.2", r"european union public licen[cs]e"),
    ("CC-BY-SA-4.0", r"creative commons attribution-sharealike"),
    ("CC-BY-NC-4.0", r"creative commons attribution-noncommercial"),
    ("BUSL-1.1", r"business source license"),
    ("SSPL-1.0", r"server side public license"),
)
_TEXTS = tuple((spdx, re.compile(phrase)) for spdx, phrase in _PHRASES)

_COPYLEFT_HEADER = re.compile(
    r"GNU\s+(?:#\s*)?(?:Affero\s+|Lesser\s+|Library\s+)?(?:#\s*)?General\s+(?:#\s*)?Public"
    r"|Mozilla\s+(?:#\s*)?Public\s+(?:#\s*)?License|CC[ -]BY-(?:SA|NC)|\b[AL]?GPLv[23]",
    re.IGNORECASE,
)
_SPDX_HEADER = re.compile(r"SPDX-License-Identifier:[ \t]*([^\n\"']+)")
# How much of a file counts as its header.
_HEADER_CHARACTERS = 3000


@dataclass(frozen=True)
class LicenseClaims:
    """Everything that a package says about its license."""

    expression: str = ""
    """``License-Expression`` of the metadata."""
    free_text: str = ""
    """``License`` of the metadata."""
    classifiers: tuple[str, ...] = ()
    """Classifiers, whole: ``License :: OSI Approved :: MIT License``."""
    files: tuple[tuple[str, str], ...] = ()
    """Name and text of each license file."""


@dataclass(frozen=True)
class Verdict:
    """An SPDX expression, or why the package is set aside."""

    license: str = ""
    reason: str | None = None


def decide(claims: LicenseClaims, fallback: str | None = None) -> Verdict:
    """The license that a package may be used under, or the reason why it is set aside.

    ``fallback``, an SPDX expression, holds for a package that says nothing at all.
    """
    texts = [(name, spdx) for name, text in claims.files if (spdx := license_of_text(text))]
    try:
        declared = _declared(claims)
    except InvalidLicenseExpression:
        return Verdict(reason=f"license unknown: {claims.expression[:80]!r} is no SPDX expression")
    if declared is None:
        declared = _joined(spdx for _, spdx in texts) or fallback
    if declared is None:
        said = " ".join(claims.free_text.split())[:60]
        return Verdict(reason=f"license unknown: {said!r}" if said else "license unknown")
    found = {spdx for _, spdx in texts}
    if declared == _EITHER_BSD and len(certain := found & identifiers(declared)) == 1:
        (declared,) = certain
    if not is_permissive(declared):
        return Verdict(reason=f"license not permissive: {declared}")
    for name, spdx in texts:
        if spdx not in PERMISSIVE and spdx.split("-")[0] not in _families(declared):
            return Verdict(reason=f"license disagrees: {declared} declared, {name} is {spdx}")
    if found and not {spdx.split("-")[0] for spdx in found} & _families(declared):
        name, spdx = texts[0]
        return Verdict(reason=f"license disagrees: {declared} declared, {name} is {spdx}")
    return Verdict(license=declared)


def canonical(expression: str) -> str:
    """An SPDX expression in its normal spelling. Raises CorpusError where it is none."""
    try:
        return str(canonicalize_license_expression(expression))
    except InvalidLicenseExpression as error:
        raise CorpusError(
            f"license {expression!r} is no SPDX expression; write e.g. MIT or PSF-2.0"
        ) from error


def is_permissive(expression: str) -> bool:
    """Whether a canonical SPDX expression grants what the allow-list does."""
    # An exception (WITH …) only ever adds permissions.
    bare = re.sub(r" WITH [^\s()]+", "", expression)
    return _Evaluation(re.findall(r"[()]|[^\s()]+", bare)).either()


def identifiers(expression: str) -> set[str]:
    """The license ids in an SPDX expression."""
    return set(re.findall(r"[^\s()]+", expression)) - {"AND", "OR", "WITH"}


def license_of_text(text: str) -> str | None:
    """The SPDX id of the license that a text gives first; None where it gives none known.

    Texts that bundle the licenses of others put their own first.
    """
    folded = " ".join(text.lower().split())
    hits = [(hit.start(), spdx) for spdx, phrase in _TEXTS if (hit := phrase.search(folded))]
    if not hits:
        return None
    start, spdx = min(hits)
    if spdx == "BSD":
        return _bsd_of(folded[start : start + 1500])
    if spdx == "ISC" and "provided that the above copyright notice" not in folded[start:][:400]:
        return "0BSD"
    return spdx


def header_reason(text: str) -> str | None:
    """Why a file inside a permissive package is set aside for its own header, if it is."""
    if any(not is_permissive(expression) for expression in _header_expressions(text)):
        return "license header not permissive"
    return "copyleft header" if _COPYLEFT_HEADER.search(text, 0, _HEADER_CHARACTERS) else None


def header_license(text: str) -> str | None:
    """The license that a file's own SPDX tags give; None where it has none."""
    return _joined(_header_expressions(text))


def _header_expressions(text: str) -> Iterator[str]:
    for tag in _SPDX_HEADER.findall(text, 0, _HEADER_CHARACTERS):
        # Whatever is no expression says nothing: a template, a program about licenses.
        with suppress(InvalidLicenseExpression):
            yield str(canonicalize_license_expression(tag.strip(" \t*#-/>")))


class _Evaluation:
    """Recursive descent over the tokens of a canonical SPDX expression."""

    def __init__(self, tokens: list[str]) -> None:
        self._rest = iter([*tokens, ""])
        self._token = next(self._rest)

    def either(self) -> bool:
        value = self._all()
        while self._token == "OR":
            self._advance()
            value = self._all() or value
        return value

    def _all(self) -> bool:
        value = self._one()
        while self._token == "AND":
            self._advance()
            value = self._one() and value
        return value

    def _one(self) -> bool:
        if self._token == "(":
            self._advance()
            value = self.either()
        else:
            value = self._token in PERMISSIVE
        self._advance()
        return value

    def _advance(self) -> None:
        self._token = next(self._rest)


def _declared(claims: LicenseClaims) -> str | None:
    """What the metadata declares, the newer field before the older ones."""
    if claims.expression:
        return str(canonicalize_license_expression(claims.expression))
    from_text = _of_free_text(claims.free_text)
    # A whole expression in ``License`` says how the classifiers belong together.
    if from_text and from_text != _EITHER_BSD and " OR " in from_text:
        return from_text
    declared = {from_text} if from_text else set()
    for classifier in claims.classifiers:
        name = classifier.split("::")[-1].strip()
        if classifier.startswith("License ::") and _plain(name) in _ALIASES:
            declared.add(_ALIASES[_plain(name)])
    if len(declared) > 1 and declared & {"BSD-2-Clause", "BSD-3-Clause"}:
        declared.discard(_EITHER_BSD)
    return _joined(declared)


def _of_free_text(text: str) -> str | None:
    """``License`` is a name, an expression, or a whole license text."""
    if not text.strip():
        return None
    if len(text) > 200 or text.strip().count("\n") > 1:
        return license_of_text(text)
    if alias := _ALIASES.get(_plain(text)):
        return alias
    try:
        return str(canonicalize_license_expression(text))
    except InvalidLicenseExpression:
        return None


def _plain(name: str) -> str:
    """A license's name without case, punctuation and the words that all of them have."""
    words = re.sub(r"[^a-z0-9.+]+", " ", name.lower()).split()
    kept = dict.fromkeys(w for w in words if w not in {"the", "license", "licence", "licensed"})
    return " ".join(kept)


def _joined(parts: Iterable[str]) -> str | None:
    unique = sorted(set(parts))
    if len(unique) <= 1:
        return unique[0] if unique else None
    return " AND ".join(f"({part})" if " OR " in part else part for part in unique)


def _families(expression: str) -> set[str]:
    """MIT, BSD, Apache …: texts of one family are told apart by details that people blur."""
    return set(_family_names(identifiers(expression)))


def _family_names(ids: Iterable[str]) -> Iterator[str]:
    for spdx in ids:
        family = spdx.split("-")[0]
        yield family
        # The Python license holds the PSF's; 0BSD and HPND are worded almost as ISC is.
        yield from {"Python": ["PSF"], "PSF": ["Python"], "HPND": ["ISC", "MIT"]}.get(family, [])
        yield from {"0BSD": ["ISC"], "ISC": ["0BSD", "HPND"], "MIT": ["HPND"]}.get(family, [])
        yield from {"LicenseRef": ["HPND", "ISC"], "BSD": ["0BSD"]}.get(family, [])


def _bsd_of(text: str) -> str:
    if "all advertising materials mentioning" in text:
        return "BSD-4-Clause"
    has_third_clause = re.search(r"endorse or promote|neither the name", text)
    return "BSD-3-Clause" if has_third_clause else "BSD-2-Clause"
