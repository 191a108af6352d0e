"""Metrics: plain functions from results and references to numbers. One family a file, and one home for each metric.

| file | what it measures |
|---|---|
| `ranking` | a search: nDCG, recall, precision, MRR, MAP, success |
| `spans` | chunks against the spans that answer: IoU, precision, recall, precision-omega |
| `answers` | a text against the answers wanted: exact match, F1, what of them it holds |
| `citations` | what was cited against what should have been |
| `faithfulness` | a text against what was read: K-precision |
| `judge` | an answer in the eyes of a model |
| `fidelity` | an approximate run against the exact one: KL, top-1 agreement |
| `efficiency` | seconds, tokens, bytes; goodput; idealized runtime |
| `compression` | bits per character, information capacity |

How sure a mean or a difference is, `longreach.evaluate.statistics` tells.
"""
