"""The notebook runs offline in a checkout, and holds no results."""

import json
from pathlib import Path

import pytest

from smpler.utils.paths import ROOT

NOTEBOOK = ROOT / "docs" / "quickstart.ipynb"


def test_the_notebook_holds_no_results():
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert len(code) > 5
    assert not any(cell["outputs"] or cell["execution_count"] for cell in code)


@pytest.mark.slow
def test_the_notebook_runs_and_shows_its_pictures(tmp_path: Path):
    import nbclient  # here, as the default tests do not run it
    import nbformat

    for path in ROOT.iterdir():  # a checkout into whose outputs/ it may write
        if path.name not in ("docs", "outputs") and not path.name.startswith("."):
            (tmp_path / path.name).symlink_to(path)
    (tmp_path / "docs").mkdir()
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    folder = {"metadata": {"path": str(tmp_path / "docs")}}
    nbclient.NotebookClient(notebook, timeout=300, resources=folder).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == 3, [output.output_type for output in outputs]
    written = {path.name for path in (tmp_path / "outputs").iterdir()}
    assert {"quickstart_out.png", "quickstart_0.npz", "quickstart_1.glb"} <= written, written
