"""The request router that Ray Serve is given. Imported only where Ray is."""

from __future__ import annotations

import random
from typing import Any, Literal

from ray.serve.request_router import PendingRequest, ReplicaID, RequestRouter, RunningReplica

from longreach.serve.replicas.holdings import Holdings
from longreach.serve.replicas.task import Task
from longreach.serve.replicas.wanted import Wanted

ROOM = "kv_tokens"
"""What a replica calls the number of tokens that it has room for."""


class ChunkRouter(RequestRouter):
    """Sends a task to the replica that holds most of what it reads, unless others are that much less busy. `policy`
    "random" asks none of this: it is what the other is measured against."""

    def initialize_state(self, policy: Literal["chunks", "random"] = "chunks") -> None:  # type: ignore[override]
        self._policy = policy
        self._holdings = Holdings()
        self._draw = random.Random(0)

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """All replicas, one a rank: where the first takes no more, the next one is asked."""
        if pending_request is not None:
            pending_request.routing_context.should_backoff = True  # none is left out here: a second round must wait
        replicas = {replica.replica_id.unique_id: replica for replica in candidate_replicas}
        if self._policy == "random":
            names = list(replicas)
            self._draw.shuffle(names)
        else:
            for name, replica in replicas.items():
                if ROOM in replica.routing_stats:
                    self._holdings.set_room(name, replica.routing_stats[ROOM])
            names = self._holdings.order(replicas, _wanted(pending_request))
        return [[replicas[name]] for name in names]

    def on_request_routed(self, pending_request: PendingRequest, replica_id: ReplicaID, result: Any) -> None:
        request = pending_request.metadata.internal_request_id
        self._holdings.begin(replica_id.unique_id, request, _wanted(pending_request))

    def on_request_completed(self, replica_id: ReplicaID, internal_request_id: str) -> None:
        self._holdings.end(replica_id.unique_id, internal_request_id)

    def update_replicas(self, replicas: list[RunningReplica]) -> None:
        self._holdings.keep(replica.replica_id.unique_id for replica in replicas)
        super().update_replicas(replicas)


def _wanted(request: PendingRequest | None) -> Wanted:
    """What a request wants; nothing, where it is no task."""
    first = request.args[0] if request is not None and request.args else None
    return first.wanted if isinstance(first, Task) else Wanted(0)
