"""The folder of an exported model: what serves it without this repository."""

import hashlib
import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PACKAGE = "from src.deployment."
PYTHON = "3.11"
PACKAGES = {"onnx": ("numpy", "onnxruntime"), "torch": ("numpy", "torch")}
HANDLERS = {"onnx": "handler.py", "torch": "torch_handler.py"}
FILES = {"onnx": "model.onnx", "torch": "model.pt2"}
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
    (folder / "schema.json").write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n")
    copied = {"handler.py": HANDLERS[form], "rows.py": "rows.py"}
    for name, source in copied.items():
        # beside its model, the handler imports its neighbour
        code = (HERE / source).read_text("utf-8").replace(PACKAGE, "from ")
        (folder / name).write_text(code, "utf-8")
    (folder / "requirements.txt").write_text(write_requirements(form))
    names = " ".join(["handler.py", "rows.py", "schema.json", file])
    (folder / "Dockerfile").write_text(DOCKERFILE.format(python=PYTHON, files=names))


def write_requirements(form: str) -> str:
    """Returns the packages with the versions that are installed here."""
    # a build for one kind of device has a mark behind its version
    lines = [f"{name}=={version(name).partition('+')[0]}" for name in PACKAGES[form]]
    return "\n".join(lines) + "\n"
