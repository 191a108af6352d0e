"""Engines: prompts in, a stream of tokens out."""

from longreach.engine.engine import Engine, Stream
from longreach.engine.requests import ROOT, Completion, Logprob, Message, Part, Piece, Prompt, Sampling, TokenLogprobs

__all__ = [
    "ROOT",
    "Completion",
    "Engine",
    "Logprob",
    "Message",
    "Part",
    "Piece",
    "Prompt",
    "Sampling",
    "Stream",
    "TokenLogprobs",
]
