"""What runs inside a sandbox: the standard library alone, nothing of the package."""
