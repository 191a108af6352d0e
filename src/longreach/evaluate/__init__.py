"""Tasks and metrics: how good an answer, a search or a chunking is."""
