"""Every notebook runs from top to bottom, and is committed with its tables and figures."""

import os
from pathlib import Path

import nbformat
import pytest

from tests.notebooks import MOST_BYTES, NOTEBOOKS, execute, plain_text


def kinds(notebook: object) -> list[list[str]]:
    """Returns the kinds of the outputs of each cell."""
    return [
        [kind for output in cell.get("outputs", []) for kind in output.get("data", {"text": ""})]
        for cell in notebook.cells  # type: ignore[attr-defined]
    ]


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_and_shows_as_much_as_is_committed(path: Path) -> None:
    if path.stem == "08_trust" and "MTL_DATA" not in os.environ:
        pytest.skip("it reads Adult below $MTL_DATA")
    committed = nbformat.read(path, as_version=4)
    assert kinds(execute(path)) == kinds(committed)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_is_committed_with_figures_and_plain_text(path: Path) -> None:
    assert any("image/png" in of_cell for of_cell in kinds(nbformat.read(path, as_version=4)))
    for cell in nbformat.read(path, as_version=4).cells:
        assert cell.get("execution_count") is None
        for output in cell.get("outputs", []):
            assert output.get("name") != "stderr"
            assert len(str(output)) < MOST_BYTES
            text = str(output.get("text", "")) + str(output.get("data", {}).get("text/plain", ""))
            assert text == plain_text(text)
