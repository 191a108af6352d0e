"""Start replicas of an engine. Ray is imported when that is done."""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import secrets
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from longreach.engine import Engine
from longreach.errors import InputError, ModelError, UnsupportedError

if TYPE_CHECKING:
    from longreach.serve.replicas.replicas import Replicas

OBJECT_BYTES = 256 << 20
"""What a cluster of our own may have in shared memory: tasks and what comes of them are small."""
JOIN_SECONDS = 60.0
"""How long is waited for machines to join a cluster that is too small."""
LOGGING: dict[str, Any] = {"enable_access_log": False, "log_level": "WARNING"}
"""Of what Ray Serve writes, in its folder and on standard error, where every line is one of ours."""
AT_ONCE = 1024
"""Tasks that a replica takes: its engine has a queue of its own, and the front lets fewer requests in."""


def start_replicas(
    make_engine: Callable[[], Engine],
    replicas: int,
    folder: Path,
    *,
    gpus: Literal["use", "leave"] = "use",
    policy: Literal["chunks", "random"] = "chunks",
) -> Replicas:
    """Have `replicas` processes, each with an engine that `make_engine` loads there: in the cluster that `RAY_ADDRESS`
    names, else in one that is begun on this machine and ends with this process. They take the place of those that an
    earlier server of the same `folder` left.

    Raises UnsupportedError without Ray, InputError where the cluster is too small, ModelError where a replica cannot be
    started.
    """
    _set_environment()
    try:
        import ray
        from ray import serve
    except ImportError:
        raise UnsupportedError("Ray is not installed: `pip install 'longreach[ray]'`") from None
    from longreach.serve.replicas.replica import EngineReplica
    from longreach.serve.replicas.replicas import Replicas
    from longreach.serve.replicas.router import ChunkRouter

    own = _join(ray)
    name = f"longreach-{hashlib.blake2b(str(folder.resolve()).encode(), digest_size=4).hexdigest()}"

    def ended() -> None:
        serve.delete(name, _blocking=True)
        if own is not None:
            ray.shutdown()

    def ended_well() -> None:
        ended()
        if own is not None:
            shutil.rmtree(own, ignore_errors=True)

    cpus, nodes = _room_for(replicas, ray)
    here = int(sum(node.get("GPU", 0) for node in nodes)) if gpus == "use" else 0
    if 0 < here < replicas:
        raise InputError(f"{replicas} replicas need a GPU each, and there are {here}: start fewer, or set device = cpu")
    logging.getLogger("ray.serve").setLevel(LOGGING["log_level"])
    serve.start(proxy_location="Disabled", logging_config=LOGGING)
    if name in serve.status().applications:
        serve.delete(name, _blocking=True)
    deployment: Any = serve.deployment(
        EngineReplica,
        name="engine",
        num_replicas=replicas,
        max_ongoing_requests=AT_ONCE,
        health_check_period_s=5,
        graceful_shutdown_timeout_s=5,
        ray_actor_options={"num_cpus": cpus, "num_gpus": min(1, here)},
        request_router_config={
            "request_router_class": ChunkRouter,
            "request_router_kwargs": {"policy": policy},
            "request_routing_stats_period_s": 2,
        },
        logging_config=LOGGING,
    )
    try:
        handle = serve.run(deployment.bind(make_engine), name=name, route_prefix=None)
        return Replicas(handle, ended_well)
    except RuntimeError:
        reason = _reason(serve.status().applications.get(name))
        ended()
        raise ModelError(f"the replicas cannot be started: {reason}") from None


def cpus_each(nodes: Sequence[int], replicas: int) -> int:
    """The most processors that each of `replicas` can have where machines have `nodes` of them. Raises InputError where
    that is none."""
    for cpus in range(max(nodes, default=0), 0, -1):
        if sum(node // cpus for node in nodes) >= replicas:
            return cpus
    raise InputError(f"{replicas} replicas need a processor each, and there are {sum(nodes)}: start fewer")


def _set_environment() -> None:
    """Nothing is told to Ray's makers. And since Ray's ports are open to the network and run whatever they are sent, a
    cluster of our own, which asks for a token unless RAY_AUTH_MODE says otherwise, has one that nobody else knows. Its
    processes, which Ray would have give way to all others, are as important as this one."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if os.environ.get("RAY_ADDRESS"):
        return
    os.environ.setdefault("RAY_worker_niceness", "0")
    if "RAY_AUTH_TOKEN_PATH" not in os.environ:
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


def _join(ray: Any) -> Path | None:
    """Be part of a cluster; of one of our own, the folder that Ray keeps for it. What replicas print stays there: it is
    not ours to show."""
    if ray.is_initialized():
        return None
    address = os.environ.get("RAY_ADDRESS")
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": True}
    local = {"include_dashboard": False, "object_store_memory": OBJECT_BYTES, "_node_ip_address": "127.0.0.1"}
    try:
        with _same_end():
            if address:
                ray.init(address=address, **quiet)
                return None
            return Path(ray.init(address="local", **local, **quiet).address_info["session_dir"])
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        where = f"the Ray cluster at {address} cannot be joined" if address else "Ray cannot be started"
        raise ModelError(f"{where}: {str(error).splitlines()[0]}") from None


@contextmanager
def _same_end() -> Iterator[None]:
    """Ray makes SIGTERM end this process at once: afterwards it does what it did before. For any thread, where
    `signal.signal` is for the main one."""
    get = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_int)(("PyOS_getsig", ctypes.pythonapi))
    put = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)(("PyOS_setsig", ctypes.pythonapi))
    before = get(signal.SIGTERM)
    try:
        yield
    finally:
        put(signal.SIGTERM, before)


def _room_for(replicas: int, ray: Any) -> tuple[int, list[dict[str, float]]]:
    """How many processors each of `replicas` has, and what machines there are; machines may still be on their way into
    a cluster that was there before. Raises InputError."""
    until = time.monotonic() + (JOIN_SECONDS if os.environ.get("RAY_ADDRESS") else 0.0)
    while True:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        try:
            return cpus_each([int(node.get("CPU", 0)) for node in nodes], replicas), nodes
        except InputError:
            if time.monotonic() > until:
                raise
        time.sleep(1.0)


def _reason(application: Any) -> str:
    """Why an application failed, in a line: the last of what a replica raised."""
    deployments = application.deployments.values() if application is not None else ()
    messages = [one.message for one in deployments] or [getattr(application, "message", "")]
    lines = [line.strip() for line in "\n".join(messages).splitlines() if "Error" in line]
    return lines[-1] if lines else "Ray's log says why"
