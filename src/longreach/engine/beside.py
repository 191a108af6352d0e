"""Passages side by side: all of them right behind what opens the prompt, as they were read."""

from __future__ import annotations

from collections.abc import Sequence

from longreach.kv.segment import Segment
from longreach.kv.temper import Temper


def side_by_side(opening: Segment, passages: Sequence[Segment], temper: Temper) -> list[Segment]:
    """The segments of a prompt in which every one of `passages` stands right behind `opening`, and the text goes on
    behind the longest; what follows attends to them with `temper`.

    That text keeps the place that it has in the prompt: `opening` and passages move to it instead, as far as passages
    stand beside the longest. Only how far tokens are from each other matters.
    """
    *others, longest = sorted(passages, key=len)
    moved = sum(map(len, others))
    opening.shift += moved
    for segment in passages:
        segment.shift = opening.end - segment.start
        segment.temper = temper
    return [opening, *others, longest]  # the last segment says where the text goes on
