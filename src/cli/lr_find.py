"""Finds learning rates by range tests: the work of ``python -m src.lr_find``."""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.fabric.utilities.rank_zero import rank_zero_only
from torch import Tensor, nn

from src.analysis.rate_curves import RateCurve, Suggestion, combine_curves, read_curve
from src.checkpoint import SafeCheckpointIO
from src.cli.affinity_table import print_whole
from src.cli.app import CLI
from src.cli.flags import Flag, split_flags
from src.cli.help import asks_for_help
from src.cli.lr_find_files import check_file, name_picture, write_picture, write_rates
from src.cli.lr_find_table import make_rates_table
from src.cli.progress_bar import show_progress
from src.cli.training import name_group
from src.errors import UserError
from src.models import MultiTaskModel
from src.models.optimisation.groups import Grouping
from src.models.optimisation.range_test import ENCODER, RangeTest, make_fresh
from src.models.optimisation.tries import keeps_rates
from src.models.settings import check_settings
from src.monitoring import say
from src.overhead import NoProfiler

OWN = (
    Flag("seeds", int, 3, "Initial weights that the rates are tried on."),
    Flag("steps", int, 100, "Optimizer steps from the lowest rate to the highest."),
    Flag("lowest", float, 1e-6, "The lowest rate."),
    Flag("highest", float, 10.0, "The highest rate; a loss that diverges ends before it."),
    Flag("out", str | None, None, "A .png file in place of one below --logs."),
    Flag("apply", str | None, None, "A .yaml file for the rates, which train reads by --config."),
    Flag("overwrite", bool, False, "Replace the files that --out and --apply name."),
)
# of the weights and rows, apart from those of the run
OTHER_SEED = 10_007


def find_rates(args: list[str]) -> None:
    """Tries rates for the encoder and each head, and prints which fit.

    Args:
        args: The command line after the command.

    Raises:
        UserError: A setting is wrong, or these rates cannot be tried.
    """
    if any(asks_for_help(key) for key, _ in split_flags(args)):
        CLI(args, own=OWN, trains=True, starts=True)
    try:
        search = RateSearch(args)
        search.run()
    except BaseException as error:
        # Lightning makes Ctrl-C an exit
        if not isinstance(error, KeyboardInterrupt | SystemExit) or not is_by_hand(error):
            raise
        say("stopped: no rate is suggested, and nothing was written")
        sys.exit(130)
    search.report()


def is_by_hand(error: BaseException) -> bool:
    """Returns whether Ctrl-C is behind the end of a process."""
    return isinstance(error, KeyboardInterrupt) or isinstance(error.__context__, KeyboardInterrupt)


class RateSearch:
    """Range tests of the encoder and the heads of a model, on the training rows alone.

    Args:
        args: The command line after the command.

    Raises:
        UserError: A setting is wrong, or these rates cannot be tried.
    """

    def __init__(self, args: list[str]) -> None:
        self.test: RangeTest | None = None
        self.tick: Callable[[], None] = lambda: None
        # the number of steps follows from the ramps, whatever a training is limited to
        limits = ["--trainer.max_epochs", "-1", "--trainer.max_steps", "1"]
        self.cli = CLI(
            [*args, *limits],
            own=OWN,
            trainer_settings=self.make_trainer_settings,
            parsed=check_flags,
            trains=True,
            starts=True,
        )
        assert self.test is not None
        out = self.cli.config["out"]
        self.picture: Path = Path(out) if out else name_picture(self.cli.config["logs"], self.group)

    @property
    def group(self) -> str:
        """The name that the picture is below."""
        return f"{name_group(self.cli)}-lr_find"

    def make_trainer_settings(self, cli: CLI) -> dict[str, Any]:
        """Replaces what watches a training by the range test."""
        model = cli.model
        refuse_model(cli)
        # each head is a group of its own, and only the test moves rates
        self.configured = read_configured(model)
        model.lr_multipliers = dict.fromkeys(model.tasks, 1.0)
        check_settings(model.tasks, model.lr_multipliers, model.stage_decay)
        model.grouping = Grouping(by_matrix=model.grouping.by_matrix)
        model.make_scheduler = None

        config = cli.config
        rates = np.geomspace(config["lowest"], config["highest"], config["steps"])
        self.test = RangeTest(
            config["seeds"], rates, config["seed_everything"] + OTHER_SEED, lambda: self.tick()
        )
        cli.config_init["trainer"]["callbacks"] = []
        return {
            "callbacks": [self.test],
            "plugins": [SafeCheckpointIO()],
            "profiler": NoProfiler(),
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "limit_val_batches": 0,
            "num_sanity_val_steps": 0,
            "max_steps": self.test.most_steps,
        }

    def run(self) -> None:
        """Takes the steps."""
        assert self.test is not None
        data = self.cli.datamodule
        data.check_files()
        say("\n".join([*data.notes(), *self.cli.model.notes()]))
        self.test.states = self.make_states()
        shown = self.cli.trainer.is_global_zero
        with show_progress("trying rates", self.test.most_steps, shown) as self.tick:
            self.cli.trainer.fit(self.cli.model, data)

    @rank_zero_only
    def report(self) -> None:
        """Prints the rates, and writes the picture and what --apply asks for."""
        assert self.test is not None
        curves: dict[str, list[RateCurve]] = {}
        for name in (ENCODER, *self.cli.model.tasks):
            if name in self.test.curves:
                each = self.test.curves[name]
                curves[name] = [read_curve(self.test.rates, losses) for losses in each]
        if not curves:
            raise UserError("no part of the network trains: finetune has frozen all of it")
        found = {name: combine_curves(each) for name, each in curves.items()}
        print_whole(make_rates_table(found, self.configured))
        write_picture(self.picture, curves, found, self.configured)
        say(f"picture {self.picture}")
        if self.cli.config["apply"] is not None:
            self.apply(found)

    def apply(self, found: Mapping[str, Suggestion]) -> None:
        """Writes the suggested rates as a file that --config reads.

        Raises:
            UserError: There is no rate to write.
        """
        path = Path(self.cli.config["apply"])
        rates = {name: one.rate for name, one in found.items() if one.rate is not None}
        if not rates:
            raise UserError("no loss falls at any rate, and --apply has nothing to write")
        optimizer = self.cli.config["model"]["optimizer"]["class_path"]
        lr, multipliers = write_rates(path, rates, self.configured, optimizer)
        factors = ", ".join(f"{name} {factor:.2g}" for name, factor in multipliers.items())
        say(
            f"rates {path}: lr {lr:.2g}, factors {factors or 'none'}; train with them: "
            f"python -m src.train --config {path}"
        )

    def make_states(self) -> list[dict[str, Tensor]]:
        """Makes the initial weights of each seed, none of them the run's."""
        cli = self.cli
        first = cli.config["seed_everything"] + OTHER_SEED
        states = []
        for seed in range(first, first + cli.config["seeds"]):
            fresh = make_fresh(cli.model, seed)
            if cli.start is not None:
                cli.start.fill(fresh, cli.datamodule)
            states.append(fresh.state_dict())
        return states


def check_flags(cli: CLI) -> None:
    """Checks the command's own flags before anything is built.

    Raises:
        UserError: One has a value that it cannot have, or would replace a file.
    """
    config = cli.config
    for key, least in (("seeds", 1), ("steps", 10)):
        if config[key] < least:
            raise UserError(f"--{key} is {config[key]}; it must be at least {least}")
    if not 0 < config["lowest"] < config["highest"]:
        raise UserError(
            f"--lowest {config['lowest']} and --highest {config['highest']}: the lowest rate must "
            "be above 0 and below the highest"
        )
    for key, ending in (("out", ".png"), ("apply", ".yaml")):
        if config[key] is not None:
            check_file(key, config[key], ending, config["overwrite"])
    for key in ("fast_dev_run", "overfit_batches"):
        if config["trainer"][key]:
            raise UserError(f"--{key} cannot go with lr_find, which takes the steps that it needs")


def refuse_model(cli: CLI) -> None:
    """Refuses a model whose parts have no rates to find.

    Raises:
        UserError: Its optimizer has one rate for all, or it learns from episodes.
    """
    model = cli.model
    if model.meta is not None:
        raise UserError(
            "model.meta learns from episodes, in which heads are made anew: find rates without it"
        )
    if not keeps_rates(model.make_optimizer):
        name = cli.config["model"]["optimizer"]["class_path"].rpartition(".")[2]
        raise UserError(
            f"{name} has one rate for all parameters, which it finds itself: leave --lr at "
            "its default, or find rates for --model.optimizer AdamW"
        )


def read_configured(model: MultiTaskModel) -> dict[str, float]:
    """Returns {encoder or task: the rate that the configuration gives it}."""
    lr = float(model.make_optimizer([nn.Parameter(torch.zeros(1))]).defaults["lr"])
    return {name: lr * model.lr_multipliers.get(name, 1.0) for name in (ENCODER, *model.tasks)}
