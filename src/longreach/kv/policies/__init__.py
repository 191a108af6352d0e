"""Policies: what to keep of the KV, and when. One method of the literature a file."""

from longreach.kv.policies.policy import LayerView, Policy, policies

__all__ = ["LayerView", "Policy", "policies"]
