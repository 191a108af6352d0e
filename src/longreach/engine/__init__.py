"""Engines: prompts in, a stream of tokens out."""

from longreach.engine.engine import Engine, Stream
from longreach.engine.requests import Completion, Message, Piece, Prompt, Sampling

__all__ = ["Completion", "Engine", "Message", "Piece", "Prompt", "Sampling", "Stream"]
