"""The NOTICE of a corpus: its packages, their versions, licenses and copyright lines.

What it gives up: copyright lines are those of a package's own license files, at
most :data:`LINES` of each package, without addresses; what single files say is
not gathered.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import CorpusError
from .licenses import LicenseClaims
from .sources import open_package

LINES = 5

_COPYRIGHT = re.compile(r"\W*copyright\b.*(?:\(c\)|©|\b(?:19|20)\d\d\b)", re.IGNORECASE)
_TEMPLATE = re.compile(r"[\[{<](?:yyyy|year|name|copyright)|copyright notice", re.IGNORECASE)
# A mail or web address with the brackets around it.
_ADDRESS = re.compile(r"\s*[<(]?[^\s<(\[]*(?:@|://)[^\s>)]*[>)]*")
_MAX_CHARACTERS = 200


def notice(manifest: dict[str, Any], sources: Sequence[Path] = ()) -> str:
    """The text of a NOTICE, from a corpus's manifest.

    Copyright lines are read from ``sources``, those that the corpus was built
    from; a source without license files, or not given, has none. Raises
    CorpusError for a source that the corpus does not know, or is broken.
    """
    entries = [entry for entry in manifest["packages"] if entry["files"]]
    copyrights: dict[str, list[str]] = {}
    known = {entry["source"] for entry in manifest["packages"]}
    for path in sources:
        if path.name not in known:
            raise CorpusError(f"{path}: the corpus was not built from it; leave it out")
        copyrights[path.name] = copyright_lines(open_package(path).claims)
    parts = [
        "Trained on the Python files of the packages below, under the licenses named. "
        "Their text\nis not part of this distribution; tinystarcoder attribute tells "
        "where generated text\nrepeats it.\n"
    ]
    for entry in sorted(entries, key=lambda entry: entry["package"].lower()):
        lines = [f"{entry['package']} {entry['version']}".strip() + f" ({entry['license']})"]
        lines += [f"    {line}" for line in copyrights.get(entry["source"], [])]
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def copyright_lines(claims: LicenseClaims) -> list[str]:
    """The first lines of the license files that name a holder, each once."""
    found: dict[str, None] = {}
    for _, text in claims.files:
        for line in text.splitlines():
            folded = " ".join(_ADDRESS.sub("", line).split()).strip("#*;/-, ")
            if len(folded) > _MAX_CHARACTERS or _TEMPLATE.search(folded):
                continue
            if _COPYRIGHT.match(folded):
                found.setdefault(folded)
    return list(found)[:LINES]
