"""Tokens as text, for log-probabilities."""

from __future__ import annotations

from collections.abc import Sequence

from longreach.engine import Engine, Logprob, TokenLogprobs
from longreach.serve.bodies.chat import Logprobs, TokenLogprob, TopLogprob
from longreach.serve.bodies.completions import TextLogprobs


class TokenTexts:
    """What single tokens spell: behind another token, since tokenizers drop a space that a text begins with."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._known: dict[int, str] = {}
        self._before: list[int] | None = None
        self._shown = 0

    def of(self, one: Logprob) -> str:
        """The text of a token; "" for a special one."""
        if one.token_id is None or one.text:
            return one.text
        if self._before is None:
            self._before = self._engine.tokenize("a")
            self._shown = len(self._engine.decode(self._before))
        if one.token_id not in self._known:
            self._known[one.token_id] = self._engine.decode([*self._before, one.token_id])[self._shown :]
        return self._known[one.token_id]

    def chat(self, told: Sequence[TokenLogprobs]) -> Logprobs:
        """As chat completions have them."""
        content = []
        for one in told:
            likeliest = [self._top(other) for other in one.likeliest]
            content.append(TokenLogprob(**self._top(one.chosen).model_dump(), top_logprobs=likeliest))
        return Logprobs(content=content)

    def text(self, told: Sequence[TokenLogprobs], offset: int = 0) -> TextLogprobs:
        """As completions have them; `offset` is the first token's place in the text."""
        tokens = [self.of(one.chosen) for one in told]
        places = []
        for token in tokens:
            places.append(offset)
            offset += len(token)
        return TextLogprobs(
            tokens=tokens,
            token_logprobs=[one.chosen.logprob for one in told],
            top_logprobs=[{self.of(other): other.logprob for other in one.likeliest} for one in told],
            text_offset=places,
        )

    def _top(self, one: Logprob) -> TopLogprob:
        text = self.of(one)
        spelled = None if "\ufffd" in text else list(text.encode("utf-8", "surrogatepass"))
        return TopLogprob(token=text, logprob=max(one.logprob, -9999.0), bytes=spelled)
