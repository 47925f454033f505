"""Everything that tinystarcoder raises on bad input, in one tree.

Each message is one line that names the cause (the file, tensor, option or
package) and the way out. The CLI prints it and exits with code 2.

    TinyStarcoderError
    ├── CheckpointError               a model folder that cannot be read or written
    │   ├── UnsafeCheckpointError     pickled weights: convert them to safetensors first
    │   └── UnsupportedArchitectureError
    ├── ModelNotFoundError            no such bundled name, folder or hub repository
    ├── TokenizerError                a vocabulary that is broken or does not fit its model
    ├── RequestError                  a prompt, a cursor or a sampling option out of range
    ├── BusyError                     more requests than an engine takes at once
    ├── CorpusError                   a source, a manifest or a token shard
    ├── RecipeError                   a training recipe
    ├── TrainingError                 a run that cannot start, go on or be resumed
    ├── EvaluationError               a benchmark's file, saved samples or a report
    │   └── SandboxError              nowhere to run model-written code safely
    └── MissingExtraError             a command that needs an extra, e.g. tinystarcoder[train]
"""


class TinyStarcoderError(Exception):
    """The root: catch it to catch whatever this package raises on purpose."""


class CheckpointError(TinyStarcoderError):
    """A checkpoint folder that is truncated, incomplete or inconsistent."""


class UnsafeCheckpointError(CheckpointError):
    """Weights in a pickle, which can run code when loaded. Never opened."""


class UnsupportedArchitectureError(CheckpointError):
    """A config.json of another architecture than GPTBigCode."""


class ModelNotFoundError(TinyStarcoderError):
    """A name that is neither bundled, nor a folder, nor a reachable hub repository."""


class TokenizerError(TinyStarcoderError):
    """A tokenizer that cannot be read, or disagrees with the model's vocabulary."""


class RequestError(TinyStarcoderError):
    """A completion request that cannot be served as it was asked; ``field``: by what of it."""

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class BusyError(TinyStarcoderError):
    """More requests at once than are taken; the same one may be served later."""


class CorpusError(TinyStarcoderError):
    """A corpus source, a manifest or a token shard that cannot be used."""


class RecipeError(TinyStarcoderError):
    """A training recipe with a missing, unknown or impossible field."""


class TrainingError(TinyStarcoderError):
    """A training run that cannot start, go on or be resumed."""


class EvaluationError(TinyStarcoderError):
    """A benchmark's file, saved samples or a report that cannot be used."""


class SandboxError(EvaluationError):
    """No sandbox that works, so model-written code is not run."""


class MissingExtraError(TinyStarcoderError):
    """A part of the workshop whose dependencies are not installed."""

    def __init__(self, purpose: str, extra: str) -> None:
        super().__init__(f"{purpose} needs an extra: pip install 'tinystarcoder[{extra}]'")
        self.extra = extra
