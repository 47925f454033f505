"""From a keystroke to a suggestion, over HTTP, beside llama.cpp's server; see README.md."""
