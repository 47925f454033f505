"""From a request to a suggestion: what stands between an editor and the model."""
