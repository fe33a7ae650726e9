"""Conditioning in the first half of the epochs."""

import dataclasses

import pytest

from benchmarks.comparison import families, first_half, report, search, training_runs, tuning
from tests.benchmarks.finished import records_of

NEWTON = "newton_orthogonalization"


def done(runs, score):
    return [
        {
            **dataclasses.asdict(run),
            **dataclasses.asdict(run.point),
            "status": "finished",
            "score": score,
            "scores": [score],
            "losses": [0.1],
            "test": score + 1e-4 * run.seed,
            "condition_numbers": [1.0, 2.0, 3.0],
        }
        for run in runs
    ]


@pytest.mark.parametrize("mode", ["kernel_norm", "fixed"])
def test_runs_are_at_the_best_point_whose_gain_keeps_the_norm(family, scores, mode):
    records = records_of(family, scores)
    for record in records:
        if record["normalization"] == NEWTON and record["phase"] != "tune":
            record["mode"] = mode
    runs = first_half.pending("shape", "sgd", records)
    assert {run.normalization for run in runs} == {NEWTON}
    assert {run.point.mode for run in runs} == {"kernel_norm"}
    is_tested = mode == "kernel_norm"
    assert {run.phase for run in runs} == ({"half"} if is_tested else {"half", "whole"})
    assert len(runs) == (5 if is_tested else 10)
    assert first_half.pending("shape", "sgd", records + done(runs, 0.9)) == []


def test_what_remains_of_the_gain(family, scores):
    records = records_of(family, {**scores, NEWTON: 0.96})
    runs = first_half.pending("shape", "sgd", records)
    assert first_half.outcomes({("shape", "sgd"): records}) == []
    halves = [run for run in runs if run.phase == "half"]
    wholes = [run for run in runs if run.phase == "whole"]
    everything = {("shape", "sgd"): records + done(halves, 0.93) + done(wholes, 0.96)}
    (outcome,) = first_half.outcomes(everything)
    assert outcome.key == ("shape", "sgd", "none")
    assert {role: each.outcome for role, each in outcome.comparisons.items()} == {
        "plain": "win",
        "whole": "loss",
    }
    table = report.condition_then_stop(everything)[-1]
    assert "**+3.0" in table


def test_the_conditioning_ends(monkeypatch):
    pytest.importorskip("tyro", reason="needs the extra 'examples'")
    changes = {"data": "digits", "train_images": 128, "depth": 3, "width": 8, "augment": False}
    small = dataclasses.replace(families.FAMILIES["deep"], changes={**changes, "epochs": 2})
    monkeypatch.setattr(families, "FAMILIES", {"deep": small})
    training_runs.data_of.cache_clear()
    training_runs.cells.cache_clear()
    point = search.Point(0.02, 1.0, "fixed")
    records = [
        training_runs.perform(tuning.Run("deep", NEWTON, "sgd", phase, None, 1, point))
        for phase in ("half", "test", "half")
    ]
    assert {record["status"] for record in records} == {"finished"}
    losses = [record["losses"] for record in records]
    assert losses[0] == losses[2]
    assert losses[0][0] == pytest.approx(losses[1][0], rel=1e-4)
    assert losses[0][1] != pytest.approx(losses[1][1], rel=1e-4)
