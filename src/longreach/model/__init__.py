"""Models: checkpoints on disk or on the hub, made ready to run by transformers."""
