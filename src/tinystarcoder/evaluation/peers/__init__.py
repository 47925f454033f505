"""Other people's models and servers, through the same tasks."""
