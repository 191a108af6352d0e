"""One prefill for every KV policy: what the questions of an example have in common is read once, exactly; then each
policy answers from there.

Whatever the policies and their order, each starts from the same pages, so that an answer does not depend on who else
was asked. A policy reads the tokens that it observes itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING

from longreach.evaluate.grid import Point
from longreach.evaluate.metrics.efficiency import Cost
from longreach.evaluate.prompt import STOPS, Form, prompt
from longreach.evaluate.respond import ModelRespondent, Response, start_afresh
from longreach.evaluate.tasks import Example, Question

if TYPE_CHECKING:
    from longreach.engine import Sampling
    from longreach.engine.paged import PagedEngine
    from longreach.kv.policies import Policy

FULL = "full"
"""In place of a policy: everything is kept."""


@dataclass
class SharedPrefill:
    """Answers examples under the policies that points name (`policy`). Times to the first token count the shared
    reading as if the policy had done it, and nothing is told as reused."""

    engine: PagedEngine
    form: Form = "text"

    def columns(self, point: Point) -> Mapping[str, str]:
        """What tells a point's lines from others."""
        policy = point.get("policy", FULL)
        alone = ModelRespondent(self.engine, self.form, "" if policy == FULL else policy)
        return {**alone.columns, "prefill": "shared"}

    def respond(self, example: Example, points: Sequence[Point]) -> Iterator[list[Response]]:
        """The responses of each point to the questions, as they come."""
        start_afresh(self.engine)
        prompts = [self.engine.encode(prompt(example, number, self.form)) for number in range(len(example.questions))]
        seconds = self._read(prompts)
        for point in points:
            kept = _policy(point.get("policy", FULL))
            yield [
                self._answer(ids, question, kept, seconds)
                for ids, question in zip(prompts, example.questions, strict=True)
            ]

    def _read(self, prompts: Sequence[list[int]]) -> float:
        """Read what all prompts begin with, in whole pages; the seconds that took."""
        from longreach.engine import Sampling

        common = sum(
            1 for _ in takewhile(lambda ids: len(set(ids)) == 1, zip(*(ids[:-1] for ids in prompts), strict=False))
        )
        whole = common - common % self.engine.pool.page_size
        if not whole:
            return 0.0
        return self.engine.start(prompts[0][:whole], Sampling(max_tokens=1)).finish().timing.total

    def _answer(self, ids: list[int], question: Question, policy: Policy, seconds: float) -> Response:
        done = self.engine.start(ids, self._sampling(question), policy=policy).finish()
        cost = Cost(
            ttft=seconds + done.timing.ttft,
            total=seconds + done.timing.total,
            prompt_tokens=done.usage.prompt_tokens,
            generated_tokens=done.usage.generated_tokens,
            kv_bytes=done.usage.kv_bytes,
        )
        return Response(done.text, cost)

    def _sampling(self, question: Question) -> Sampling:
        from longreach.engine import Sampling

        return Sampling(max_tokens=question.max_tokens, stop=STOPS if self.form == "text" else ())


def _policy(spec: str) -> Policy:
    """What keeps all is a policy too: the pages that it reads on top are its own, and nobody after it begins there."""
    from longreach.kv.policies import Policy, policies

    return Policy() if spec == FULL else policies.make(spec)
