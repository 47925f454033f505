"""tinystarcoder: a small code model, from the corpus to the keystroke."""

__version__ = "0.1.0"
