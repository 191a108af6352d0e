"""Putting together attention that was computed in parts, exactly."""

from __future__ import annotations

from collections.abc import Sequence

import torch

Part = tuple[torch.Tensor, torch.Tensor]
"""The output `[..., dim]` of attending to some keys, and the log-sum-exp `[...]` of their scores (-inf: no key)."""


def merge(parts: Sequence[Part]) -> Part:
    """The output and log-sum-exp of attending to the keys of all `parts` (Milakov & Gimelshein 2018, arXiv 1805.02867).

    Where no part has a key, the output is 0.
    """
    output, lse = parts[0]
    for other, its in parts[1:]:
        # The share of the first; not a number where both saw nothing.
        share = torch.sigmoid(lse - its).nan_to_num_(0.0)
        output = torch.lerp(other, output, share.unsqueeze(-1).to(output.dtype))
        lse = torch.logaddexp(lse, its)
    return output, lse


def with_sink(part: Part, sink: torch.Tensor) -> Part:
    """`part` as if there were one key more, with the score `sink` (broadcast to the log-sum-exp) and a value of zero:
    attention sinks that a model has learned (gpt-oss)."""
    output, lse = part
    total = torch.logaddexp(lse, sink.to(lse.dtype).expand_as(lse))
    return output * torch.exp(lse - total).unsqueeze(-1).to(output.dtype), total
