"""Engines: prompts in, a stream of tokens out."""

from longreach.engine.engine import Engine, Stream
from longreach.engine.requests import ROOT, Completion, Message, Piece, Prompt, Sampling

__all__ = ["ROOT", "Completion", "Engine", "Message", "Piece", "Prompt", "Sampling", "Stream"]
