"""The report as people read it: text of the terminal's width, Markdown, HTML and data frames."""

import os
import re
import sys
from xml.etree import ElementTree

import keras
import numpy as np
import pytest

from keras_wcond import (
    ConditionedDense,
    ConditioningReport,
    condition_model,
    conditioning_report,
    effective_condition_number,
)
from keras_wcond.conditioners import NewtonOrthogonalization, RowEquilibration
from keras_wcond.diagnostics.report import METHODS
from keras_wcond.diagnostics.tables import Column, Table, compact
from tests.diagnostics.test_report import dense, nearly_singular, network

KERNELS = ("grouped/kernel", "depthwise/kernel", "dense/kernel", "last/kernel")
FORMS = {
    "text": str,
    "Markdown": ConditioningReport.to_markdown,
    "HTML": ConditioningReport._repr_html_,
}


def text_of(report, width, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    return str(report)


def with_long_paths():
    """Kernels of nested layers with long names, and one with long advice."""
    inputs = keras.Input((6, 20))
    name = "encoder_layer_11_attention"
    attention = keras.layers.MultiHeadAttention(2, 5, name=name)
    hidden = keras.layers.Dense(20, name="unbroken" * 12)(attention(inputs, inputs))
    model = keras.Model(inputs, keras.layers.Dense(20, name="singular")(hidden))
    model.get_layer("singular").kernel.assign(nearly_singular())
    return model


@pytest.mark.parametrize("width", [40, 60, 80, 100, 160, 240])
@pytest.mark.parametrize("conditioner", [None, [RowEquilibration(), NewtonOrthogonalization(9)]])
def test_no_line_is_longer_than_the_terminal_is_wide(width, conditioner, monkeypatch):
    model = with_long_paths()
    if conditioner:
        model = condition_model(model, conditioner)
    report = conditioning_report(model)
    text = text_of(report, width, monkeypatch)
    assert max(map(len, text.splitlines())) <= width
    for record in report.records:
        assert compact(record["effective_condition_number"]) in text
        if width >= 80:  # Words are whole, except for the long name.
            words = f"{record['advice']} {record['path'].replace('/', ' ')}".split()
            assert [word for word in words if word not in text] in ([], ["unbroken" * 12])


def test_text_is_as_wide_as_the_terminal_or_120_without_one(monkeypatch):
    report = conditioning_report(dense(nearly_singular()), [])
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr(os, "get_terminal_size", lambda _: os.terminal_size((71, 24)))
    assert str(report) == text_of(report, 71, monkeypatch)

    def without_terminal(_):
        raise OSError("Inappropriate ioctl for device")

    monkeypatch.delenv("COLUMNS")
    monkeypatch.setattr(os, "get_terminal_size", without_terminal)
    assert str(report) == text_of(report, 120, monkeypatch)
    assert text_of(report, 5, monkeypatch) == text_of(report, 40, monkeypatch)


def test_columns_that_do_not_fit_make_further_tables_of_about_the_same_width():
    kernels = Column("kernel", ["a/kernel", "b/kernel"], is_text=True)
    methods = [Column(f"method number {i}", ["1.00", f"{i}.50"]) for i in range(6)]
    table = Table("Predictions:", [kernels, *methods])
    assert table.to_text(80).count("a/kernel") == 1
    # Three columns of 6 and two spaces beside a column of 8 take 32 characters.
    assert table.to_text(45).splitlines() == [
        "Predictions:",
        "",
        "          method  method  method",
        "          number  number  number",
        "kernel         0       1       2",
        "─" * 32,
        "a/kernel    1.00    1.00    1.00",
        "b/kernel    0.50    1.50    2.50",
        "",
        "          method  method  method",
        "          number  number  number",
        "kernel         3       4       5",
        "─" * 32,
        "a/kernel    1.00    1.00    1.00",
        "b/kernel    3.50    4.50    5.50",
    ]


def test_long_paths_are_folded_at_slashes():
    path = "encoder/transformer_layer/self_attention/attention_output/kernel"
    table = Table("κ:", [Column("kernel", [path], is_text=True), Column("κ", ["1.00"])])
    lines = [line.split()[0] for line in table.to_text(80).splitlines()[4:]]
    assert lines == ["encoder/transformer_layer/", "self_attention/", "attention_output/kernel"]
    assert path in table.to_text(240)


def test_text_lists_every_kernel_in_each_table_and_lines_up(monkeypatch):
    report = conditioning_report(condition_model(network()))
    lines = text_of(report, 240, monkeypatch).splitlines()
    for path in KERNELS:
        assert sum(line.startswith(path) for line in lines) == 3
    (header,) = (line for line in lines if line.startswith("kernel") and "matrix" in line)
    (row,) = (line for line in lines if line.startswith("dense/kernel") and "12 × 96" in line)
    assert row.index("12 × 96") + len("12 × 96") == header.index("matrix") + len("matrix")
    assert "row_equilibration" in row
    assert "4 kernels, 2 conditioned" in lines[-1]
    assert "does not always train better" in lines[-2]


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_tables_show_effective_condition_numbers_first_and_no_others(form, monkeypatch):
    """The same numbers as the advice, where centering takes one rank of a kernel."""
    monkeypatch.setenv("COLUMNS", "240")
    layer = ConditionedDense(32, kernel_conditioner=NewtonOrthogonalization(25), name="newton")
    model = keras.Sequential([keras.Input((16,)), layer])
    report = conditioning_report(model)
    (record,) = report.records
    assert record["condition_number"] > 1e5
    lines = [line for line in form(report).splitlines() if "newton/kernel" in line]
    raw, effective = effective_condition_number(layer.kernel), record["effective_condition_number"]
    cells = [re.split(r"\s\s+|\s*\|\s*|(?:<[^>]*>)+", line.strip("| ")) for line in lines]
    advice = f"κ {raw:#.3g} → {effective:#.3g}"
    first, measures, predicted = (list(filter(None, row)) for row in cells)
    assert first == ["newton/kernel", f"{effective:#.3g}", f"{raw:#.3g}", f"conditioned: {advice}"]
    assert measures[-4] == "15 of 16"
    assert predicted[:2] == ["newton/kernel", f"{raw:#.3g}"]
    for number in (record["condition_number"], record["raw_condition_number"]):
        if number > 1e5:
            assert compact(number) not in form(report)
            assert f"{number:,.0f}" not in form(report)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_what_says_nothing_of_a_plain_model_is_left_out(form):
    model = network()
    assert "raw κ" in form(conditioning_report(condition_model(model), []))
    plain = form(conditioning_report(model, []))
    assert "raw κ" not in plain
    assert not re.search(r"\bmethod\b", plain)
    assert "Predicted κ" not in plain
    assert "Predicted κ" in form(conditioning_report(model))


def test_huge_condition_numbers_are_short_everywhere(monkeypatch):
    kernel = np.diag(np.geomspace(1.0, 1e-6, 8)).astype("float32")
    report = conditioning_report(dense(kernel))
    (record,) = report.records
    assert record["advice"] == "row_equilibration lowers κ: 1.0e+06 → 1.00"
    for form in FORMS.values():
        assert "1.0e+06" in form(report)
        assert not re.search(r"\d,\d{3},|\d{7}", form(report))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (41_348_260.0, "4.1e+07"),
        (99_999.6, "1.0e+05"),
        (99_999.4, "99,999"),
        (1234.5, "1,234"),
        (99.96, "100"),
        (99.94, "99.9"),
        (1.0, "1.00"),
        (0.87654, "0.877"),
        (0.0, "0.00"),
        (0.00012, "1.2e-04"),
        (-2.5, "-2.50"),
        (np.inf, "inf"),
        (np.nan, "nan"),
    ],
)
def test_numbers_have_three_significant_digits(value, text):
    assert compact(value) == text


def test_markdown_has_a_row_per_kernel_in_each_table():
    markdown = conditioning_report(condition_model(network())).to_markdown()
    rows = [line for line in markdown.splitlines() if line.startswith("|")]
    assert len(rows) == 3 * (4 + 2)
    assert [line.count("|") for line in rows[::6]] == [5, 8, 2 + len(METHODS) + 1]
    assert len({line.count("|") for line in rows[:6]}) == 1
    table = Table("", [Column("a|b", ["c|d"], is_text=True), Column("κ", ["1.00"])])
    assert table.to_markdown().split("\n\n")[1].splitlines() == [
        r"| a\|b | κ |",
        "| --- | ---: |",
        r"| c\|d | 1.00 |",
    ]


def test_html_is_escaped_and_suits_light_and_dark_pages():
    name = "<script>alert('&')</script>"
    report = conditioning_report(dense(nearly_singular()))
    report.records[0]["path"] = f"{name}/kernel"
    html = report._repr_html_()
    assert "<script>" not in html
    root = ElementTree.fromstring(html)
    tables = root.findall("table")
    assert [len(table.findall("tbody/tr")) for table in tables] == [1, 1, 1]
    for table in tables:
        headers, cells = table.findall("thead/tr/th"), table.findall("tbody/tr/td")
        assert len(headers) == len(cells)
        assert cells[0].text == f"{name}/kernel"
    advice = tables[0].findall("tbody/tr/td")[-1]
    assert advice.text == report.records[0]["advice"]
    assert "white-space: normal" in advice.get("style")
    assert not re.search("color|background|#[0-9a-f]{3}", html)
    assert report._repr_html_().count("kernel, 0 conditioned") == 1


def test_data_frame_has_the_records():
    pytest.importorskip("pandas")
    report = conditioning_report(network(), ["row_equilibration"])
    frame = report.to_dataframe()
    assert frame.to_dict("records") == report.records
    assert frame.sort_values("rows")["path"].iloc[-1] == "dense/kernel"
    columns = list(frame.columns)
    assert columns.index("effective_condition_number") < columns.index("condition_number")


def test_data_frame_needs_pandas(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    report = conditioning_report(network(), [])
    with pytest.raises(ImportError, match=r"Expected pandas to be installed.*`pip install pandas`"):
        report.to_dataframe()
