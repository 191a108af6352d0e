"""What a response is worth: the score of the question's own metric, and others beside it."""

from __future__ import annotations

from longreach.evaluate.metrics.answers import ANSWER_METRICS
from longreach.evaluate.metrics.citations import score_citations
from longreach.evaluate.metrics.faithfulness import k_precision
from longreach.evaluate.metrics.ranking import score_ranking
from longreach.evaluate.respond import Response
from longreach.evaluate.tasks import Question

SEARCHED = ("nDCG@10", "R@10", "R@100", "RR", "AP")
"""How a search is scored."""
ANSWERED = ("exact_match", "f1", "reference_recall", "any_answer")
"""How the answer of a reader is scored, beside the question's own metric."""


def score(question: Question, response: Response) -> dict[str, float]:
    """The metric that the question names first, then, for questions to a corpus, those of its stages: what was found,
    said, cited. All between 0 and 1."""
    scores: dict[str, float] = {}
    if question.metric in ANSWER_METRICS:
        scores[question.metric] = ANSWER_METRICS[question.metric].score(response.text, question.answers)
    if not question.relevant:
        return scores
    scores |= response.stages
    if question.answers:
        for name in ANSWERED:
            scores[name] = ANSWER_METRICS[name].score(response.text, question.answers)
        gold = [document for document, grade in question.relevant.items() if grade > 0]
        cited = score_citations(response.cited, gold)
        scores |= {
            "citation_precision": cited.precision,
            "citation_recall": cited.recall,
            "k_precision": k_precision(response.text, response.read),
        }
    searched = (question.metric, *SEARCHED) if question.metric not in ANSWER_METRICS else SEARCHED
    scores |= score_ranking({"q": question.relevant}, {"q": response.ranking}, list(dict.fromkeys(searched)))
    return scores
