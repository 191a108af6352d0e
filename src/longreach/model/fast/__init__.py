"""A transformers model as a straight list of operations: the same numbers with less of Python between them.

`quicken` runs the model twice on a few tokens, writes down what it does, simplifies that, and checks the outcome
against the model itself. It knows no family: what a model's code does is what is written down.
"""
