"""The architecture: its numbers, its files and its torch module."""
