"""A run with its weights in memory: rows in, outputs out, on one device and without a Trainer."""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from src.batch import Batch
from src.checkpoint import choose_weights, group_tasks, load_checkpoint
from src.cli.flags import Flag
from src.cli.members import Member, open_members
from src.data import MultiTaskDataModule, Split
from src.errors import UserError
from src.models import MultiTaskModel
from src.run import Run
from src.tasks import Task

Inputs = Tensor | dict[str, Tensor]


class LoadedRun:
    """A run that predicts rows in memory, each task by the weights of its own best epoch.

    Args:
        member: The run, as a command has opened it.

    Attributes:
        model: The model, in evaluation mode.
        data: The run's data module.
        tasks: {task: task with the thresholds that a validation has chosen}.
    """

    def __init__(self, member: Member) -> None:
        self.member = member
        self.run: Run = member.run
        self.model: MultiTaskModel = member.cli.model
        self.data: MultiTaskDataModule = member.cli.datamodule
        self.batch_size = self.data.eval_batch_size
        self._checkpoint = load_checkpoint(member.checkpoint)
        self.model.on_load_checkpoint(self._checkpoint)
        self.model.load_state_dict(self._checkpoint["state_dict"])
        self.model.eval()
        self._groups = group_tasks(self._checkpoint)

    @property
    def tasks(self) -> Mapping[str, Task]:
        """{task: the task with the thresholds that a validation has chosen}."""
        return self.model.chosen_tasks

    def load_rows(self, split: Split, limit: int | None = None) -> Batch:
        """Returns rows of a split in memory, with their labels.

        Args:
            split: The split.
            limit: Most rows, spread evenly over the split; None for all.

        Raises:
            UserError: The run has no such rows.
        """
        return load_rows(self.data, split, limit)

    def predict(self, inputs: Inputs) -> dict[str, Tensor]:
        """Returns {task: outputs (N, ..., O)} of rows, in batches, without gradients."""
        if len(self._groups) < 2:
            return self._predict_with(None, inputs)
        outputs: dict[str, Tensor] = {}
        for step, names in self._groups.items():
            found = self._predict_with(step, inputs)
            outputs |= {name: found[name] for name in names}
        return outputs

    def use_weights_of(self, task: str) -> MultiTaskModel:
        """Returns the model with the weights that count for a task, to run it with gradients."""
        for step, names in self._groups.items():
            if task in names and len(self._groups) > 1:
                self.model.load_state_dict(choose_weights(self._checkpoint, step))
        return self.model.eval()

    @torch.no_grad()
    def _predict_with(self, step: int | None, inputs: Inputs) -> dict[str, Tensor]:
        if step is not None:
            self.model.load_state_dict(choose_weights(self._checkpoint, step))
        self.model.eval()
        batches = [self.model(part) for part in split_inputs(inputs, self.batch_size)]
        return {name: torch.cat([batch[name] for batch in batches]) for name in self.model.tasks}


def open_one_run(
    args: list[str], own: Sequence[Flag], command: str, reads_files: bool = True
) -> Member:
    """Opens the one run that --run names, for a command that works on one device.

    Args:
        args: The command line after the command.
        own: The flags that the command alone knows.
        command: The command, for messages: src.explain.
        reads_files: Whether the command reads the run's data; otherwise they may be gone.

    Raises:
        UserError: --run names several runs, or flags name several devices.
    """
    members = open_members(args, own, reads_files)
    if len(members) > 1:
        raise UserError(f"--run names several runs: {command} takes one")
    cli = members[0].cli
    if cli.config["trainer"]["num_nodes"] > 1 or cli.trainer.num_devices > 1:
        raise UserError(f"{command} works on one device: leave out --devices and --num_nodes")
    return members[0]


def load_rows(data: MultiTaskDataModule, split: Split, limit: int | None = None) -> Batch:
    """Returns rows of a split in memory, with their labels.

    Args:
        data: The data.
        split: The split.
        limit: Most rows, spread evenly over the split; None for all.

    Raises:
        UserError: There are none.
    """
    rows = data.split(split)
    count = len(rows)
    if not count:
        raise UserError(f"the run has no {split} rows to score")
    if limit is None or limit >= count:
        return rows[torch.arange(count)]
    return rows[torch.arange(limit) * count // limit]


def split_inputs(inputs: Inputs, size: int) -> Iterator[Inputs]:
    """Yields inputs in batches."""
    if isinstance(inputs, Tensor):
        yield from inputs.split(size)
        return
    for parts in zip(*(values.split(size) for values in inputs.values()), strict=True):
        yield dict(zip(inputs, parts, strict=True))
