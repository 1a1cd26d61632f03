"""Which tasks help one another: trainings that measure affinities, and what follows from them."""

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from lightning.fabric.utilities.rank_zero import rank_zero_only

from src.analysis.affinities import (
    NAME,
    Affinities,
    AffinityRecord,
    PartitionRecord,
    average_steps,
    read_mean,
)
from src.analysis.partition import find_partition
from src.analysis.statistics import check_packages
from src.cli.affinity_call import Call
from src.cli.affinity_table import make_flags, show_affinities
from src.cli.app import CLI
from src.cli.flags import split_flags
from src.cli.network_costs import count_networks
from src.cli.runs import find_value, read_settings, read_trusted
from src.cli.terminal import remark
from src.cli.training import StartedAgain, Training, name_group
from src.errors import UserError
from src.files.atomic import write_atomically
from src.files.typed import to_json
from src.models import MultiTaskModel
from src.monitoring import TaskAffinity, draw_affinities, say
from src.parallel import FSDP, Pipeline
from src.run import Run

READS = (
    "row helps column: the share of the column's loss that a step on the row's task alone takes "
    "away, in the shared parameters"
)


class AffinityTraining(Training):
    """One training that measures affinities along its way, and is not tested.

    Args:
        call: The command line.
        begun: The run of an earlier attempt of this job, which goes on.

    Raises:
        UserError: A setting is wrong, or these tasks have no affinities.
        StartedAgain: An earlier attempt of this job has begun a run.
    """

    command = "src.affinity"

    def __init__(self, call: Call, begun: Run | None = None) -> None:
        self.call = call
        self.measured = TaskAffinity(call.every or 10)
        super().__init__([*call.words, "--no_test"], begun)

    @classmethod
    def from_call(cls, call: Call) -> Self:
        """Builds a training, or opens the one that an earlier attempt of this job has begun."""
        try:
            return cls(call)
        except StartedAgain as again:
            return cls(replace(call, words=[]), begun=again.run)

    def read_base(self, args: list[str], packages: Sequence[str] | None) -> dict[str, Any] | None:
        """Returns the settings under the flags: those of the run that --run names, if any."""
        if self.resumed or self.call.run is None:
            return super().read_base(args, packages)
        return read_run(self.call)

    def look_back(self, cli: CLI) -> None:
        """Names the group of the run, and looks for the run of an earlier attempt of this job."""
        if find_value("name", self.call.words) is None:
            cli.config["name"] = f"{name_group(cli)}-affinity"
        super().look_back(cli)

    def make_trainer_settings(self, cli: CLI) -> dict[str, Any]:
        """Makes the run folder, the logger, the watchers and the measuring callback."""
        refuse_unfit(cli)
        self.networks = limit_networks(self.call, cli)
        added = super().make_trainer_settings(cli)
        theirs = [one for one in cli.given("callbacks") if isinstance(one, TaskAffinity)]
        if theirs:
            self.measured = theirs[0]
        else:
            added["callbacks"].append(self.measured)
        return added

    def fit(self) -> None:
        """Trains, and shows what was measured."""
        super().fit()
        self.report_affinities()

    @rank_zero_only
    def report_affinities(self) -> None:
        """Prints the affinities and the best partition, and writes them down.

        Raises:
            UserError: No step was measured.
        """
        measured = self.measured
        if not any(found.isfinite().any() for found in measured.lookahead):
            raise UserError(
                "no affinity was measured: the training was too short, or its learning rate was 0 "
                "at each measured step; lower --every"
            )
        lookahead = average_steps(torch.stack(measured.lookahead).numpy())
        first_order = average_steps(torch.stack(measured.first_order).numpy())
        count = len(measured.steps)
        record = make_record(
            self.cli.model,
            lookahead,
            first_order,
            self.networks,
            intervals=f"95 % t-intervals over {min(10, count)} blocks of the {count} measured "
            "steps of one training, which say nothing of other seeds",
        )
        record["measured_steps"] = [count]
        record["seeds"] = [self.cli.config["seed_everything"]]
        record["runs"] = [str(self.run.path)] if self.run else []
        out = self.call.out or (self.run.path / NAME if self.run else None)
        finish(record, out, self.call)


def read_run(call: Call) -> dict[str, Any]:
    """Returns the configuration of the run that --run names, as a layer under the flags.

    Raises:
        UserError: There is no such run, or its configuration is not trusted.
    """
    assert call.run is not None
    words = call.words
    base = read_settings(Run.open(call.run), read_trusted(words), training=split_flags(words))
    base["no_test"] = True
    return base


def refuse_unfit(cli: CLI) -> None:
    """Refuses a training that has no affinities, or shows none.

    Raises:
        UserError: It is one.
    """
    check_packages()
    model = cli.model
    data = cli.datamodule
    if data.is_new:
        raise UserError(
            f"{data.files()[0]}: is not the file that the run was trained on, and its affinities "
            "are measured on the same rows; start from --config with its config.yaml for others"
        )
    if len(model.tasks) < 2:
        raise UserError(f"affinities are between tasks, and there is one: {', '.join(model.tasks)}")
    model.configure_model()
    shared, _ = model.shared_and_private()
    if not shared:
        raise UserError(
            f"{type(model.sharing).__name__} has no trained parameters that tasks share: measure "
            "affinities with --model.sharing HardSharing"
        )
    strategy = cli.config_init["trainer"]["strategy"]
    if isinstance(strategy, Pipeline):
        raise UserError(
            "--strategy pipeline has one backward pass for all tasks, which shows no affinities: "
            "use --strategy ddp, fsdp or placement"
        )
    precision = str(cli.config_init["trainer"]["precision"])
    if isinstance(strategy, FSDP) and "mixed" in precision:
        raise UserError(
            f"--precision {precision} under fsdp rounds losses more than one step changes them: "
            "use --precision 32-true, or --strategy ddp"
        )


def limit_networks(call: Call, cli: CLI) -> int:
    """Returns the largest number of networks that the command line allows.

    Raises:
        UserError: Not even one is within the budget.
    """
    if call.budget is not None:
        return count_networks(call.budget, call.unit, cli.model, cli.datamodule)
    return min(call.networks or len(cli.model.tasks), len(cli.model.tasks))


def make_record(
    model: MultiTaskModel,
    lookahead: Affinities,
    first_order: Affinities,
    networks: int,
    intervals: str,
) -> AffinityRecord:
    """Returns affinities and the partition that follows from them, without runs and seeds."""
    return {
        "tasks": list(model.tasks),
        "reads": READS,
        "intervals": intervals,
        "runs": [],
        "seeds": [],
        "measured_steps": [],
        "lookahead": lookahead.record(),
        "first_order": first_order.record(),
        "partition": choose_partition(model, lookahead.mean_TT, networks),
    }


def choose_partition(
    model: MultiTaskModel, affinities_TT: np.ndarray, networks: int
) -> PartitionRecord | None:
    """Returns the best partition by exact affinities; None where some pair was not measured."""
    try:
        best = find_partition(affinities_TT, networks)
    except UserError as error:
        remark(f"no partition: {error}")
        return None
    names = list(model.tasks)
    groups = [[names[task] for task in group] for group in best.groups]
    return {
        "networks": networks,
        "groups": groups,
        "value": best.value,
        "together": find_partition(affinities_TT, 1).value,
        "exact": best.is_exact,
        "flags": make_flags(groups, model.balancer.level),
    }


def finish(record: AffinityRecord, out: Path | None, call: Call) -> None:
    """Prints the affinities, and writes them down with a picture."""
    words = call.words
    if call.run is not None:
        words = ["--config", str(Run(call.run).config), *words]
    show_affinities(record, words)
    if out is None:
        return
    write_atomically(out, lambda file: file.write(to_json(record)))
    figure = draw_affinities(record["tasks"], read_mean(record["lookahead"]))
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=150)
    write_atomically(out.with_suffix(".png"), lambda file: file.write(picture.getvalue()))
    say(f"affinities {out}, picture {out.with_suffix('.png')}")
