"""Every notebook runs from top to bottom, and is committed without what it printed."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.launching import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


FIRST, *OTHERS = NOTEBOOKS
RUNS = [FIRST, *(pytest.param(path, marks=pytest.mark.slow) for path in OTHERS)]


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_runs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": path.parent}}
    ).execute()
    printed = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert not [
        output for output in printed if output.get("name") == "stderr"
    ]  # warnings are noise for a reader
    assert any("image/png" in output.get("data", {}) for output in printed)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_is_committed_without_output(path: Path) -> None:
    for cell in nbformat.read(path, as_version=4).cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
