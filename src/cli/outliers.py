"""Columns that say how unlike training each predicted row is: the work of ``predict --ood``."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from src.analysis.outliers import FeatureDistance, measure_energy, pool_features
from src.cli.flags import Flag
from src.cli.loaded_run import LoadedRun
from src.cli.members import Member
from src.cli.own_data import open_apart
from src.cli.passes import read_groups
from src.cli.progress_bar import show_progress
from src.cli.terminal import remark
from src.data.rows import BatchDataset
from src.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

NAME = "ood.npz"
MOST_ROWS = 10_000  # of training, and of validation
OOD = Flag(
    "ood",
    bool,
    False,
    "Say how unlike training each row is: its energy, its distance, and among which share of the "
    "validation rows it is.",
)


def refuse_outliers(members: Sequence[Member]) -> None:
    """Refuses runs whose rows have no features to compare.

    Raises:
        UserError: There are several runs, or one that learns from episodes.
    """
    if len(members) > 1:
        raise UserError("--ood reads the features of one network: name one run with --run")
    if members[0].cli.model.meta is not None:
        raise UserError(
            "--ood compares rows with those of training, and this run learns from episodes of a "
            "few rows each: leave it out"
        )


def measure_outliers(
    member: Member, ids: Tensor, outputs: Mapping[str, Any], taken: Sequence[str]
) -> dict[str, list[float]]:
    """Returns columns that say how unlike training each row is.

    <task>.energy is the energy of a task with classes, ood.energy the mean of them,
    ood.mahalanobis the distance of the row's features from those of training, and ood.percentile
    the share of the validation rows that are no farther.

    Args:
        member: The run.
        ids: (N,) The numbers of the rows.
        outputs: {task: outputs (N, ..., O), or columns that are decoded already}.
        taken: Names that columns have already.
    """
    columns: dict[str, list[float]] = {}
    energies = []
    for name, task in member.cli.model.tasks.items():
        # maps of pixels are decoded batch by batch, and their logits are gone
        own = outputs[name]
        energy = measure_energy(task, own) if isinstance(own, Tensor) else None
        if energy is not None:
            columns[f"{name}.energy"] = energy.tolist()
            energies.append(energy)
    if energies:
        columns["ood.energy"] = torch.stack(energies).mean(0).tolist()

    run = LoadedRun(open_apart(member))
    fitted = find_distance(run)
    rows = member.cli.datamodule.split(member.cli.datamodule.predict_split)
    distances = fitted.measure(read_features(run, rows, ids))
    columns["ood.mahalanobis"] = distances.tolist()
    columns["ood.percentile"] = fitted.rank(distances).tolist()

    named = {}
    for name, values in columns.items():
        while name in taken:
            name = f"_{name}"
        named[name] = values
    return named


def find_distance(run: LoadedRun) -> FeatureDistance:
    """Returns the distance of a run's features, which it keeps once it is fitted.

    Raises:
        UserError: The run has no validation rows, or its rows are not where they were.
    """
    path = run.run.path / NAME
    source = hash_weights(Path(run.member.checkpoint))
    if path.is_file():
        kept = FeatureDistance.load(path)
        if kept.source == source:
            return kept
    found = {}
    for name in ("train", "val"):
        try:
            rows = run.data.split(name)
        except (UserError, OSError) as error:
            raise UserError(f"--ood needs the {name} rows of the run: {error}") from None
        count = len(rows)
        if not count:
            raise UserError(f"--ood compares rows with {name} rows, and the run has none")
        limit = min(count, MOST_ROWS)
        found[name] = read_features(run, rows, torch.arange(limit) * count // limit)
    fitted = FeatureDistance.fit(found["train"], found["val"], source)
    try:
        fitted.save(path)
    except OSError as error:
        remark(f"{path} cannot be written, so that the next call fits it anew: {error}")
    return fitted


def hash_weights(checkpoint: Path) -> str:
    """Returns a hash of a checkpoint, a file or a folder of shards."""
    files = sorted(checkpoint.rglob("*")) if checkpoint.is_dir() else [checkpoint]
    digests = []
    for path in files:
        if path.is_file():
            with path.open("rb") as file:
                digests.append(hashlib.file_digest(file, "sha256").hexdigest())
    return hashlib.sha256(" ".join(digests).encode()).hexdigest()


@torch.no_grad()
def read_features(run: LoadedRun, rows: BatchDataset, ids: Tensor) -> np.ndarray:
    """Returns the features that the heads read of some rows, float64 (N, D).

    Features that several tasks read are there once; of tokens, nodes and pixels their mean.

    Args:
        run: The run.
        rows: The rows.
        ids: (N,) The numbers of the rows.
    """
    groups = list(read_groups(run.member.checkpoint).values()) or [list(run.tasks)]
    batches = ids.split(run.batch_size)
    of_groups = []
    with show_progress("features", len(batches) * len(groups)) as advance:
        for names in groups:
            model = run.use_weights_of(names[0])
            found = []
            for part in batches:
                features = model.runner.features(model, rows[part].inputs)
                # equal features are one tensor
                different = {id(features[name]): features[name] for name in names}
                pooled = [pool_features(z.double()) for z in different.values()]
                found.append(torch.cat(pooled, 1))
                advance()
            of_groups.append(torch.cat(found))
    result: np.ndarray = torch.cat(of_groups, 1).numpy()
    return result
