"""The notebook and its script."""

import pathlib

import jupytext
import nbclient

FOLDER = pathlib.Path(__file__).parents[2] / "examples" / "notebooks"
SCRIPT, NOTEBOOK = FOLDER / "convert_a_model.py", FOLDER / "convert_a_model.ipynb"


def test_notebook_has_the_cells_of_its_script():
    script, notebook = jupytext.read(SCRIPT), jupytext.read(NOTEBOOK)
    cells = [
        [(cell.cell_type, cell.source) for cell in document.cells]
        for document in (script, notebook)
    ]
    assert cells[0] == cells[1]
    assert any(cell.get("outputs") for cell in notebook.cells)


def test_notebook_runs(tmp_path):
    notebook = jupytext.read(SCRIPT)
    for cell in notebook.cells:
        cell.source = cell.source.replace("EPOCHS = 12", "EPOCHS = 1")
    client = nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    )
    client.execute()
    printed = "".join(
        output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", [])
    )
    assert "row equilibration    training loss" in printed
    assert (tmp_path / "folded.keras").exists()
