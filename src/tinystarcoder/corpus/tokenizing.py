"""From a corpus to token shards: one task for each of its shards, then the index.

A tokenization that was killed and is started again keeps the shards that are
whole. The result is the same whatever the number of workers.
"""

import hashlib
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from operator import attrgetter
from pathlib import Path

from ..errors import CorpusError
from ..tokenizer import Tokenizer
from .bulk_encoding import CHECK_EVERY, BulkEncoder
from .docstrings import with_short_docstrings
from .document import Document, batches
from .parquet import MANIFEST, read_manifest, read_shard
from .steps import Progress, Step, run_steps
from .token_shards import (
    FORMAT,
    TokenShards,
    check_vocabulary,
    piece_file,
    write_index,
    write_piece,
)


@dataclass(frozen=True)
class Tokenization:
    """What is tokenized, by what, into what. The job of all STEPS."""

    corpus: Path
    tokenizer: Path
    """A folder with a tokenizer."""
    output: Path
    check_every: int = CHECK_EVERY
    short_docstrings: float = 0.0

    @cached_property
    def work(self) -> Path:
        """Where shards are written; changes with what they would hold."""
        vocabulary = Tokenizer.from_folder(self.tokenizer).to_json()
        facts = (self.corpus / MANIFEST).read_bytes() + f"{FORMAT} {vocabulary}".encode()
        if self.short_docstrings:
            facts += f" {self.short_docstrings}".encode()
        partial = self.output.with_name(self.output.name + ".partial")
        return partial / hashlib.sha256(facts).hexdigest()[:16]

    @cached_property
    def shards(self) -> list[str]:
        """The files of the corpus."""
        return [shard["file"] for shard in read_manifest(self.corpus)["shards"]]

    @property
    def pieces(self) -> list[Path]:
        """What is known of each token shard; written once the shard is whole."""
        return [piece_file(self.work, number) for number in range(len(self.shards))]

    @property
    def finished(self) -> list[Path]:
        """The token shards with their index."""
        return [self.output]


def _tokenize(job: Tokenization, task: int) -> None:
    documents: Iterable[Document] = read_shard(job.corpus / job.shards[task])
    if job.short_docstrings:
        documents = _with_short_docstrings(documents, job.short_docstrings)
    encode = _encoder(job.work, job.tokenizer, job.check_every)
    write_piece(batches(documents), encode, job.work, task)


def _with_short_docstrings(documents: Iterable[Document], share: float) -> Iterator[Document]:
    for document in documents:
        key = f"{document.package}/{document.path}"
        yield replace(document, text=with_short_docstrings(document.text, share, key))


@lru_cache(maxsize=1)
def _encoder(_: Path, tokenizer: Path, check_every: int) -> BulkEncoder:
    """One for all tasks of a worker; another where the vocabulary, which names ``work``, is."""
    return BulkEncoder(Tokenizer.from_folder(tokenizer), check_every)


def _index(job: Tokenization, _: int) -> None:
    whole = write_index(job.work, Tokenizer.from_folder(job.tokenizer), len(job.shards))
    whole.rename(job.output)
    shutil.rmtree(job.output.with_name(job.output.name + ".partial"), ignore_errors=True)


STEPS: Sequence[Step[Tokenization]] = (
    Step("tokenizing", attrgetter("pieces"), _tokenize),
    Step("indexing", attrgetter("finished"), _index),
)


def tokenize_corpus(
    corpus: Path,
    tokenizer: Path,
    output: Path,
    *,
    check_every: int = CHECK_EVERY,
    short_docstrings: float = 0.0,
    jobs: int = 1,
    progress: Progress | None = None,
) -> TokenShards:
    """Tokenizes a corpus folder into a new folder ``output``, which appears when it is whole.

    Of every ``check_every`` documents one is encoded by the tokenizers library too. A share
    ``short_docstrings`` of docstrings is cut to the first paragraph.

    Raises CorpusError where the output exists or cannot be written, there is no
    corpus, the vocabulary does not fit 16 bits, or the encoders differ.
    """
    if output.exists():
        raise CorpusError(f"{output}: exists; remove it or choose another --output")
    read_manifest(corpus)
    check_vocabulary(Tokenizer.from_folder(tokenizer))
    try:
        job = Tokenization(corpus, tokenizer, output, check_every, short_docstrings)
        run_steps(STEPS, job, jobs, progress)
    except OSError as error:
        raise CorpusError(f"{output}: cannot be written: {error}") from error
    return TokenShards.open(output)
