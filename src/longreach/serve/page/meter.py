"""What an answer cost, drawn."""

from __future__ import annotations

from longreach.serve.page.elements import box, text
from longreach.serve.page.figures import counted, number, size, span
from longreach.serve.page.spent import shares
from longreach.types import Answer


def draw_meter(answer: Answer) -> None:
    """Tokens of the prompt by what became of them, times, memory."""
    told = shares(answer.usage)
    timing, usage = answer.timing, answer.usage
    with box("section", "meter") as whole:
        whole.props["aria-label"] = "What this answer cost"
        with box("dl", "figures"):
            _figure("First token", span(timing.ttft), "Time from the question to the first token of the answer")
            _figure("In all", span(timing.total), "Time from the question to the checked answer")
            _figure("Search", span(timing.search), "Time for finding the passages")
            _figure("KV memory", size(usage.kv_bytes), "Keys and values held at the end")
            _figure("Prompt", counted(told.prompt, "token"), "What the model was given to read")
            _figure("Answer", counted(usage.generated_tokens, "token"), "What the model wrote")
        parts = [
            ("held", told.held, "reused", "lay in pages"),
            ("loaded", told.loaded, "loaded", "from host memory or disk"),
            ("computed", told.computed, "computed", "for the first time"),
        ]
        with box("div", "bar") as bar:
            bar.props["role"] = "img"
            bar.props["aria-label"] = ", ".join(f"{number(count)} tokens {name}" for _, count, name, _ in parts)
            for kind, count, _, _ in parts:
                if count > 0:
                    box("span", kind).style(f"flex-grow: {count}")
        with box("ul", "legend"):
            for kind, count, name, how in parts:
                _entry(kind, count, name, how)
            _entry("recomputed", told.recomputed, "recomputed", "of what was reused or loaded")


def _figure(name: str, value: str, meaning: str) -> None:
    with box("div") as pair:
        pair.props["title"] = meaning
        text("dt", name)
        text("dd", value)


def _entry(kind: str, count: int, name: str, how: str) -> None:
    with box("li"):
        box("i", kind)
        text("b", number(count))
        text("span", name)
        text("small", how)
