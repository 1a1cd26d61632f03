"""The command line that all commands share: LightningCLI on layered configuration."""

import os
import sys
from collections.abc import Callable, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

import lightning as L
from jsonargparse import ArgumentError, Namespace
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.strategies import Strategy, StrategyRegistry

from src.cli.building import build, find_user_error
from src.cli.checks import (
    refuse_idle_schedule,
    refuse_spread_optimizer,
    refuse_trainer_settings,
    refuse_unfit_optimizer,
    refuse_unmakeable,
)
from src.cli.classes import choices, find_ours, hint_at, import_every_class, names_of
from src.cli.configuration import TYPES, Configuration, merge_all
from src.cli.dry_run import Forecast
from src.cli.entrypoint import quiet
from src.cli.episodes import check_episodes
from src.cli.flags import Flag, split_flags
from src.cli.help import Help, asks_for_help
from src.cli.init_from import InitFrom
from src.cli.layers import read
from src.cli.messages import explain
from src.cli.replay import place_replay
from src.cli.starting import Start, is_backbone, place_backbone
from src.cli.terminal import remark
from src.cli.yaml_mode import use_yaml_12
from src.data import MultiTaskDataModule
from src.errors import UserError
from src.files.yaml12 import dump, load
from src.launch.network import choose_interface, renew_meeting_place
from src.launch.topology import find_main_address, refuse_lone_ranks, resolve_topology
from src.models import MultiTaskModel
from src.models.transfer.finetune import Finetune
from src.monitoring import Budget, Limits, Watch, has_limit
from src.parallel import DDP, MultiTaskStrategy
from src.planning.auto_strategy import choose_strategy
from src.planning.devices import Devices
from src.planning.plan import Plan, configure_offline
from src.tasks.score import read_score_weights

ROOT = Path(__file__).parents[2]
DEFAULTS = ROOT / "configs" / "train.yaml"
# keys of a call of train, which no run folder sets; other commands have keys of their own
OF_A_CALL = ("resume", "plan", "trust", "ensemble", "parallel")


class CLI(LightningCLI):
    """Builds data, model and trainer from ``configs/train.yaml``, files of --config, and flags.

    Args:
        args: The command line after the command.
        base: Layer under --config; a command that starts from a run folder gives the run's config.
        own: The flags that the command alone knows.
        trainer_settings: Says what the command adds to the Trainer's settings, once data and model
            are built.
        parsed: Looks at the configuration before anything is built of it.
        trains: Whether the command trains, so that the devices must hold gradients, too.
        starts: Whether a network begins here, from the run that init_from names, if any.

    Raises:
        UserError: A setting is wrong; the message names it.
    """

    def __init__(
        self,
        args: Sequence[str],
        base: dict[str, Any] | None = None,
        own: Sequence[Flag] = (),
        trainer_settings: "Callable[[CLI], dict[str, Any]] | None" = None,
        parsed: "Callable[[CLI], None] | None" = None,
        trains: bool = False,
        starts: bool = False,
    ) -> None:
        quiet()
        import_every_class()
        use_yaml_12()
        self.own = own
        self.trainer_settings = trainer_settings
        self.parsed = parsed
        self.trains = trains
        self.starts = starts
        self.start: Start | None = None
        self.why = ""  # the strategy, where it was chosen here

        pairs = split_flags(args)
        pages = [pair for pair in pairs if asks_for_help(pair[0])]
        prints = [pair for pair in pairs if pair[0] == "print_config"]
        others = [pair for pair in pairs if pair not in (*pages, *prints)]
        settings = merge_all(others, base if base is not None else read(DEFAULTS), own)
        if pages:
            page = Help(TYPES, settings.tree, own, trains)
            print("\n\n".join(page.answer(key, value) for key, value in pages))
            sys.exit()
        if starts:
            place_backbone(settings.tree)
        # a run that begins anew from its folder has them already
        if starts and base is None:
            place_replay(settings.tree)
        for note in sorted(settings.notes):
            remark(note)
        self.build_all(settings, prints=bool(prints))

    def build_all(self, settings: Configuration, prints: bool) -> None:
        """Parses the settings, and builds what they choose.

        Args:
            settings: The settings.
            prints: Whether to print them instead.

        Raises:
            UserError: A setting is wrong.
        """
        self.settings = settings
        self.prints = prints
        try:
            super().__init__(
                MultiTaskModel,
                MultiTaskDataModule,
                subclass_mode_data=True,
                run=False,
                args=["--config", settings.json],
                save_config_callback=None,
                seed_everything_default=0,
                auto_configure_optimizers=False,
                load_from_checkpoint_support=False,
                parser_kwargs={"allow_abbrev": False, "exit_on_error": False},
                trainer_defaults={"use_distributed_sampler": False, "enable_model_summary": False},
            )
        except ArgumentError as error:
            raise UserError(explain(error, settings)) from error
        except ValueError as error:
            mistake = find_user_error(error)
            if mistake is None:
                raise
            raise mistake from None

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parses, and looks at the seed: Lightning would name neither its key nor its bounds."""
        super().parse_arguments(parser, args)
        restore_tasks(self.config["data"], self.settings.tree["data"])
        if self.prints:
            print(self.dump(self.config), end="")
            sys.exit()
        seed = self.config["seed_everything"]
        if not 0 <= seed < 2**32:
            raise UserError(f"seed_everything is {seed}; it must be from 0 to {2**32 - 1}")
        data = self.config["data"].as_dict()
        model = self.config["model"].as_dict()
        refuse_unmakeable({"data": data})
        refuse_unmakeable(model, "model", MultiTaskModel)
        refuse_unfit_optimizer(model)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Links what follows from the data, and adds what is the project's own."""
        # by functions, not as data.tasks: an error inside a fork's property would come out as a
        # property that is not there
        parser.link_arguments("data", "model.tasks", attrgetter("tasks"), apply_on="instantiate")
        parser.link_arguments(
            "data", "model.input_shape", attrgetter("input_shape"), apply_on="instantiate"
        )
        parser.link_arguments(
            "data", "model.groups", attrgetter("sensitive_groups"), apply_on="instantiate"
        )
        parser.link_arguments("seed_everything", "data.init_args.seed")
        parser.link_arguments("seed_everything", "model.seed")
        parser.add_argument(
            "--name", type=str | None, default=None, help="Groups runs: logs/<name>/<date-time>."
        )
        parser.add_argument("--logs", type=str, default="logs", help="Where run folders go.")
        parser.add_class_arguments(Watch, "watch")
        parser.add_class_arguments(Budget, "budget")
        parser.add_class_arguments(InitFrom, "init_from")
        parser.add_class_arguments(Finetune, "finetune")
        for flag in self.own:
            required = {"required": True} if flag.required else {"default": flag.default}
            parser.add_argument(f"--{flag.name}", type=flag.type, help=flag.help, **required)

    def instantiate_classes(self) -> None:
        """Builds data, model and trainer; what their classes refuse is the user's mistake."""
        self.find_start()
        self.config_init = self.parser.instantiate(
            self.config, instantiators=[(self.build_one, object, True)]
        )
        self.datamodule = self.config_init["data"]
        self.model = self.config_init["model"]
        self.model.finetune = self.config_init["finetune"]
        score = self.config_init["watch"].score
        self.model.score_weights = read_score_weights(score, self.model.tasks)
        self.trainer = self.instantiate_trainer()

    def find_start(self) -> None:
        """Opens the run that the weights start from, if there is one, before data are built."""
        settings = InitFrom(**self.config["init_from"].as_dict())
        source = settings.source
        if self.starts and source is not None and not is_backbone(Path(source)):
            self.start = Start(settings, self.config["model"].as_dict())

    def build_one(self, kind: type, /, *args: Any, **settings: Any) -> Any:
        """Builds a class that the configuration names; data are told of the start of the run."""
        made = build(kind, *args, **settings)
        if self.start is not None and isinstance(made, MultiTaskDataModule):
            self.start.tell_data(made)
        return made

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        """Builds the trainer with what the command adds.

        For a plan alone there is none, since the devices need not be here.
        """
        settings = self.config_init["trainer"]
        refuse_trainer_settings(settings, self.given("callbacks"))
        self.devices = Devices.from_settings(settings)
        self.forecast = Forecast(
            self.model, self.datamodule, self.devices, str(settings["precision"])
        )
        settings["strategy"] = self.find_strategy()
        if self.only_plans:
            self.acting = self.configure_offline()
            return None  # type: ignore[return-value]

        limits = self.fill_in_limits()
        added = self.trainer_settings(self) if self.trainer_settings else {}
        added["callbacks"] = [*limits, *added.get("callbacks", [])]
        for key in ("callbacks", "plugins"):
            added[key] = [*self.given(key), *added.get(key, [])]
        trainer = super().instantiate_trainer(**added, **kwargs)
        self.acting = trainer.strategy
        return trainer

    def fill_in_limits(self) -> list[L.Callback]:
        """Fills in how long to train and when to validate, where the user has said neither."""
        settings = self.config_init["trainer"]
        every = settings["check_val_every_n_epoch"]
        # with a whole number of batches, null means batches across epochs
        if every is None and not isinstance(settings["val_check_interval"], int):
            settings["check_val_every_n_epoch"] = 1
        if not self.trains or has_limit(settings):
            return []

        settings["max_epochs"] = -1  # until the data are there to count their batches
        budget = self.config_init["budget"]
        watch = self.config_init["watch"]
        theirs = any(isinstance(callback, EarlyStopping) for callback in self.given("callbacks"))
        if watch.patience is None and settings["limit_val_batches"] != 0 and not theirs:
            watch.patience = budget.patience
        return [Limits(budget, every, watch.patience)]

    @property
    def only_plans(self) -> bool:
        """Whether a plan is all that was asked for."""
        return bool(self.config.get("plan"))

    def find_strategy(self) -> Strategy | str:
        """Returns how several devices work together: as asked for, or by what fits.

        Raises:
            UserError: There is no such strategy.
        """
        asked = self.config_init["trainer"]["strategy"]
        if asked == "auto" and self.devices.count > 1:
            name = DDP.strategy_name
            if self.trains:
                name, self.why = choose_strategy(self.devices, self.forecast.load())
            return next(kind for kind in find_ours(Strategy) if name in names_of(kind))()
        if isinstance(asked, str) and asked != "auto" and asked not in StrategyRegistry:
            hint = hint_at(asked, [*choices("strategy"), "auto"])
            raise UserError(f"--strategy {asked} is unknown; {hint}")
        return asked

    def configure_offline(self) -> Strategy | None:
        """Returns the strategy that a Trainer would have made of these settings.

        It is None for one device.
        """
        settings = self.config_init["trainer"]
        asked = settings["strategy"]
        if asked == "auto":
            return None
        strategy = StrategyRegistry.get(asked) if isinstance(asked, str) else asked
        return configure_offline(strategy, self.devices, str(settings["precision"]))

    def plan(self) -> Plan:
        """Returns what the run will be on its devices.

        Training on one device is planned without a look at the data.
        """
        accumulated = self.config_init["trainer"]["accumulate_grad_batches"] or 1
        measures = self.only_plans or self.devices.count > 1
        return self.forecast.plan(self.acting, accumulated, measures, self.why)

    def given(self, key: str) -> list[Any]:
        """Returns the user's value of a setting of the Trainer that may be one thing or several."""
        value = self.config_init["trainer"][key] or []
        return value if isinstance(value, list) else [value]

    def before_instantiate_classes(self) -> None:
        """Refuses what cannot run on these devices, before anything is built."""
        settings = self.config["trainer"]
        for key, value in resolve_topology(settings, offline=self.only_plans).items():
            settings[key] = value
        if settings["num_nodes"] > 1 and not self.only_plans:
            # without a launcher each node's first process would take itself for the first of all,
            # until there is a Trainer
            rank_zero_only.rank = rank_zero_only.rank or int(os.environ.get("NODE_RANK", 0))  # type: ignore[attr-defined]
            if (address := find_main_address()) is not None:
                choose_interface(address)
        if not self.only_plans:
            refuse_lone_ranks(settings["num_nodes"])
        renew_meeting_place()
        if self.parsed:
            self.parsed(self)

    def after_instantiate_classes(self) -> None:
        """Refuses what cannot run on these devices, before any of them starts."""
        rows = self.datamodule.batch_size
        devices = getattr(self.acting, "replicas", self.devices.count)
        if rows < devices:
            raise UserError(
                f"data.batch_size is {rows}, the rows of a step on all devices together, but "
                f"{devices} devices read rows of their own: use --batch_size {devices} or more"
            )
        check_episodes(self.datamodule, self.model, self.acting)
        if self.start is not None:
            self.start.fill(self.model, self.datamodule)
        self.model.check(self.config_init["trainer"]["accumulate_grad_batches"] or 1)
        if self.trains:
            self.model.balancer.try_out()
            refuse_idle_schedule(self.config["model"].as_dict(), self.config_init["trainer"])
        if isinstance(self.acting, MultiTaskStrategy):
            self.acting.rows = -(-rows // devices)
            self.acting.check(self.model)
            if self.trains:
                refuse_spread_optimizer(self.model, self.acting)

    @property
    def yaml(self) -> str:
        """The resolved configuration, as a file that --config reads."""
        config = self.config.clone()
        settings = config["data"].get("init_args")
        if settings is not None and "schema_path" in settings:
            # it is of the run that is open, not of one that starts from this file
            settings["schema_path"] = None
        for key in OF_A_CALL:
            config.pop(key, None)
        return self.dump(config)

    def dump(self, config: Namespace) -> str:
        """Returns settings as a file that --config reads."""
        tree = load(self.parser.dump(config, skip_none=False))
        restore_tasks(tree["data"], self.settings.tree["data"])
        header = "".join(f"# {line}\n" for line in self.parser.dump_header or ())
        return header + dump(tree)


def restore_tasks(parsed: Any, given: Any) -> None:
    """Puts the settings of tasks back as they were given.

    Their type is any, since a kind may be left to the data. Of such values jsonargparse takes text
    for numbers, and fills in the defaults of each class that it can import.

    Args:
        parsed: The settings of a class of data, as parsed.
        given: The same settings before.
    """
    if not isinstance(given, dict):
        return
    for name, value in given.items():
        if name not in parsed:
            continue
        if name == "tasks":
            parsed[name] = value
        else:
            restore_tasks(parsed[name], value)
