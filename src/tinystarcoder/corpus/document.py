"""What a source yields and every stage takes: one Python file and where it comes from."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Document:
    """One file of one package. ``text`` has ``\\n`` line ends and always encodes as UTF-8."""

    text: str
    path: str
    """Path inside the package, with forward slashes."""
    package: str
    version: str
    license: str
    """SPDX expression."""
