"""What the benchmarks share: records, conditions and blocks of documents."""

import keras
import pytest

from benchmarks.shared import environment, markdown, records


def test_blocks_are_written_into_the_documents_that_have_them(tmp_path):
    one, two = tmp_path / "one.md", tmp_path / "two.md"
    one.write_text("before\n<!-- costs -->\nold\n<!-- end of costs -->\nafter\n")
    two.write_text("<!-- gains -->\n<!-- end of gains -->\n")
    markdown.replace_blocks([one, two], {"costs": "new", "gains": "√2"})
    assert one.read_text() == "before\n<!-- costs -->\nnew\n<!-- end of costs -->\nafter\n"
    assert two.read_text() == "<!-- gains -->\n√2\n<!-- end of gains -->\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no block here", r"a block of \['costs'\] in .*Received: none"),
        ("<!-- costs -->\nwithout an end", r"one block 'costs' in .*several, or no end"),
        ("<!-- costs -->\n<!-- end of costs -->\n" * 2, r"one block 'costs' in .*several"),
    ],
    ids=["none", "no end", "two"],
)
def test_documents_without_exactly_one_block_are_refused(text, message, tmp_path):
    path = tmp_path / "page.md"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        markdown.replace_blocks([path], {"costs": "text"})
    assert path.read_text() == text


def test_conditions_tell_of_every_machine():
    here = environment.environment()
    there = {**here, "machine": "another machine"}
    told = environment.conditions([here, there, here])
    assert told.count(here["machine"]) == told.count("another machine") == 1
    assert told.count(f"keras {keras.__version__}") == 2


def test_records_survive_being_cut_off(tmp_path, capsys):
    path = tmp_path / "deep" / "lines.jsonl"
    assert records.read(path) == []
    for number in range(3):
        records.append(path, {"number": number})
    content = path.read_bytes()
    path.write_bytes(content[:-6])
    assert records.read(path) == [{"number": 0}, {"number": 1}]
    assert "line 3 was cut off and is run again" in capsys.readouterr().err
    records.append(path, {"number": 3})
    assert [record["number"] for record in records.read(path)] == [0, 1, 3]
    path.write_text('{"number": 0}\n{"numb\n{"number": 2}\n')
    with pytest.raises(ValueError, match=r"a JSON object in each line.*line 2 of .*lines.jsonl"):
        records.read(path)
