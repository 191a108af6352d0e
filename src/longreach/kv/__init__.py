"""Keys and values: pages in a pool, segments of tokens, sequences made of segments.

`pool` owns all memory. A `Segment` is a run of tokens with its pages in every stream (layer and KV head); a
`Sequence` is a list of segments of which only the last one grows. `prefix` finds what a new prompt shares with what
was read before. Imported only where a model runs.
"""
