"""tinystarcoder: a small code model, from the corpus to the keystroke."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .errors import TinyStarcoderError as TinyStarcoderError
    from .generation.generate import Completion as Completion
    from .pretrained import Model as Model
    from .pretrained import load as load

__version__ = "0.1.0"

# Public name -> the module that defines it, imported when the name is first used.
_PUBLIC = {
    "Completion": "generation.generate",
    "Model": "pretrained",
    "TinyStarcoderError": "errors",
    "load": "pretrained",
}

__all__ = ["Completion", "Model", "TinyStarcoderError", "__version__", "load"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_PUBLIC[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
