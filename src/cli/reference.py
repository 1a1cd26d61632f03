"""A reference that is no network, as a run of its own: fitted, measured, and written down."""

import sys
from collections.abc import Sequence
from typing import Any

from lightning.fabric.utilities.rank_zero import rank_zero_only
from rich.console import Console

from src.cli.app import CLI
from src.cli.checks import refuse_place
from src.cli.flags import Flag, split_flags
from src.cli.reference_rows import choose_methods, measure_references
from src.cli.results import join_stages
from src.cli.terminal import remark
from src.cli.training import is_stopped_by_hand, name_group
from src.monitoring import say, tabulate_results
from src.run import Run

OWN = (
    Flag("method", str, None, "constant, linear or boosting.", required=True),
    Flag("no_test", bool, False, "Leave the test out, as in tuning."),
)
# sections that a network alone reads, and what of them says which rows and tasks count
OF_NETWORKS = ("model", "trainer", "budget", "watch", "finetune")
READ = ("watch.score",)


class ReferenceCLI(CLI):
    """Builds the data of a run, and no trainer: a reference runs in one process."""

    def before_instantiate_classes(self) -> None:
        """Leaves the devices alone."""

    def instantiate_trainer(self, **kwargs: Any) -> None:  # type: ignore[override]
        """Builds none."""

    def after_instantiate_classes(self) -> None:
        """Leaves the network alone, which nobody runs."""


def run_reference(args: list[str]) -> None:
    """Fits a reference to the training rows, and leaves a run folder without a checkpoint.

    Args:
        args: The command line after the command.

    Raises:
        UserError: A setting is wrong, or the data do not suit the reference.
    """
    cli = ReferenceCLI(args, own=OWN)
    refuse_place(cli.config["name"])
    data = cli.datamodule
    method = cli.config["method"]
    kinds = choose_methods([method], "--method", data, cli.config_init["trainer"])
    if getattr(rank_zero_only, "rank", 0):
        return  # a launcher has started several processes, and one is enough
    name_ignored([key for key, _ in split_flags(args)])

    schema = data.schema()
    fingerprint = data.fingerprint()
    seed = cli.config["seed_everything"]
    run = Run.create(cli.config["logs"], name_group(cli))
    run.begin(cli.yaml, seed, resumed=False, data=fingerprint)
    try:
        if schema is not None:
            run.write(run.schema, schema)
        say("\n".join([*data.notes(), f"run folder {run.path}"]))
        test = not cli.config["no_test"]
        measured = measure_references(kinds, data, seed, test, cli.model.score_weights)
        results = measured.results[method]
        run.write(run.metrics, results)
    except BaseException as error:
        if is_stopped_by_hand(error):
            run.end("interrupted")
            sys.exit(130)
        run.fail(error)
        raise
    run.end("finished", reference=method)

    if measured.lines:
        say("\n".join(measured.lines))
    stages = ["val", "test"] if test else ["val"]
    Console().print(tabulate_results(data.tasks, join_stages(results), *stages), crop=False)


def name_ignored(keys: Sequence[str]) -> None:
    """Says which flags have no effect on a reference."""
    of_networks = [key for key in keys if key.split(".")[0] in OF_NETWORKS]
    ignored = [f"--{key}" for key in of_networks if key not in READ]
    if ignored:
        remark(f"{', '.join(ignored)} has no effect here: a reference is no network")
