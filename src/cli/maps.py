"""Predictions of each pixel: a file for each row, and a few columns in the table of predictions."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import lightning as L
import numpy as np
from torch import Tensor

from src.batch import PADDING
from src.cli.terminal import remark
from src.errors import UserError
from src.tasks import Task

if TYPE_CHECKING:
    from src.models import MultiTaskModel


@runtime_checkable
class HasMaps(Protocol):
    """A kind of task whose label is a map: one value for each pixel."""

    def decode_map(self, outputs: Tensor) -> np.ndarray:
        """Returns outputs (B, H, W, O) as maps (B, H, W) or (B, H, W, L) in the label's unit."""


def check_maps(path: str | None, tasks: Mapping[str, Task], overwrite: bool) -> Path | None:
    """Returns the folder that --maps names, looked at before any work is done.

    Args:
        path: As the flag gives it; None where it is not given.
        tasks: The tasks.
        overwrite: Whether files in the folder may be replaced.

    Raises:
        UserError: No task has a label for each pixel, or the folder holds files already.
    """
    if path is None:
        return None
    if not any(isinstance(task, HasMaps) for task in tasks.values()):
        kinds = ", ".join(sorted({type(task).__name__ for task in tasks.values()}))
        raise UserError(
            f"--maps {path}: no task of this run has a label for each pixel (they are of kind "
            f"{kinds}): leave --maps out"
        )
    folder = Path(path)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--maps {path}: this is a file; name a folder")
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        raise UserError(
            f"--maps {path}: the folder holds files already; name another, or add --overwrite"
        )
    return folder


class MapWriter(L.Callback):
    """Decodes maps batch by batch, so that the maps of all rows are never in memory together.

    In place of a task's outputs (B, H, W, O) the batch keeps the columns that ``Task.decode`` makes
    of them.

    Args:
        model: The model, whose thresholds decide.
        folder: Where <task>/<row>.npy go; None writes none.
        names: Name of each row of the split.
    """

    def __init__(self, model: MultiTaskModel, folder: Path | None, names: Sequence[Any]) -> None:
        self.model = model
        self.folder = folder
        self.names = name_files(names)

    def on_predict_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Writes the maps of a batch; {task: outputs} is changed in place."""
        self.replace(*outputs)

    def replace(self, ids: Tensor, found: dict[str, Any]) -> None:
        """Writes the maps of some rows (B,), and puts columns in place of their outputs."""
        for name, task in self.model.chosen_tasks.items():
            if isinstance(task, HasMaps) and name in found:
                if self.folder is not None:
                    maps = task.decode_map(found[name].cpu())
                    self.write(self.folder / name.replace("/", "_"), ids, maps)
                found[name] = self.model.decode(name, found[name])

    def write(self, place: Path, ids: Tensor, maps: np.ndarray) -> None:
        """Writes the maps (B, ...) of some rows (B,) to the folder of their task."""
        place.mkdir(parents=True, exist_ok=True)
        for row, values in zip(ids.tolist(), maps, strict=True):
            if row != PADDING:
                write_array(place / f"{self.names[row]}.npy", values)

    def tell(self) -> None:
        """Says where the maps are."""
        if self.folder is not None:
            remark(f"{len(self.names)} maps of each such task: {self.folder}/<task>/<id>.npy")


def write_array(path: Path, values: np.ndarray) -> None:
    """Writes an array whole or not at all."""
    unfinished = path.with_name(f".{path.stem}.unfinished.npy")
    try:
        np.save(unfinished, values)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def name_files(names: Sequence[Any]) -> list[str]:
    """Returns a name of a file for each row: its own, or its number where names are not unique."""
    shown = [re.sub(r"[^\w.-]+", "_", str(name)).strip(".") for name in names]
    if len(set(shown)) < len(shown) or "" in shown:
        return [str(number) for number in range(1, len(names) + 1)]
    return shown
