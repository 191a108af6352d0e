"""Conversations as token ids, by the model's own chat template."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from longreach.engine.requests import Message, Part
from longreach.errors import ModelError


def encode_chat(tokenizer: Any, messages: Sequence[Message]) -> list[int]:
    """The token ids of a conversation, up to where the assistant begins to speak.

    Special tokens are read as such in the template alone: in what people and documents say they are pulled apart by a
    space, so that no document can end its own turn. A model without a template is given the turns as plain text.
    """
    specials = _specials(tokenizer)
    harmless = [Message(message.role, _pull_apart(message.content, specials)) for message in messages]
    text = render(tokenizer, harmless)
    return list(tokenizer(text, add_special_tokens=not tokenizer.chat_template)["input_ids"])


def chat_parts(tokenizer: Any, messages: Sequence[Message]) -> list[Part]:
    """The same conversation in parts: each passage, with the white space behind it, by itself. Its token ids are those
    of `encode_chat` but where a passage begins or ends in the middle of a token."""
    specials = _specials(tokenizer)
    harmless = [Message(message.role, _pull_apart(message.content, specials)) for message in messages]
    text = render(tokenizer, harmless)
    cuts, at = [], 0
    for shown in (_pull_apart(passage, specials) for message in messages for passage in message.passages):
        start = text.find(shown, at)
        if start < 0:
            continue  # the template changed it: it is read with the rest
        at = start + len(shown)
        at += len(text[at:]) - len(text[at:].lstrip())
        cuts.append((start, at))
    pieces, last = [], 0
    for start, end in cuts:
        pieces += [(text[last:start], False), (text[start:end], True)]
        last = end
    pieces.append((text[last:], False))
    parts = []
    for number, (piece, passage) in enumerate(pieces):
        opens = number == 0 and not tokenizer.chat_template
        if ids := tuple(tokenizer(piece, add_special_tokens=opens)["input_ids"]):
            parts.append(Part(ids, passage))
    return parts


def render(tokenizer: Any, messages: Sequence[Message]) -> str:
    """The conversation as text. Raises ModelError where the model's template does not take it."""
    if not tokenizer.chat_template:
        return plain(messages)
    from jinja2 import TemplateError

    try:
        return _apply(tokenizer, messages)
    except TemplateError as error:
        if len(messages) < 2 or messages[0].role != "system":
            raise ModelError(f"the model's chat template does not take this conversation: {error}") from None
    # Some templates know no system role: what it says then opens the first turn.
    opening = Message(messages[1].role, f"{messages[0].content}\n\n{messages[1].content}")
    return render(tokenizer, [opening, *messages[2:]])


def plain(messages: Sequence[Message]) -> str:
    """A conversation for models that were never taught one."""
    names = {"system": "", "user": "User: ", "assistant": "Assistant: "}
    turns = [names[message.role] + message.content for message in messages]
    return "\n\n".join([*turns, "Assistant:"])


def _apply(tokenizer: Any, messages: Sequence[Message]) -> str:
    turns = [{"role": message.role, "content": message.content} for message in messages]
    return str(tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False))


def _pull_apart(text: str, specials: set[str]) -> str:
    for special in specials:
        text = text.replace(special, f"{special[0]} {special[1:]}")
    return text


def _specials(tokenizer: Any) -> set[str]:
    added = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    return {special for special in added | set(tokenizer.all_special_tokens) if len(special) > 1}
