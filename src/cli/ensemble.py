"""Ensembles: the mean of several runs' predictions, measured as those of one run are."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from src.cli.flags import Flag
from src.cli.members import Member
from src.cli.passes import predict_checkpoint
from src.cli.rows import sort_rows
from src.cli.runs import drop_flags, open_run
from src.cli.terminal import remark
from src.data import MultiTaskDataModule, Split
from src.errors import UserError
from src.models.evaluation import Evaluation
from src.models.padding import cut_padding
from src.monitoring import tabulate_results
from src.monitoring.table import ResultsTable
from src.tasks import Task

MEAN = "mean of the runs"  # the heading beside the ensemble's results
Outputs = Mapping[str, Tensor]


class Ensemble:
    """Several runs that predict as one.

    Each run predicts all rows, on whatever devices and by whatever strategy, and its outputs are
    averaged afterwards. Metrics are computed by the lines that measure a single run.

    Args:
        members: The runs; the first one's data and trainer serve all.
        args: The command line that they were opened by, after the command.
        own: The flags that the command alone knows.

    Attributes:
        chosen: The tasks with the thresholds of the ensemble, once they are chosen.
    """

    def __init__(self, members: Sequence[Member], args: list[str], own: Sequence[Flag]) -> None:
        self.members = members
        self.args = args
        self.own = own
        self.model = members[0].cli.model
        self.data = members[0].cli.datamodule
        self.chosen: dict[str, Task] = dict(self.model.tasks)
        # the tasks with the thresholds of each run
        self.choices: list[dict[str, Task]] = []

    # -- predictions -------------------------------------------------------------------------------
    def predict(
        self, split: Split, data: MultiTaskDataModule | None = None
    ) -> tuple[Tensor, list[dict[str, Tensor]]]:
        """Returns the row numbers (N,), and each run's {task: outputs (N, ..., O)}.

        Args:
            split: The rows.
            data: Other data than the ensemble's.
        """
        data = data or self.data
        asked = data.predict_split
        data.predict_split = split
        ids = torch.zeros(0)
        found = []
        self.choices = []
        for member in self.members:
            member.cli.datamodule = data
            ids, outputs = sort_rows(predict_checkpoint(member.cli, member.checkpoint))
            member.cli.datamodule = self.data
            found.append(outputs)
            self.choices.append(dict(member.cli.model.chosen_tasks))
        data.predict_split = asked
        return ids, found

    def predict_mean(
        self, split: Split
    ) -> tuple[Tensor, dict[str, Tensor], dict[str, dict[str, Any]]]:
        """Predicts rows, so that the model decodes the predictions by the ensemble's thresholds.

        Returns:
            The row numbers (N,), {task: averaged outputs (N, ..., O)}, and {task: {suffix of the
            column's name: standard deviations (N,) over the runs}}.
        """
        ids, outputs = self.predict(split)
        averaged = self.average(outputs)
        spreads = {}
        for name, task in self.model.tasks.items():
            stacked = torch.stack([own[name] for own in outputs])
            spreads[name] = task.measure_spread(stacked, averaged[name])

        self.choose_thresholds()
        self.model.chosen_tasks = self.chosen
        return ids, averaged, spreads

    def average(self, outputs: Sequence[Outputs]) -> dict[str, Tensor]:
        """Returns {task: outputs} that predict the mean of the runs' predictions."""
        averaged = {}
        for name, task in self.model.tasks.items():
            averaged[name] = task.average(torch.stack([own[name] for own in outputs]))
        return averaged

    # -- metrics -----------------------------------------------------------------------------------
    def evaluate(self, split: Split) -> tuple[dict[str, float], dict[str, float]]:
        """Evaluates the ensemble, and each of its runs on the same rows.

        Returns:
            {split/task/metric: value} of the ensemble, and the mean of its runs' values.
        """
        _, outputs = self.predict(split)
        choices = self.choices
        averaged = self.average(outputs)
        chooses = split == "val" and self.has_thresholds
        if not chooses:
            self.choose_thresholds()
        metrics = self.measure(split, averaged, self.chosen, choose=chooses)

        of_runs = []
        for own, chosen in zip(outputs, choices, strict=True):
            of_runs.append(self.measure(split, own, chosen))
        mean = {key: sum(one[key] for one in of_runs) / len(of_runs) for key in metrics}
        return metrics, mean

    def measure(
        self,
        split: Split,
        outputs: Outputs,
        chosen: dict[str, Task],
        choose: bool = False,
        data: MultiTaskDataModule | None = None,
    ) -> dict[str, float]:
        """Computes metrics from outputs, in the batches of an evaluation of one run.

        Args:
            split: The rows.
            outputs: {task: outputs (N, ..., O)} of all of them.
            chosen: The tasks with the thresholds that decide.
            choose: Whether thresholds are chosen on these rows, and put into ``chosen``.
            data: Other data than the ensemble's.

        Raises:
            UserError: Not all rows were predicted.
        """
        data = data or self.data
        rows = len(data.split(split))
        if any(len(values) != rows for values in outputs.values()):
            raise UserError(
                "an ensemble is measured on all rows: leave out trainer.limit_predict_batches and "
                "trainer.fast_dev_run"
            )
        data.test_split = split
        self.model.chosen_tasks = chosen
        with torch.inference_mode():
            evaluation = Evaluation(self.model)
            for batch in data.test_dataloader():
                # what pads a batch has no labels, and may have any outputs
                places = batch.ids.clamp(min=0)
                own = {name: values[places] for name, values in outputs.items()}
                evaluation.add_outputs(batch, cut_padding(own, batch.targets))
            values = evaluation.finish(split, choose)
        # a trainer keeps what it logs in the model's precision
        return {
            key: torch.tensor(value, dtype=self.model.dtype).item() for key, value in values.items()
        }

    # -- thresholds --------------------------------------------------------------------------------
    @property
    def has_thresholds(self) -> bool:
        """Whether a validation has chosen thresholds for the runs, once these are loaded."""
        tasks = self.model.tasks
        return any(own[name] is not tasks[name] for own in self.choices for name in tasks)

    def choose_thresholds(self) -> None:
        """Chooses thresholds for the averaged probabilities on validation rows, as each run has.

        Where the rows of the runs are gone, they are the means of the runs' thresholds.
        """
        if not self.has_thresholds:
            return
        choices = self.choices
        try:
            data = self.open_own_rows() if self.data.is_new else self.data
            data.split("val")
        except UserError as error:
            self.chosen = average_choices(self.model.tasks, choices)
            remark(
                f"thresholds are the means of the runs', since validation rows are gone: {error}"
            )
            return
        _, outputs = self.predict("val", data)
        self.measure("val", self.average(outputs), self.chosen, choose=True, data=data)

    def open_own_rows(self) -> MultiTaskDataModule:
        """Opens the rows that the runs were trained on, where others are predicted.

        Raises:
            UserError: They are gone, or have changed.
        """
        first = f"--run={self.members[0].run.path}"
        args = drop_flags(self.args, "run", "data")
        _, cli = open_run([*args, first], self.own, says=False)
        return cli.datamodule


def tabulate_ensemble(
    ensemble: Ensemble, split: str, metrics: Mapping[str, float], of_runs: Mapping[str, float]
) -> ResultsTable:
    """Returns a table of an ensemble's results, the mean of its runs' own ones beside them.

    Args:
        ensemble: The ensemble.
        split: The rows.
        metrics: {split/task/metric: value} of the ensemble.
        of_runs: The mean of these values over the runs.
    """
    beside = {key.replace(split, MEAN, 1): value for key, value in of_runs.items()}
    return tabulate_results(ensemble.model.tasks, {**metrics, **beside}, split, MEAN)


def average_choices(
    tasks: Mapping[str, Task], choices: Sequence[Mapping[str, Task]]
) -> dict[str, Task]:
    """Returns the tasks with the means of what validations have chosen for several runs."""
    averaged: dict[str, Task] = {}
    for name, task in tasks.items():
        described: dict[str, Any] = {}
        for key in task.set_by_validation:
            values = [getattr(own[name], key) for own in choices]
            if all(value is not None for value in values):
                described[key] = torch.tensor(values, dtype=torch.float64).mean(0).tolist()
        averaged[name] = task.restore_choice(described)
    return averaged
