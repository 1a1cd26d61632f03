"""The folder of an exported model: what serves it without this repository."""

import hashlib
import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from sys import version_info
from typing import Any

HERE = Path(__file__).parent
ROOM = "from src.deployment."
PACKAGES = {"onnx": ("numpy", "onnxruntime"), "torch": ("numpy", "torch")}
FILES = {"onnx": "model.onnx", "torch": "model.pt2"}
CODE = ("handler", "rows")
CARD = "card.md"
DOCKERFILE = """\
FROM public.ecr.aws/lambda/python:{python}
COPY requirements.txt ./
RUN pip install --no-cache-dir -r requirements.txt
COPY {files} ./
CMD ["handler.handler"]
"""


def write_folder(folder: Path, form: str, model: bytes, schema: Mapping[str, Any]) -> None:
    """Writes all files of an exported model but its card.

    Args:
        folder: An empty folder.
        form: onnx or torch.
        model: The content of the model's file.
        schema: The content of schema.json, without the hash of the model.
    """
    file = FILES[form]
    (folder / file).write_bytes(model)
    whole = {**schema, "model": {"file": file, "sha256": hashlib.sha256(model).hexdigest()}}
    text = json.dumps(whole, indent=1, ensure_ascii=False)
    (folder / "schema.json").write_text(text + "\n", "utf-8")
    runtime = f"{form}_runtime"
    for name in (*CODE, runtime):
        # beside its model, a file imports its neighbours
        code = (HERE / f"{name}.py").read_text("utf-8")
        code = code.replace(ROOM + "onnx_runtime", ROOM + runtime).replace(ROOM, "from ")
        (folder / f"{name}.py").write_text(code, "utf-8")
    (folder / "requirements.txt").write_text(write_requirements(form), "utf-8")
    names = [*(f"{name}.py" for name in (*CODE, runtime)), "schema.json", file]
    python = f"{version_info.major}.{version_info.minor}"
    content = DOCKERFILE.format(python=python, files=" ".join(names))
    (folder / "Dockerfile").write_text(content, "utf-8")


def write_requirements(form: str) -> str:
    """Returns the packages with the versions that are installed here."""
    # a build for one kind of device has a mark behind its version
    lines = [f"{name}=={version(name).partition('+')[0]}" for name in PACKAGES[form]]
    return "\n".join(lines) + "\n"
