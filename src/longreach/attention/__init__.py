"""Attention over pages: `attend` is the definition, the other files are quicker equals of it.

Imported only where a model runs.
"""
