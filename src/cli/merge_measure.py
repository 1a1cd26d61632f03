"""Measurements that methods of merging need: Fisher information, Gram matrices, entropies."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from src.analysis.merging.regmean import compute_gram
from src.batch import Batch
from src.cli.merge_runs import MergedRun
from src.cli.merge_start import SHARING
from src.data import MultiTaskDataModule
from src.data.rows import BatchDataset
from src.models import MultiTaskModel
from src.models.transfer.fisher import measure_fisher
from src.rng import make_generator
from src.tasks import Task
from src.tasks.labels import get_missing

CHUNK = 256  # rows that pass through a network at a time


class LabelsOf:
    """Rows with the labels of some tasks alone.

    Args:
        rows: The rows.
        tasks: The tasks whose labels stay.
    """

    def __init__(self, rows: BatchDataset, tasks: Sequence[str]) -> None:
        self.rows = rows
        self.tasks = tasks

    def __len__(self) -> int:
        """Returns the number of rows."""
        return len(self.rows)

    def __getitem__(self, ids: Tensor) -> Batch:
        """Returns some rows."""
        batch = self.rows[ids]
        for name, target in batch.targets.items():
            if name not in self.tasks:
                batch.targets[name] = torch.full_like(target, get_missing(target))
        return batch


def choose_places(count: int, rows: int) -> Tensor:
    """Returns the numbers of some rows, spread evenly over all of them."""
    return torch.linspace(0, count - 1, min(rows, count)).round().long()


def measure_fishers(runs: Sequence[MergedRun], rows: int) -> list[dict[str, Tensor]]:
    """Returns the diagonal of the Fisher information of each run's sharing architecture.

    Args:
        runs: The runs, with their weights loaded.
        rows: Training rows that it is measured on, with the labels of the tasks that a run trains.
    """
    found = []
    for run in runs:
        labelled = LabelsOf(run.cli.datamodule.split("train"), run.trained)
        fisher = measure_fisher(run.model, labelled, rows)
        own = {name: tensor for name, tensor in fisher.items() if name.startswith(SHARING)}
        found.append({name.removeprefix(SHARING): tensor for name, tensor in own.items()})
    return found


@torch.no_grad()
def measure_grams(runs: Sequence[MergedRun], rows: int) -> list[dict[str, Tensor]]:
    """Returns for each run {name of a weight: Gram matrix (D, D) of the inputs of its layer}.

    Args:
        runs: The runs, with their weights loaded.
        rows: Training rows whose inputs pass through the networks.
    """
    found = []
    for run in runs:
        sharing = run.model.sharing.eval()
        grams: dict[str, Tensor] = {}
        hooks = []
        for path, module in sharing.named_modules():
            # a subclass may read its inputs in another way
            if type(module) is nn.Linear:
                hook = GramHook(f"{path}.weight", grams)
                hooks.append(module.register_forward_pre_hook(hook))
        split = run.cli.datamodule.split("train")
        for ids in choose_places(len(split), rows).split(CHUNK):
            sharing(split[ids].inputs)
        for handle in hooks:
            handle.remove()
        found.append(grams)
    return found


class GramHook:
    """Adds up the Gram matrix of the inputs of a layer.

    Args:
        name: The name of its weight.
        grams: {name: matrix}, which is filled.
    """

    def __init__(self, name: str, grams: dict[str, Tensor]) -> None:
        self.name = name
        self.grams = grams

    def __call__(self, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        """Adds the inputs of a pass."""
        gram = compute_gram(args[0])
        self.grams[self.name] = self.grams.get(self.name, 0) + gram


class EntropyOfRows:
    """The mean entropy of predictions for validation rows, whose labels are not looked at.

    Args:
        model: The merged model, with the heads of all runs.
        data: The rows.
        rows: Rows of a step.
        seed: Seed of their choice.
        tasks: The tasks whose predictions have an entropy.
        compute: Returns the entropy of a task's outputs.
    """

    def __init__(
        self,
        model: MultiTaskModel,
        data: MultiTaskDataModule,
        rows: int,
        seed: int,
        tasks: Sequence[str],
        compute: Callable[[Task, Tensor], Tensor],
    ) -> None:
        self.model = model
        self.split = data.split("val")
        self.rows = rows
        self.seed = seed
        self.tasks = tasks
        self.compute = compute

    def __call__(self, tensors: Mapping[str, Tensor], step: int) -> Tensor:
        """Returns the sum over tasks of their mean entropies, for the rows of a step.

        Args:
            tensors: The sharing architecture.
            step: The number of the step.
        """
        count = len(self.split)
        order = torch.randperm(count, generator=make_generator(self.seed, step))
        inputs = self.split[order[: self.rows]].inputs
        model = self.model.eval()
        features = functional_call(model.sharing, dict(tensors), (inputs,))
        outputs = model.heads.split(model.heads(features))
        found = [self.compute(model.tasks[name], outputs[name]) for name in self.tasks]
        return torch.stack(found).sum()
