"""What the benchmarks share: records, conditions and blocks of documents."""

import keras
import pytest

from benchmarks.shared import environment, markdown, records


def test_a_document_without_the_block_is_refused(tmp_path):
    path = tmp_path / "page.md"
    path.write_text("no block here")
    with pytest.raises(ValueError, match=r"one block 'costs' in .*none, or several"):
        markdown.replace_block(path, "costs", "text")


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
