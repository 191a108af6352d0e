"""How well a search ranks what is relevant: trec_eval's measures, through ir-measures.

`run` is `{query: {document: score}}`, higher first; `qrels` is `{query: {document: grade}}`, above 0 is relevant. A
query that found nothing scores 0 and is counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from longreach.errors import InputError

if TYPE_CHECKING:
    from typing import TypeAlias

    Ranked: TypeAlias = Mapping[str, float]
    Graded: TypeAlias = Mapping[str, int]

RANKING_METRICS = ("nDCG@10", "R@10", "R@100", "P@10", "RR", "AP", "Success@1", "Success@5")
"""The usual ones; every name that ir-measures knows can be asked for."""


def score_ranking(
    qrels: Mapping[str, Graded], run: Mapping[str, Ranked], metrics: Sequence[str] = RANKING_METRICS
) -> dict[str, float]:
    """The mean of each metric over all queries of `qrels`. Raises InputError for a metric that is not known."""
    each = score_queries(qrels, run, metrics)
    return {metric: sum(scores.values()) / len(scores) if scores else 0.0 for metric, scores in each.items()}


def score_queries(
    qrels: Mapping[str, Graded], run: Mapping[str, Ranked], metrics: Sequence[str] = RANKING_METRICS
) -> dict[str, dict[str, float]]:
    """`{metric: {query: score}}` for every query of `qrels`. Raises InputError for a metric that is not known."""
    import ir_measures

    measures: dict[Any, str] = {_measure(name): name for name in metrics}
    grades = {query: {doc: int(grade) for doc, grade in docs.items()} for query, docs in qrels.items()}
    scores = {name: dict.fromkeys(grades, 0.0) for name in metrics}
    asked = {query: dict(run[query]) for query in grades if run.get(query)}
    if asked:
        for found in ir_measures.iter_calc(list(measures), grades, asked):
            scores[measures[found.measure]][found.query_id] = float(found.value)
    return scores


def _measure(name: str) -> Any:
    import ir_measures

    try:
        return ir_measures.parse_measure(name)
    except (NameError, ValueError) as error:
        raise InputError(
            f"no ranking metric is called {name!r}: {error}; usual are {', '.join(RANKING_METRICS)}"
        ) from None
