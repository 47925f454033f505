"""What a build of a corpus may be told, and what of it a manifest repeats."""

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import CorpusError


@dataclass(frozen=True)
class Settings:
    """Small and plain: it is sent to every worker."""

    license: str | None = None
    """SPDX expression of the sources that have no license of their own."""
    skipped: tuple[str, ...] = ()
    """Names of folders that are left out of folder sources, besides the usual ones."""
    near_dedup: bool = True
    redact: bool = False
    """Replace personal data and secrets, in the excluded sources too: copies stay copies."""
    strip_license_headers: bool = False
    """Take off comments at the top that tell of a license, in the excluded sources too."""
    min_quality: float = 0.0
    """Set aside what scores less: see ``quality.py``."""
    opt_out: str | None = None
    """The path of a list of those who want out: see ``opt_out.py``."""
    decontaminate: tuple[str, ...] = ()
    """The paths of benchmarks whose problems must not enter: see ``decontamination.py``."""

    def facts(self) -> dict[str, Any]:
        """Everything that a corpus depends on; of a file, its name and a hash of what it says.

        Raises CorpusError where a file cannot be read.
        """
        lists = {
            "opt_out": _file_facts(self.opt_out) if self.opt_out else None,
            "decontaminate": [_file_facts(path) for path in self.decontaminate],
        }
        return asdict(self) | lists


def _file_facts(path: str) -> dict[str, str]:
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise CorpusError(f"{path}: cannot be read: {error.strerror}") from error
    return {"file": Path(path).name, "sha256": hashlib.sha256(data).hexdigest()}
