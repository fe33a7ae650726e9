"""Records of runs, one JSON line each, that survive being cut off in the middle of a line."""

import json
import pathlib
import sys

# Those of all commands, in a folder or a file each.
RESULTS = pathlib.Path(__file__).parents[1] / "results"


def read(path):
    """All records of a file; a last line that was cut off is told of and left out."""
    path = pathlib.Path(path)
    if not path.exists():
        return []
    records = []
    lines = path.read_text(encoding="utf-8").split("\n")
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number == len(lines):
                print(f"{path}: line {number} was cut off and is run again", file=sys.stderr)
                break
            raise ValueError(
                f"Expected a JSON object in each line. Received: {line[:60]!r} in line {number} "
                f"of {path}. Remove the line; its run is then repeated."
            ) from error
    return records


def append(path, record):
    """Adds a record, after the last whole line."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(record, separators=(",", ":")) + "\n"
    with path.open("a+b") as file:
        end = _end_of_last_line(path)
        file.truncate(end)
        file.write(text.encode())


def _end_of_last_line(path):
    content = path.read_bytes()
    return content.rfind(b"\n") + 1
