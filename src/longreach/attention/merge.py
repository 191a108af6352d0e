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
    if len(parts) == 1:
        return parts[0]
    sums = torch.stack([lse for _, lse in parts])
    total = torch.logsumexp(sums, 0)
    weights = torch.exp(sums - total.clamp_min(torch.finfo(total.dtype).min))
    output = parts[0][0] * weights[0].unsqueeze(-1)
    for weight, (part, _) in zip(weights[1:], parts[1:], strict=True):
        output = output + part * weight.unsqueeze(-1)
    return output.to(parts[0][0].dtype), total


def with_sink(part: Part, sink: torch.Tensor) -> Part:
    """`part` as if there were one key more, with the score `sink` (broadcast to the log-sum-exp) and a value of zero:
    attention sinks that a model has learned (gpt-oss)."""
    output, lse = part
    total = torch.logaddexp(lse, sink.to(lse.dtype).expand_as(lse))
    return output * torch.exp(lse - total).unsqueeze(-1).to(output.dtype), total
