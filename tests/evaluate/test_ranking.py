"""Ranking metrics equal trec_eval, and their definitions worked out by hand."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longreach.errors import InputError
from longreach.evaluate.metrics.ranking import score_queries, score_ranking
from longreach.evaluate.pack import load_pack
from longreach.evaluate.trec import read_qrels, read_run, write_run

docs = st.sampled_from([f"d{number}" for number in range(12)])
grades = st.dictionaries(docs, st.integers(0, 3), min_size=1, max_size=8)
ranked = st.lists(docs, unique=True, max_size=12).map(lambda order: {d: float(-i) for i, d in enumerate(order)})
cases = st.dictionaries(st.sampled_from(["q1", "q2", "q3"]), st.tuples(grades, ranked), min_size=1)
TREC = {"nDCG@10": "ndcg_cut_10", "R@10": "recall_10", "P@10": "P_10", "RR": "recip_rank", "AP": "map"}


@settings(deadline=None)
@given(cases)
def test_scores_equal_trec_evals(case):
    import pytrec_eval

    qrels = {query: grades for query, (grades, _) in case.items()}
    run = {query: found for query, (_, found) in case.items()}
    rival = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut", "recall", "P", "recip_rank", "map"}).evaluate(run)
    each = score_queries(qrels, run, list(TREC))
    for name, theirs in TREC.items():
        for query in qrels:
            assert each[name][query] == pytest.approx(rival.get(query, {}).get(theirs, 0.0) if run[query] else 0.0)
    means = score_ranking(qrels, run, list(TREC))
    assert all(means[name] == pytest.approx(sum(each[name].values()) / len(qrels)) for name in TREC)


@settings(deadline=None)
@given(grades, ranked)
def test_ndcg_and_reciprocal_rank_equal_their_definitions(wanted, found):
    order = sorted(found, key=lambda doc: -found[doc])[:10]
    gain = sum(wanted.get(doc, 0) / math.log2(rank + 1) for rank, doc in enumerate(order, start=1))
    best = sum(
        grade / math.log2(rank + 1) for rank, grade in enumerate(sorted(wanted.values(), reverse=True)[:10], start=1)
    )
    first = next((1 / rank for rank, doc in enumerate(order, start=1) if wanted.get(doc, 0) > 0), 0.0)
    scores = score_ranking({"q": wanted}, {"q": found}, ["nDCG@10", "RR@10"])
    assert scores["nDCG@10"] == pytest.approx(gain / best if best else 0.0)
    assert scores["RR@10"] == pytest.approx(first)


def test_a_query_that_found_nothing_counts():
    qrels = {"q1": {"a": 1}, "q2": {"a": 1}}
    assert score_ranking(qrels, {"q1": {"a": 1.0}}, ["R@10"]) == {"R@10": 0.5}


def test_an_unknown_metric_is_one_sentence():
    with pytest.raises(InputError, match="usual are nDCG@10"):
        score_ranking({"q": {"a": 1}}, {}, ["nDCQ@10"])


def test_trec_files_are_read_and_written(tmp_path: Path):
    (tmp_path / "docs.trec").write_text("<DOC>\n<DOCNO> d1 </DOCNO>\n<TEXT>A red boat.</TEXT>\n</DOC>\n")
    (tmp_path / "topics.txt").write_text("<top>\n<num> Number: 7\n<title> red boats\n<desc> What\n</top>\n")
    (tmp_path / "qrels.txt").write_text("7 0 d1 2\n7 0 d9 0\n")
    pack = load_pack(str(tmp_path))
    assert (dict(pack.docs), dict(pack.queries)) == ({"d1": "A red boat."}, {"7": "red boats"})
    assert pack.qrels == read_qrels(tmp_path / "qrels.txt") == {"7": {"d1": 2, "d9": 0}}
    run = {"7": {"d1": 0.25, "d9": 1.5}}
    write_run(tmp_path / "run.txt", run)
    assert read_run(tmp_path / "run.txt") == run
    assert (tmp_path / "run.txt").read_text().startswith("7 Q0 d9 1 1.5 ")
    (tmp_path / "qrels.txt").write_text("7 d1 2\n")
    with pytest.raises(InputError, match="line 1"):
        read_qrels(tmp_path / "qrels.txt")


def test_a_folder_in_beirs_layout_is_read(tmp_path: Path):
    (tmp_path / "corpus.jsonl").write_text('{"_id": "d1", "title": "Boats", "text": "A red boat."}\n')
    (tmp_path / "queries.jsonl").write_text('{"_id": "q1", "text": "boats?"}\n{"_id": "q2", "text": "unjudged"}\n')
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\n")
    pack = load_pack(str(tmp_path))
    assert (pack.docs, pack.queries, pack.qrels) == ({"d1": "Boats\nA red boat."}, {"q1": "boats?"}, {"q1": {"d1": 1}})


def test_a_file_that_is_no_pack_is_refused(tmp_path: Path):
    (tmp_path / "p.json").write_text('{"docs": {}}')
    with pytest.raises(InputError, match="needs docs, queries and qrels"):
        load_pack(str(tmp_path / "p.json"))
