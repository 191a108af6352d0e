"""Engines under Ray Serve: one front takes requests, searches and writes; replicas of the engine read and answer.

`Replicas` starts and reaches them, `ReplicatedEngine` stands for them where an engine is expected, `ChunkRouter` chooses
which of them takes a request. Ray is imported in `replicas.py` and `router.py` alone.
"""
