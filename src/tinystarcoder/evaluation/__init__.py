"""How good a model is: measurements over files that it was not trained on."""
