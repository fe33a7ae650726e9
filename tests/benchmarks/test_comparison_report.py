"""The report of a comparison: its page, pictures, tables and sentences."""

import json
import re

import numpy as np
import pytest
from scipy import stats

from benchmarks.comparison import (
    crosscheck,
    evidence,
    families,
    naming,
    pictures,
    report,
    search,
    sentences,
    significance,
    tables,
    times,
    tuning,
)
from tests.benchmarks.finished import records_of


def test_hours_tell_what_was_tried_afterwards():
    def record(family, normalization, hours):
        return {"family": family, "normalization": normalization, "seconds": 3600 * hours}

    everything = {
        ("cnn", "sgd"): [
            record("cnn", "batch+newton_orthogonalization", 1.0),
            record("cnn", "batch+uncentered_newton_orthogonalization", 0.2),
        ],
        ("deep50", "adamw"): [record("deep50", "none", 0.5)],
    }
    assert report.cost_of(everything) == (
        "3 runs, 1.7 hours of one core, of which 2 runs and 0.7 hours for variants and for tasks "
        "that came later"
    )


def test_what_centering_adds_is_told(family, scores):
    scores = {**scores, "newton_orthogonalization": 0.95}
    found = evidence.summaries(family, "sgd", records_of(family, scores))
    compared = significance.comparisons({("shape", "sgd"): found})
    told = sentences.findings({("shape", "sgd"): found}, compared, {})
    assert (
        "- `uncentered_newton_orthogonalization` against the same with centered rows loses in "
        "shape, sgd (-5."
    ) in told


def test_report_writes_tables_pictures_and_words(family, scores, tmp_path, capsys):
    results = tmp_path / "results"
    results.mkdir()
    records = records_of(family, scores)
    lines = [json.dumps(record) for record in records]
    (results / "shape.jsonl").write_text("\n".join(lines) + "\n")
    seconds = {"none": [0.1, 0.1, 0.5], "row_equilibration": [0.15, 0.15, 0.15]}
    (results / "step-times.json").write_text(
        json.dumps({"shape": {"sgd": {"seconds": seconds, "steps": 80}}})
    )
    readme = tmp_path / "README.md"
    output = tmp_path / "docs"
    readme.write_text(
        "# Title\n\n<!-- recommendations -->\n<!-- end of recommendations -->\n"
        "<!-- comparison -->\n\nold\n\n<!-- end of comparison -->\n\nrest\n"
    )
    words = ["--results", str(results), "--output", str(output), "--documents", str(readme)]
    words += ["--crosscheck", str(tmp_path / "none")]
    report.report(report.parse(words))
    page = (output / "comparison.md").read_text(encoding="utf-8")
    # Of a second each.
    assert f"{len(lines)} runs, {len(lines) / 3600:.1f} hours of one core" in page
    assert "keras 3.15.1" in page
    assert "2 cores" in page
    assert "to be made" not in page
    against = "against that network with tuned initial scale wins in shape, sgd (+5.0"
    assert f"- `row_equilibration` {against}" in page
    assert "against the best baseline, by task: shape 1 / 0 / 0." in page
    assert "- `row_equilibration` wins everywhere." in page
    assert (
        "in 1 setting (task × optimizer × activation normalization):\n\n"
        "- `row_equilibration` wins in 1, ties in 0 and loses in 0 of 1; its steps take 1.5 times "
        "as long as plain ones.\n- `newton_orthogonalization` wins in"
    ) in page
    assert "![Differences from the best baseline](comparison.png)" in page
    assert (output / "comparison.png").read_bytes().startswith(b"\x89PNG")
    summary = readme.read_text()
    assert "old" not in summary
    assert "`row_equilibration` wins everywhere" in summary
    # For the page alone.
    for told in ("by task", "with tuned initial scale", "won / tied / lost"):
        assert told in page
        assert told not in summary
    assert "| network " in summary
    assert "| occupancy of a solid, % IoU | " in summary
    assert readme.read_text().endswith("rest\n")
    rows = [line for line in page.splitlines() if line.startswith("| `row_equilibration`")]
    _, scores_row, training_row = rows
    assert "| 95.0" in scores_row or "| 94.9" in scores_row
    assert "**+" in scores_row
    tested = [
        r for r in records if (r["normalization"], r["phase"]) == ("row_equilibration", "test")
    ]
    assert scores_row.split("|")[4].strip() == f"{100 * min(r['test'] for r in tested):.2f}"
    # Three epochs of ten, each of which takes half as long again.
    assert "| 150.0 ms (1.50×) " in training_row
    assert "| 3.0 epochs (240 steps, 36 s, 0.45×) " in training_row
    # What differs at the start only takes the same time.
    rows = [line for line in page.splitlines() if line.startswith("| `none, scale matched`")]
    assert "| 100.0 ms (1.00×) " in rows[-1]
    (best_row,) = (line for line in page.splitlines() if line.startswith("| shape "))
    assert "`spectral_normalization`" in best_row
    assert "`row_equilibration`" in best_row
    assert "**+1.98 (p <0.001)**" in best_row
    for picture in ("comparison-shape.png", "comparison-shape-seconds.png"):
        assert (output / picture).read_bytes().startswith(b"\x89PNG")


def test_the_picture_of_outcomes_has_a_number_for_each(family, scores):
    cells = {
        ("shape", optimizer): evidence.summaries(
            family, optimizer, records_of(family, scores, optimizer)
        )
        for optimizer in family.rates
    }
    compared = significance.comparisons(cells)
    (axes,) = pictures.draw_overview(compared).axes
    told = {
        comparison.first: sentences.unit_of("shape") * comparison.difference
        for (_, role), comparison in compared["shape", "sgd"].items()
        if role == "best baseline" and naming.without_base(comparison.first) in families.OURS
    }
    assert f"{told['row_equilibration']:+.1f}" == "+2.0"
    row = {round(t.get_position()[0]): t.get_text() for t in axes.texts if t.get_position()[1] == 0}
    assert list(row.values()) == [f"{number:+.1f}" for number in told.values()]
    settings = [label.get_text() for label in axes.get_yticklabels()]
    assert settings == ["shape, sgd", "shape, adamw", "shape, muon"]


def test_networks_that_start_otherwise_take_the_same_time(tmp_path):
    cell = {"sgd": {"seconds": {"none": [0.3, 0.1, 0.2]}, "steps": 7}}
    (tmp_path / "step-times.json").write_text(json.dumps({"deep": cell}))
    measured = times.read(tmp_path)
    for name, expected in (("deep", 0.2), ("pruned", 0.2), ("deep50", None), ("cnn", None)):
        assert measured[name, "sgd"].of_step("none") == expected
    assert measured["deep", "adamw"].of_step("none") is None


def test_other_backends_are_set_beside(family, scores, tmp_path):
    first = records_of(family, scores)
    folder = tmp_path / "comparison"
    folder.mkdir()
    (folder / "shape.jsonl").write_text("\n".join(map(json.dumps, first)))
    pending = crosscheck.pending_at(folder)
    runs = pending("shape", "sgd", [])
    assert len(runs) == 5 * 5
    chosen = tuning.winner(first, "none")
    assert {run.point.rate for run in runs} == {chosen["rate"]}
    assert pending("shape", "adamw", []) == []
    names = {run.normalization for run in runs}
    records = [
        {**record, "test": record["test"] + 0.0003 * (-1) ** record["seed"]}
        for record in first
        if record["phase"] == "test" and record["normalization"] in names
    ]
    assert pending("shape", "sgd", records[:7]) == [
        run for run in runs if run.key not in {tuning.key_of(r) for r in records[:7]}
    ]
    # Those at a point that is not the chosen one are made again.
    moved = [{**record, "rate": 2.0 * record["rate"]} for record in records[:7]]
    assert pending("shape", "sgd", moved) == runs
    for record in records:
        if record["normalization"] == "none":
            record["test"] -= 0.02
    other = tmp_path / "crosscheck" / "torch"
    other.mkdir(parents=True)
    (other / "shape.jsonl").write_text("\n".join(map(json.dumps, records)))
    words = ["--results", str(folder), "--crosscheck", str(other.parent)]
    report.report(report.parse([*words, "--output", str(tmp_path)]))
    page = (tmp_path / "comparison.md").read_text(encoding="utf-8")
    assert "On torch, 4 of 5 means agree with the comparison's within noise, but not shape" in page
    (row,) = [line for line in page.splitlines() if line.startswith("| shape") and "`none`" in line]
    assert "(**p " in row
    found = {("shape", "sgd"): evidence.summaries(family, "sgd", first)}
    each = significance.agreements(found, {"torch": {("shape", "sgd"): records}})
    raw = [
        stats.ttest_ind(list(e.first.values()), list(e.second.values()), equal_var=False).pvalue
        for e in each
    ]
    np.testing.assert_allclose([e.p for e in each], stats.false_discovery_control(raw))


def test_what_fifty_layers_gain_and_cost(family, scores):
    controls = {"none, scale matched": 0.92, "none, scale tuned": 0.91}
    records = records_of(family, {**scores, **controls, "newton_orthogonalization": 0.96})
    found = {("deep50", "sgd"): evidence.summaries(family, "sgd", records)}
    measured = times.Times({"none": 0.004, "newton_orthogonalization": 0.0071}, 73)
    (told,) = sentences.fifty_layers(found, {("deep50", "sgd"): measured})
    assert "Fifty layers without normalization layers, sgd" in told
    numbers = [
        (round(float(number)), each)
        for number, each in re.findall(r"(\d+\.\d+) ± \S+ (plain[^,]*),", told)
    ]
    assert numbers == [
        (90, "plain"),
        (92, "plain with matched initial scale"),
        (91, "plain with tuned initial scale"),
    ]
    assert "with `newton_orthogonalization`, the best of the conditioned" in told
    assert "a step takes 7.1 ms with it, 4.0 ms without" in told
    assert sentences.fifty_layers({("deep", "sgd"): found["deep50", "sgd"]}, {}) == []


def test_nothing_is_said_to_win_that_ties_once(family, scores):
    won = evidence.summaries(family, "sgd", records_of(family, scores))
    even = dict.fromkeys(family.normalizations("sgd"), 0.9)
    tied = evidence.summaries(family, "adamw", records_of(family, even, "adamw"))
    compared = significance.comparisons({("shape", "sgd"): won, ("shape", "adamw"): tied})
    measured = {
        ("shape", "sgd"): times.Times({"none": 0.1, "row_equilibration": 0.12}, 80),
        ("shape", "adamw"): times.Times({"none": 0.1, "row_equilibration": 0.2}, 80),
    }
    told = sentences.in_short(compared, measured)
    assert "in 2 settings (task" in told
    assert (
        "\n- `row_equilibration` wins in 1, ties in 1 and loses in 0 of 2; its steps take 1.2 to "
        "2.0 times as long as plain ones.\n"
    ) in told
    assert told.endswith("\n- No method wins everywhere.")
    assert "steps take" not in sentences.in_short(compared, {})
    assert "`newton" not in sentences.in_short(compared, measured, ["row_equilibration"])
    assert sentences.in_short({}, {}) == ""
    # Beside the network with the same normalization of activations, not the one without.
    seconds = {"none": 0.1, "row_equilibration": 0.2, "batch": 0.4, "batch+row_equilibration": 0.5}
    cells, measured = {("cnn", "sgd", "batch"): None}, {("cnn", "sgd"): times.Times(seconds, 80)}
    assert "take 1.2 times" in sentences.cost_of_steps("row_equilibration", cells, measured)
    told = sentences.outcomes_of(compared, "row_equilibration", "best baseline")
    assert "the best baseline wins in shape, sgd (+" in told
    assert told.endswith(". It ties in 1 of 2 settings.")
    # What was tried next is counted, and not against all controls.
    table = tables.counts(compared)
    (row,) = [line for line in table.splitlines() if "`uncentered_newton" in line]
    assert [cell.strip() for cell in row.split("|")[2:-1]].count("") == 2


def test_families_that_are_not_run_to_the_end_are_named(family, scores):
    both = {("shape", o): records_of(family, scores, o) for o in family.rates}
    others = "deep, deep50, badly_scaled, fine_tuned, pruned, cnn, vit, nerf"
    assert report.unfinished(both).endswith(f": {others}.*")
    both["shape", "adamw"].pop()
    assert report.unfinished(both).endswith(f": {others}, shape.*")


def test_report_tells_what_is_missing(family, scores, tmp_path):
    records = [r for r in records_of(family, scores) if r["phase"] == "tune"]
    (tmp_path / "shape.jsonl").write_text("\n".join(map(json.dumps, records)))
    folders = ["--output", str(tmp_path), "--crosscheck", str(tmp_path / "none")]
    report.report(report.parse(["--results", str(tmp_path), *folders]))
    page = (tmp_path / "comparison.md").read_text(encoding="utf-8")
    # The refinement of all methods but the matched one, which waits for that of another.
    missing = search.REFINEMENTS * (len(family.normalizations("sgd")) - 1)
    assert f"*{missing} runs or more are still to be made.*" in page
    # Nothing is tested, and nothing to be drawn.
    assert "| `none` " not in page
    assert not (tmp_path / "comparison-shape.png").exists()
    # With a baseline to be tested yet, the others would be compared with too little.
    records = records_of(family, scores)[:-1]
    (tmp_path / "shape.jsonl").write_text("\n".join(map(json.dumps, records)))
    report.report(report.parse(["--results", str(tmp_path), *folders]))
    page = (tmp_path / "comparison.md").read_text(encoding="utf-8")
    assert "*1 runs or more are still to be made.*" in page
    assert "| `none` " in page
    assert (tmp_path / "comparison-shape.png").exists()
    assert "(p " not in page
    assert "*Not run yet, or not to the end: deep, deep50, badly_scaled" in page
    with pytest.raises(SystemExit, match=r"No lines in .*benchmarks.comparison.run. first"):
        report.report(report.parse(["--results", str(tmp_path / "none"), "--output", "."]))
