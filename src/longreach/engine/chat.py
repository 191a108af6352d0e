"""Conversations as token ids, by the model's own chat template."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from longreach.engine.requests import Message
from longreach.errors import ModelError

_MARK = re.compile("\ue000(\\d+)\ue001")


def encode_chat(tokenizer: Any, messages: Sequence[Message]) -> list[int]:
    """The token ids of a conversation, up to where the assistant begins to speak.

    Special tokens are read as such in the template alone. In what people and documents say they are plain text, so that
    no document can end its own turn. A model without a template is given the turns as plain text.
    """
    text = render(tokenizer, messages)
    if not any(special in message.content for message in messages for special in _specials(tokenizer)):
        return list(tokenizer(text, add_special_tokens=not tokenizer.chat_template)["input_ids"])
    marked = [Message(message.role, f"\ue000{at}\ue001") for at, message in enumerate(messages)]
    ids: list[int] = []
    for at, part in enumerate(_MARK.split(render(tokenizer, marked))):
        said = at % 2 == 1
        words = messages[int(part)].content if said else part
        ids += tokenizer(words, add_special_tokens=False, split_special_tokens=said)["input_ids"]
    return ids


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


def _specials(tokenizer: Any) -> set[str]:
    added = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    return added | set(tokenizer.all_special_tokens)
