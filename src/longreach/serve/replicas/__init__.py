"""Engines under Ray Serve: one front takes requests, searches and writes; replicas of the engine read and answer.

`start_replicas` begins them, `ReplicatedEngine` stands for them where an engine is expected, `ChunkRouter` chooses
which of them takes a task. Nothing here is imported unless somebody asks for replicas.
"""
