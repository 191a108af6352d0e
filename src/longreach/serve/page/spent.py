"""What became of a prompt's tokens, as shares of it."""

from __future__ import annotations

from dataclasses import dataclass

from longreach.types import Usage


@dataclass(frozen=True, slots=True)
class Shares:
    """Tokens of a prompt: `held` lay in pages, `loaded` came from host memory or disk, `computed` were computed for the
    first time; together they are the prompt. `recomputed`, of the first two, were computed again."""

    held: int
    loaded: int
    computed: int
    recomputed: int

    @property
    def prompt(self) -> int:
        return self.held + self.loaded + self.computed


def shares(usage: Usage) -> Shares:
    """The shares of what an answer cost."""
    return Shares(
        held=usage.reused_tokens - usage.loaded_tokens,
        loaded=usage.loaded_tokens,
        computed=usage.prompt_tokens - usage.reused_tokens,
        recomputed=usage.recomputed_tokens,
    )
