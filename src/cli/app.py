"""The one parser that all verbs share: LightningCLI on layered configuration, with errors in one line."""

import os
import sys
from collections.abc import Callable
from operator import attrgetter
from pathlib import Path
from typing import Any

import lightning as L
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.callbacks import EarlyStopping, StochasticWeightAveraging
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.strategies import Strategy, StrategyRegistry

from src.cli import entrypoint
from src.cli.checks import refuse_unfit_optimizer, refuse_unmakeable
from src.cli.config import ConfigError, read
from src.cli.dry_run import Forecast
from src.cli.entrypoint import by_word, one_line, unwrapped
from src.cli.layers import help_asked, layered
from src.cli.messages import Parser, called, choices, hint_at, know_every_class, ours
from src.data import MultiTaskDataModule
from src.errors import UserError
from src.launch import prestart
from src.launch.launcher import Launcher
from src.launch.network import choose_interface, renew_meeting_place
from src.launch.topology import find_main_address, refuse_lone_ranks, resolve_topology
from src.models import MultiTaskModel
from src.monitoring import Budget, Limits, Watch, has_limit
from src.parallel import DDP, Checks
from src.planning.auto_strategy import choose_strategy
from src.planning.devices import Devices
from src.planning.plan import Plan, configure_offline

ROOT = Path(__file__).parents[2]
DEFAULTS = ROOT / "configs" / "train.yaml"
# keys of a call of train, which no run folder sets; other verbs have keys of their own
OF_A_CALL = ("resume", "plan", "trust")


class CLI(LightningCLI):
    """Builds data, model and trainer from ``configs/train.yaml``, files named by --config, and flags.

    Args:
        args: The command line after the verb.
        base: Layer under --config; a verb that starts from a run folder gives the run's config.
        extra: Adds a verb's own arguments.
        parsed: Looks at the configuration before anything is built of it.
        trains: Whether the verb trains, so that the devices must hold gradients, too.
        trainer_settings: Says what the verb adds to the Trainer's settings, once data and model are
            built.
    """

    def __init__(
        self,
        args: list[str],
        base: dict[str, Any] | None = None,
        extra: Callable[[LightningArgumentParser], None] | None = None,
        trainer_settings: "Callable[[CLI], dict[str, Any]] | None" = None,
        parsed: "Callable[[CLI], None] | None" = None,
        trains: bool = False,
    ) -> None:
        know_every_class()
        self.extra, self.trainer_settings, self.parsed, self.trains = (
            extra,
            trainer_settings,
            parsed,
            trains,
        )
        self.why = ""  # this strategy, where it was chosen here
        base = base if base is not None else read(DEFAULTS)
        if (text := help_asked(args, base, extra, trains)) is not None:
            print(text)
            sys.exit()
        words = layered(args, base)
        try:
            super().__init__(
                MultiTaskModel,
                MultiTaskDataModule,
                subclass_mode_data=True,
                run=False,
                args=words,
                save_config_callback=None,
                seed_everything_default=0,
                auto_configure_optimizers=False,
                parser_class=Parser,
                parser_kwargs={"allow_abbrev": False},
                trainer_defaults={"use_distributed_sampler": False, "enable_model_summary": False},
            )
        except ValueError as error:  # whatever a class says of the values it was given
            cause = unwrapped(error)
            if not by_word(cause):
                raise
            raise ConfigError(one_line(cause)) from error

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parses, and looks at the seed, of which Lightning would say neither the key nor the bounds."""
        super().parse_arguments(parser, args)
        seed = self.config["seed_everything"]
        if not 0 <= seed < 2**32:
            raise UserError(f"seed_everything is {seed}; it must be from 0 to {2**32 - 1}")
        parts = {key: self.config[key].as_dict() for key in ("data", "model")}
        refuse_unmakeable({"data": parts["data"]})
        refuse_unmakeable(parts["model"], "model", MultiTaskModel)
        refuse_unfit_optimizer(parts["model"])

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Links what follows from the data, and adds what is the project's own."""
        # by functions, not as data.tasks: an error inside a fork's property would come out as a
        # property that is not there
        parser.link_arguments("data", "model.tasks", attrgetter("tasks"), apply_on="instantiate")
        parser.link_arguments(
            "data", "model.input_shape", attrgetter("input_shape"), apply_on="instantiate"
        )
        parser.link_arguments("seed_everything", "data.init_args.seed")
        parser.link_arguments("seed_everything", "model.seed")
        parser.add_argument(
            "--name", type=str | None, default=None, help="Groups runs: logs/<name>/<date-time>."
        )
        parser.add_argument("--logs", type=str, default="logs", help="Where run folders go.")
        parser.add_class_arguments(Watch, "watch")
        parser.add_class_arguments(Budget, "budget")
        if self.extra:
            self.extra(parser)

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        """Builds the trainer with what the verb adds; for a plan alone there is none, since the devices need not be here."""
        settings = self.config_init["trainer"]
        if settings["use_distributed_sampler"]:
            raise UserError(
                "trainer.use_distributed_sampler must stay false: the data module deals global batches to the devices"
            )
        for key, least in (
            ("accumulate_grad_batches", 1),
            ("check_val_every_n_epoch", 1),
            ("gradient_clip_val", 0),
        ):
            if settings[key] is not None and settings[key] < least:
                raise UserError(f"trainer.{key} is {settings[key]}; it must be at least {least}")
        if any(
            isinstance(callback, StochasticWeightAveraging) for callback in self.given("callbacks")
        ):
            raise UserError(
                "StochasticWeightAveraging copies the model before it is built; use EMAWeightAveraging or WeightAveraging instead"
            )
        if str(settings["precision"]) in ("16-true", "bf16-true"):
            raise UserError(
                f"trainer.precision {settings['precision']} leaves the weights three digits; use bf16-mixed or 16-mixed"
            )
        if settings["barebones"]:
            raise UserError(
                "trainer.barebones leaves out the logger, the checkpoints and the guards that a run has; set it to false"
            )
        self.devices = Devices.from_settings(settings)
        self.forecast = Forecast(
            self.model, self.datamodule, self.devices, str(settings["precision"])
        )
        settings["strategy"] = self.strategy()
        if self.only_plans:
            self.acting = self.never_started()
            return None  # type: ignore[return-value]
        limits = self.limits()
        added = self.trainer_settings(self) if self.trainer_settings else {}
        added["callbacks"] = [*limits, *added.get("callbacks", [])]
        for key in ("callbacks", "plugins"):
            added[key] = [*self.given(key), *added.get(key, [])]
        trainer = super().instantiate_trainer(**added, **kwargs)
        entrypoint.launcher = trainer.strategy.launcher
        if not isinstance(entrypoint.launcher, Launcher):
            prestart.dismiss()
        self.acting = trainer.strategy
        return trainer

    def limits(self) -> list[L.Callback]:
        """Fills in how long to train and when to validate, where the user has said neither."""
        settings = self.config_init["trainer"]
        every = settings["check_val_every_n_epoch"]
        if every is None and not isinstance(
            settings["val_check_interval"], int
        ):  # else null is Lightning's: batches across epochs
            settings["check_val_every_n_epoch"] = 1
        if not self.trains or has_limit(settings):
            return []

        settings["max_epochs"] = -1  # until the data are there to count their batches
        budget, watch = self.config_init["budget"], self.config_init["watch"]
        theirs = any(isinstance(callback, EarlyStopping) for callback in self.given("callbacks"))
        if watch.patience is None and settings["limit_val_batches"] != 0 and not theirs:
            watch.patience = budget.patience
        return [Limits(budget, every, watch.patience)]

    @property
    def only_plans(self) -> bool:
        """Whether a plan is all that was asked for."""
        return bool(self.config.get("plan"))

    def strategy(self) -> Strategy | str:
        """How several devices work together: as asked for, or by what fits."""
        settings = self.config_init["trainer"]
        asked = settings["strategy"]
        if asked == "auto" and self.devices.count > 1:
            name, self.why = (
                choose_strategy(self.devices, self.forecast.load())
                if self.trains
                else (DDP.strategy_name, "")
            )
            return next(kind for kind in ours(Strategy) if name in called(kind))()
        if isinstance(asked, str) and asked != "auto" and asked not in StrategyRegistry:
            raise UserError(
                f"--strategy {asked} is unknown; {hint_at(asked, [*choices('strategy'), 'auto'])}"
            )
        return asked

    def never_started(self) -> Any:
        """The strategy that a Trainer would have made of these settings; None for one device."""
        settings = self.config_init["trainer"]
        asked = settings["strategy"]
        if asked == "auto":
            return None
        strategy = StrategyRegistry.get(asked) if isinstance(asked, str) else asked
        return configure_offline(strategy, self.devices, str(settings["precision"]))

    def plan(self) -> Plan:
        """What the run will be on its devices; of one device that is to train, without a look at the data."""
        accumulated = self.config_init["trainer"]["accumulate_grad_batches"] or 1
        return self.forecast.plan(
            self.acting, accumulated, self.only_plans or self.devices.count > 1, self.why
        )

    def given(self, key: str) -> list[Any]:
        """What the user gave for a setting of the Trainer that may be one thing or several."""
        value = self.config_init["trainer"][key] or []
        return value if isinstance(value, list) else [value]

    def before_instantiate_classes(self) -> None:
        """Refuses what cannot run on these devices, before anything is built."""
        for key, value in resolve_topology(self.config["trainer"], offline=self.only_plans).items():
            self.config["trainer"][key] = value
        if self.config["trainer"]["num_nodes"] > 1 and not self.only_plans:
            # without a launcher each node's first process would take itself for the first of all,
            # until there is a Trainer
            rank_zero_only.rank = rank_zero_only.rank or int(os.environ.get("NODE_RANK", 0))  # type: ignore[attr-defined]
            if (address := find_main_address()) is not None:
                choose_interface(address)
        if not self.only_plans:
            refuse_lone_ranks(self.config["trainer"]["num_nodes"])
        renew_meeting_place()
        if self.parsed:
            self.parsed(self)

    def after_instantiate_classes(self) -> None:
        """Refuses what cannot run on these devices, before any of them starts."""
        rows = self.datamodule.batch_size
        devices = getattr(self.acting, "replicas", self.devices.count)
        if rows < devices:
            raise UserError(
                f"data.batch_size is {rows}, the rows of a step on all devices together, but {devices} devices read rows of their "
                f"own: use --batch_size {devices} or more"
            )
        self.model.check(self.config_init["trainer"]["accumulate_grad_batches"] or 1)
        if self.trains:
            self.model.balancer.try_out()
        if isinstance(self.acting, Checks):
            if hasattr(self.acting, "rows"):  # it plans for them
                self.acting.rows = -(-rows // devices)
            self.acting.check(self.model)

    @property
    def yaml(self) -> str:
        """The resolved configuration as a file that --config reads."""
        config = self.config.clone()
        settings = config["data"].get("init_args")
        if settings is not None and "schema_path" in settings:
            settings["schema_path"] = (
                None  # of the run that is open, not of one that starts from this file
            )
        for key in OF_A_CALL:
            config.pop(key, None)
        return self.parser.dump(config, skip_none=False)
