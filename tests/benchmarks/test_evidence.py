"""The statistics of a comparison, against SciPy's own and by hand."""

import math

import numpy as np
import pytest
from scipy import stats

from benchmarks.comparison import evidence, sentences, significance, tables
from tests.benchmarks.finished import records_of


def test_intervals_are_those_of_students_t():
    values = [0.1, 0.4, 0.35, 0.2, 0.5]
    expected = stats.t.interval(0.95, 4, np.mean(values), stats.sem(values))
    assert evidence.interval(values) == pytest.approx((expected[1] - expected[0]) / 2)
    assert math.isnan(evidence.interval([0.3]))


def test_pairs_are_tested_by_seed():
    first, second = {1: 0.3, 2: 0.5, 3: 0.9, 4: 0.1}, {4: 0.05, 3: 0.7, 2: 0.45, 1: 0.1}
    difference, width, p = significance.paired_test(first, second)
    expected = stats.ttest_rel([0.3, 0.5, 0.9, 0.1], [0.1, 0.45, 0.7, 0.05])
    low, high = expected.confidence_interval(0.95)
    assert (difference, width, p) == pytest.approx((0.125, (high - low) / 2, expected.pvalue))
    assert significance.paired_test(first, first) == (0.0, 0.0, 1.0)
    one = significance.paired_test({1: 0.5}, {1: 0.4})
    assert one == pytest.approx((0.1, math.nan, 1.0), nan_ok=True)


def test_comparisons_are_against_controls_and_the_best_baseline(family, scores):
    found = evidence.summaries(family, "sgd", records_of(family, scores))
    compared = significance.comparisons({("shape", "sgd"): found})["shape", "sgd"]
    roles = {role: c for (name, role), c in compared.items() if name == "row_equilibration"}
    assert roles["best baseline"].second == "spectral_normalization"
    assert roles["best baseline"].difference == pytest.approx(0.02, abs=0.003)
    assert {role: c.second for role, c in roles.items()} == {
        "alone": "none",
        "start": "none, scale matched",
        "tuned": "none, scale tuned",
        "Frobenius": "frobenius_normalization",
        "best baseline": "spectral_normalization",
        # Which is the best of all that is not conditioned, too.
        "best of all": "spectral_normalization",
    }
    assert {c.outcome for c in roles.values()} == {"win"}
    newton = compared["newton_orthogonalization", "best baseline"]
    assert newton.outcome == "loss"
    raw = []
    for comparison in compared.values():
        both = found[comparison.first], found[comparison.second]
        raw.append(significance.paired_test(*(summary.scores for summary in both))[2])
    # Benjamini and Hochberg by hand: each p times n over its rank, made monotone from the top.
    order = np.argsort(raw)
    stepped = np.array(raw)[order] * len(raw) / np.arange(1, len(raw) + 1)
    expected = np.minimum(np.minimum.accumulate(stepped[::-1])[::-1], 1.0)
    np.testing.assert_allclose([list(compared.values())[i].p for i in order], expected)


def test_the_best_of_each_side_are_chosen_on_validation(family, scores):
    # What was tried afterwards is better, and no candidate.
    scores = {
        **scores,
        "uncentered_newton_orthogonalization": 0.999,
        "polynomial_preconditioner": 0.94,
    }
    records = records_of(family, scores)
    for record in records:
        # Better in validation, not in the test.
        if record["phase"] == "test" and record["normalization"] in (
            "polynomial_preconditioner",
            "none, scale tuned",
        ):
            record["score"] += 0.05
    found = evidence.summaries(family, "sgd", records)
    assert found["polynomial_preconditioner"].validation == pytest.approx(0.99)
    assert next(pair[:2] for pair in significance.pairs(found) if pair[2] == "best of all") == (
        "polynomial_preconditioner",
        "none, scale tuned",
    )


def test_a_seed_that_diverged_counts_as_nought(family, scores):
    records = records_of(family, scores)
    for record in records:
        if (record["normalization"], record["phase"], record["seed"]) == ("none", "test", 3):
            record |= {"status": "diverged", "test": None}
    summary = evidence.summaries(family, "sgd", records)["none"]
    assert summary.failed == 1
    assert summary.scores[3] == 0.0
    assert summary.mean == pytest.approx(0.9 * 4 / 5, abs=0.01)
    assert summary.default_failed == 0
    for record in records:
        if record["normalization"] == "spectral_normalization" and record["phase"] == "default":
            record |= {"status": "diverged", "test": None} if record["seed"] > 3 else {}
    found = evidence.summaries(family, "sgd", records)
    (row,) = [
        line
        for line in tables.scores(family, found, {}).splitlines()
        if line.startswith("| `spectral_normalization`")
    ]
    assert row.count("(2 diverged)") == 1
    # The sequence, and the six around the best.
    assert (summary.searched, summary.diverged) == (16 + 6, 0)
    assert summary.point["phase"] == "refine"
    for record in records:
        if (record["normalization"], record["phase"]) == ("none", "refine"):
            record |= {"status": "diverged", "score": None} if record["index"] else {}
    summary = evidence.summaries(family, "sgd", records)["none"]
    assert (summary.searched, summary.diverged) == (16 + 6, 5)


def test_bands_edges_and_epochs(family):
    tuned = [
        {"rate": rate, "score": score, "status": "finished"}
        for rate, score in ((0.1, 0.80), (0.2, 0.895), (0.4, 0.90), (1.6, 0.891), (3.2, 0.7))
    ]
    tuned.append({"rate": 9.0, "score": None, "status": "diverged"})
    assert evidence.band(tuned, 0.01) == pytest.approx(8.0)
    ranges = {"rate": (0.1, 10.0), "scale": (0.3, 3.0)}
    for point, expected in (
        ((1.0, 1.0), False), ((0.11, 1.0), True), ((9.0, 1.0), True), ((1.0, 2.95), True),
        ((1.0, 0.5), False),
    ):  # fmt: skip
        assert (
            evidence.at_edge(dict(zip(("rate", "scale"), point, strict=True)), ranges) == expected
        )
    tested = [
        {"status": "finished", "scores": scores}
        for scores in ([0.1, 0.6, 0.8], [0.1, 0.2, 0.9], [0.1, 0.2, 0.3])
    ]
    assert evidence.epochs_to(0.6, tested) == 3
    assert evidence.epochs_to(0.85, tested) is None
    # Two of three reach it, of which one diverges in the end.
    tested[1] |= {"status": "diverged", "scores": [0.1, 0.7, None]}
    assert evidence.epochs_to(0.6, tested) is None


def test_searches_that_stopping_would_change(family, scores):
    records = records_of(family, scores)
    searches = len({record["normalization"] for record in records})
    assert evidence.searches_run_in_full({("shape", "sgd"): records}) == (searches, 0)
    best = max(
        (r for r in records if (r["normalization"], r["phase"]) == ("none", "tune")),
        key=lambda record: record["score"],
    )
    # It catches up late, and another run comes before it.
    best["index"], best["scores"] = 99, [0.01, 0.01, 0.01, 0.99]
    assert evidence.searches_run_in_full({("shape", "sgd"): records}) == (searches, 1)
    assert "the best point of 1 of them" in sentences.stopping({("shape", "sgd"): records})
    best["status"] = "stopped"
    assert evidence.searches_run_in_full({("shape", "sgd"): records}) == (searches - 1, 0)
