"""Training: recipe -> packed batches -> loss -> optimizer -> checkpoints. torch only here."""
