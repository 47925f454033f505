"""From packages to clean, licensed, attributable training documents and their tokens."""
