"""Executes the notebooks, and writes them with their tables and figures.

python -m tests.notebooks [NAME ...] (all of them; `make notebooks` calls this)
"""

import base64
import io
import re
import sys
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from PIL import Image
from rich.progress import track

from tests.launching import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MOST_BYTES = 200_000  # of one output, so that a page on the web opens at once


def execute(path: Path) -> Any:
    """Returns a notebook as it is after running from top to bottom, with outputs for readers.

    Raises:
        CellExecutionError: A cell fails.
        AssertionError: A cell warns, or shows more than a page can hold.
    """
    notebook = nbformat.read(path, as_version=4)
    place = {"metadata": {"path": path.parent}}
    client = NotebookClient(
        notebook, timeout=900, kernel_name="python3", resources=place, coalesce_streams=True
    )
    client.execute()
    for cell in notebook.cells:
        cell.metadata = {}
        if cell.cell_type != "code":
            continue
        # numbers of executions would change with each renewal
        cell.execution_count = None
        for output in cell.outputs:
            clean(output)
            size = len(nbformat.v4.writes(nbformat.v4.new_notebook(cells=[cell])))
            assert output.get("name") != "stderr", f"{path.name}: a cell warns: {output['text']}"
            assert size < MOST_BYTES, f"{path.name}: an output has {size} bytes"
    notebook.metadata = {"kernelspec": notebook.metadata["kernelspec"]}
    return notebook


def clean(output: Any) -> None:
    """Removes execution counts and the paths of this machine from an output."""
    if "execution_count" in output:
        output.execution_count = None
    if "metadata" in output:
        output.metadata = {}
    if "text" in output:
        output.text = plain_text(output.text)
    data = output.get("data", {})
    if "image/png" in data:
        data["image/png"] = compress(data["image/png"])
    for kind, value in data.items():
        if isinstance(value, str) and kind.startswith("text/"):
            data[kind] = plain_text(value)


def compress(png: str) -> str:
    """Reduces a figure to 64 colours, which a drawing does not miss."""
    figure = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB").quantize(64)
    small = io.BytesIO()
    figure.save(small, format="png", optimize=True)
    return base64.b64encode(small.getvalue()).decode()


def plain_text(text: str) -> str:
    """Removes what only this machine's reader would see: paths, addresses, colours of terminals."""
    text = text.replace(str(ROOT), "multitask-lightning")
    text = re.sub(r"\x1b\[[0-9;]*m", "", text)
    text = re.sub(r" at 0x[0-9a-f]+", "", text)
    return re.sub(r"/(?:var/folders|tmp)/[\w./-]*?tmp\w+", "logs", text)


def main(names: list[str]) -> None:
    """Renews the notebooks of these names, or all."""
    chosen = [path for path in NOTEBOOKS if not names or path.stem in names]
    for path in track(chosen, description="notebooks"):
        nbformat.write(execute(path), path)


if __name__ == "__main__":
    main(sys.argv[1:])
