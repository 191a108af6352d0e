"""From logits to a token, a small pure function a file; `longreach.engine.sampling` puts them together.

All take logits [rows, vocab] in float32 and one value of their own for each row, and give new logits [rows, vocab].
What is cut becomes -inf. Cuts are made by value: tokens that are equally likely share their fate, so it depends neither
on their numbers nor on how a device happens to sort. Nothing waits for a CUDA device. Imported only where a model runs.
"""
