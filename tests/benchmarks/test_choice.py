"""What to choose in each setting."""

import re

import pytest

from benchmarks.comparison import choice, evidence, families, naming, tables, times
from tests.benchmarks.finished import records_of

WHERE = ("shape", "sgd")
NEWTON, UPDATES = "newton_orthogonalization", "orthogonal_updates"
SECONDS = {
    "none": 0.1, NEWTON: 0.3, UPDATES: 0.2, "row_equilibration": 0.11, "newton_step+stored": 0.1,
    "weight_normalization": 0.1, "weight_standardization": 0.1, "spectral_normalization": 0.1,
    "orthogonal_regularizer": 0.1, "polynomial_preconditioner": 0.3,
}  # fmt: skip


def choices_of(family, scores):
    found = {WHERE: evidence.summaries(family, "sgd", records_of(family, scores))}
    return choice.choices(found, {WHERE: times.Times(SECONDS, 80)})


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("none", None),
        ("none, scale tuned", "start"),
        ("batch, scale matched", "start"),
        ("orthogonal_initializer", "start"),
        (f"batch+{NEWTON}+at_start", "start"),
        ("layer+weight_standardization", "baseline"),
        ("layer+row_equilibration", "rows"),
        ("newton_step+stored", "stored"),
        (f"batch+{NEWTON}", "forward"),
        (f"batch+{UPDATES}", "updates"),
        (f"weight_standardization+{UPDATES}", "updates"),
        ("frobenius_normalization", None),
    ],
)
def test_kinds(name, kind):
    assert choice.kind_of(name) == (naming.base_of(name), kind)


def test_every_configuration_of_the_package_has_a_kind():
    kinds = {choice.kind_of(name)[1] for name in families.OURS}
    assert kinds == {"rows", "stored", "forward", "updates"}


@pytest.mark.parametrize(
    ("gains", "expected"),
    [
        ({NEWTON: 0.06}, NEWTON),
        # As good, by shorter steps.
        ({NEWTON: 0.06, UPDATES: 0.06}, UPDATES),
        ({NEWTON: 0.06, UPDATES: 0.06, "none, scale tuned": 0.06}, "none, scale tuned"),
        # Better, by longer ones.
        ({NEWTON: 0.06, UPDATES: 0.04}, NEWTON),
        ({}, None),
    ],
)
def test_the_choice_is_the_cheapest_of_the_best(family, scores, gains, expected):
    alone = scores["none"]
    scores = {
        **dict.fromkeys(scores, alone),
        **{name: alone + gain for name, gain in gains.items()},
    }
    (found,) = choices_of(family, scores)
    assert found.key == (*WHERE, "none")
    assert (found.chosen and found.chosen.name) == expected
    table = tables.choices([found])
    row = table.splitlines()[-1]
    words = {NEWTON: "Newton's iteration", UPDATES: "orthogonal updates", None: "nothing"}
    assert row.split("|")[-2].strip() == words.get(expected, f"`{expected}`")
    if NEWTON in gains:
        assert re.search(r"\*\*\+6\.0\d\*\*, 3\.0×", row)


def test_any_gain_counts_where_the_network_alone_fails(family, scores):
    records = records_of(family, {**scores, "none": 0.8, NEWTON: 0.9, "row_equilibration": 0.5})
    for record in records:
        if (record["normalization"], record["phase"], record["seed"]) == ("none", "test", 2):
            record["test"] = 0.1
    found = {WHERE: evidence.summaries(family, "sgd", records)}
    (choices,) = choice.choices(found, {WHERE: times.Times(SECONDS, 80)})
    assert choices.candidates["forward"].comparison.outcome == "tie"
    assert "forward" in [each.kind for each in choices.better]
    assert "rows" not in [each.kind for each in choices.better]
    assert choices.chosen is not None


def test_nothing_is_chosen_where_costs_are_unknown(family, scores):
    found = {WHERE: evidence.summaries(family, "sgd", records_of(family, {**scores, NEWTON: 0.99}))}
    (choices,) = choice.choices(found, {WHERE: times.Times({}, 0)})
    assert choices.chosen is None
    row = tables.choices([choices]).splitlines()[-1]
    assert "×" not in row
    assert row.split("|")[-2].strip() == "-"
    assert choice.choices({}, {}) == []


def test_recommendations_name_what_to_use_with_its_gain_and_cost(family, scores):
    found = {
        WHERE: evidence.summaries(family, "sgd", records_of(family, {**scores, UPDATES: 0.99})),
        ("shape", "adamw"): evidence.summaries(
            family,
            "adamw",
            records_of(family, dict.fromkeys(family.normalizations("adamw"), 0.9), "adamw"),
        ),
    }
    measured = dict.fromkeys(found, times.Times(SECONDS, 80))
    header, _, row = tables.recommendations(choice.choices(found, measured)).splitlines()
    assert [cell.strip() for cell in header.split("|")[1:-1]] == ["network", "SGD", "AdamW"]
    network, with_sgd, with_adamw = (cell.strip() for cell in row.split("|")[1:-1])
    assert network == "occupancy of a solid, % IoU"
    assert re.fullmatch(r"orthogonal updates: \+\d+\.\d ± \d\.\d, 2\.0×", with_sgd)
    assert with_adamw == "nothing"
    without_costs = dict.fromkeys(found, times.Times({}, 0))
    row = tables.recommendations(choice.choices(found, without_costs)).splitlines()[-1]
    assert row.split("|")[2].strip() == "-"
