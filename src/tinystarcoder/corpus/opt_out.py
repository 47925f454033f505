"""Those who do not want to be in the corpus: a list that a build honors.

    packages = ["some-package"]                # in any version, however it is spelled
    repositories = ["owner/name", "owner/*"]   # as a data set of code names them
    paths = ["*/private/*.py"]                 # of "PACKAGE/PATH INSIDE IT"
    authors = ["ann@example.org"]              # in a package's metadata or a file's text

``*`` and ``?`` are wildcards everywhere but in an address; case does not matter.
"""

import re
import tomllib
from collections.abc import Sequence
from fnmatch import translate
from pathlib import Path

from packaging.utils import canonicalize_name

from ..errors import CorpusError
from .document import Document

REASON = "opted out"

KEYS = ("packages", "repositories", "paths", "authors")


class OptOuts:
    """A list that was read. A call is a filter over documents."""

    def __init__(
        self,
        packages: Sequence[str] = (),
        repositories: Sequence[str] = (),
        paths: Sequence[str] = (),
        authors: Sequence[str] = (),
    ) -> None:
        self._names = _any_of([*map(canonicalize_name, packages), *map(str.lower, repositories)])
        self._paths = _any_of(list(map(str.lower, paths)))
        self._authors = frozenset(map(str.lower, authors))
        addresses = "|".join(map(re.escape, sorted(self._authors)))
        self._addresses = re.compile(rf"(?<![\w.+-])(?:{addresses})(?![\w-])")

    def wants_out(self, package: str, authors: frozenset[str]) -> bool:
        """Whether a whole package is left out, by its name or by those who made it."""
        named = self._names.match(package.lower()) or self._names.match(canonicalize_name(package))
        return bool(named) or bool(authors & self._authors)

    def __call__(self, document: Document) -> str | None:
        """The reason to leave one document out."""
        if self.wants_out(document.package, frozenset()):
            return REASON
        if self._paths.match(f"{document.package}/{document.path}".lower()):
            return REASON
        # Most files hold no address at all.
        if self._authors and "@" in document.text and self._addresses.search(document.text.lower()):
            return REASON
        return None


def read_opt_outs(path: Path) -> OptOuts:
    """Reads a TOML list. Raises CorpusError where it is none: nobody may be passed over."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CorpusError(f"{path}: cannot be read as an opt-out list: {error}") from error
    for key, values in table.items():
        if key not in KEYS:
            raise CorpusError(f"{path}: unknown key {key!r}; known are {', '.join(KEYS)}")
        strings = isinstance(values, list) and all(isinstance(v, str) and v for v in values)
        if not strings:
            raise CorpusError(f"{path}: {key} must be a list of strings")
    return OptOuts(**table)


def _any_of(globs: Sequence[str]) -> re.Pattern[str]:
    return re.compile("|".join(map(translate, globs)) or r"(?!)", re.DOTALL)
