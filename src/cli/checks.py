"""Refuses configurations that cannot be right, before anything is built of them."""

import importlib
import inspect
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import (
    BatchSizeFinder,
    LearningRateFinder,
    StochasticWeightAveraging,
)

from src.cli.classes import choices
from src.cli.hints import settings_of
from src.errors import UserError
from src.models import MultiTaskModel
from src.models.optimisation import AT_VALIDATION, refuse_spread
from src.monitoring import Watch
from src.parallel import FSDP, MultiTaskStrategy, Pipeline

# optimizers that cannot train any of our models, and why
MATRICES = "takes matrices alone, and a model here has biases, too: use MuonAdamW"
CURVATURE = "takes derivatives of gradients, and a step here has none: use AdamW, Adam or SGD"
UNFIT = {
    "torch": {
        "SparseAdam": (
            "takes sparse gradients alone, and those of a model here are dense; use AdamW, Adam or "
            "SGD"
        ),
        "LBFGS": (
            "takes one group of parameters alone, and a model here has several; use AdamW, Adam or "
            "SGD"
        ),
        "Muon": MATRICES,
        "Optimizer": "is a contract, no class to use; use AdamW, Adam or SGD",
    },
    "pytorch_optimizer": {
        **dict.fromkeys(("Muon", "AdaMuon", "NorMuon", "DistributedMuon", "MuonClip"), MATRICES),
        **dict.fromkeys(("AdaHessian", "SophiaH"), CURVATURE),
    },
}


def refuse_unfit_optimizer(model: Mapping[str, Any]) -> None:
    """Refuses optimizers that would fail at the first step.

    Raises:
        UserError: It is one of these, or its learning rate is no number.
    """
    optimizer = model.get("optimizer") or {}
    path = optimizer.get("class_path", "")
    rate = (optimizer.get("init_args") or {}).get("lr")
    if isinstance(rate, float) and not math.isfinite(rate):
        raise UserError(f"model.optimizer.lr is {rate}; it must be a finite number")
    package = path.partition(".")[0]
    name = path.rpartition(".")[2]
    if name in UNFIT.get(package, {}):
        raise UserError(f"model.optimizer: {name} {UNFIT[package][name]}")


def refuse_spread_optimizer(model: MultiTaskModel, strategy: MultiTaskStrategy) -> None:
    """Refuses an optimizer that would take other steps where processes have parts of the network.

    Raises:
        UserError: It would.
    """
    if isinstance(strategy, FSDP | Pipeline):
        refuse_spread(model.make_optimizer, in_shards=isinstance(strategy, FSDP))


def refuse_trainer_settings(settings: Mapping[str, Any], callbacks: Sequence[Any]) -> None:
    """Refuses settings of the Trainer that cannot be right for any model here.

    Args:
        settings: The Trainer's settings.
        callbacks: The callbacks that the user has chosen.

    Raises:
        UserError: There is one.
    """
    if settings["use_distributed_sampler"]:
        raise UserError(
            "trainer.use_distributed_sampler must stay false: the data module deals global batches "
            "to the devices"
        )
    least = {"accumulate_grad_batches": 1, "check_val_every_n_epoch": 1, "gradient_clip_val": 0}
    for key, number in least.items():
        if settings[key] is not None and settings[key] < number:
            raise UserError(f"trainer.{key} is {settings[key]}; it must be at least {number}")
    if any(isinstance(callback, StochasticWeightAveraging) for callback in callbacks):
        raise UserError(
            "StochasticWeightAveraging copies the model before it is built; use EMAWeightAveraging "
            "or WeightAveraging instead"
        )
    if str(settings["precision"]) in ("16-true", "bf16-true"):
        raise UserError(
            f"trainer.precision {settings['precision']} leaves the weights three digits; use "
            "bf16-mixed or 16-mixed"
        )
    if settings["barebones"]:
        raise UserError(
            "trainer.barebones leaves out the logger, the checkpoints and the guards that a run "
            "has; set it to false"
        )


def refuse_idle_patience(watch: Watch, settings: Mapping[str, Any]) -> None:
    """Refuses patience where it has nothing to wait for, or nothing can be kept for it.

    Args:
        watch: How the run is watched.
        settings: The Trainer's settings, with the strategy built.

    Raises:
        UserError: Settings do not go together.
    """
    for name in ("patience", "patience_by_task"):
        if getattr(watch, name) is not None and settings["limit_val_batches"] == 0:
            raise UserError(
                f"watch.{name} waits for a better validation score, but trainer.limit_val_batches "
                "is 0"
            )
    if watch.patience_by_task is None or settings["fast_dev_run"]:
        return
    if settings["enable_checkpointing"] is False:
        raise UserError(
            "watch.patience_by_task tests each task with the weights of its best epoch, but "
            "trainer.enable_checkpointing is false, which keeps none"
        )
    if getattr(settings["strategy"], "checkpoint", "file") == "folder":
        raise UserError(
            "watch.patience_by_task keeps the weights of several epochs in one file, but "
            "strategy.checkpoint is folder: use --strategy.checkpoint file"
        )


def refuse_idle_schedule(model: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Refuses a schedule that waits for scores where there is no validation.

    Args:
        model: The section model.
        settings: The Trainer's settings.

    Raises:
        UserError: It is one.
    """
    name = (model.get("scheduler") or {}).get("class_path", "").rpartition(".")[2]
    if name in {kind.__name__ for kind in AT_VALIDATION} and settings["limit_val_batches"] == 0:
        raise UserError(
            f"model.scheduler {name} waits for validation scores, but trainer.limit_val_batches is "
            "0"
        )


def refuse_unmakeable(settings: Mapping[str, Any], key: str = "", owner: Any = None) -> None:
    """Looks for what cannot be built, though its type is right.

    That is null where a class allows none, a function, and a class that is only a contract.

    Args:
        settings: The parsed configuration, or a section of it.
        key: The key of the settings.
        owner: The class whose settings these are.

    Raises:
        UserError: There is one.
    """
    hints = settings_of(owner) if owner else {}
    for name, value in settings.items():
        path = f"{key}.{name}" if key else name
        allowed = hints.get(name, (Any,))
        if value is None and not {Any, NoneType} & set(allowed):
            raise UserError(f"{path} is null, but {owner.__name__} needs a value there")
        if isinstance(value, Mapping) and "class_path" not in value:
            refuse_unmakeable({k: v for k, v in value.items() if v is not None}, path)
        for item in value if isinstance(value, list) else [value]:
            refuse_function(item, path)
            if isinstance(item, Mapping) and "class_path" in item:
                refuse_contract(item, path)


def refuse_contract(choice: Mapping[str, Any], key: str) -> None:
    """Looks at the choice of a class, and at its settings.

    Raises:
        UserError: It is a function, or a contract that no object can be made of.
    """
    module, _, name = str(choice["class_path"]).rpartition(".")
    kind = getattr(importlib.import_module(module), name, None) if module else None
    refuse_function(kind, key)
    if inspect.isabstract(kind):
        known = ", ".join(choices(key))
        raise UserError(f"{key}: {name} is a contract, no class to use; known are {known}")
    refuse_unmakeable(choice.get("init_args") or {}, key, kind)


def refuse_function(value: Any, key: str) -> None:
    """Refuses a function where a class is chosen: who opens the run would have to call it unseen.

    Raises:
        UserError: It is one.
    """
    if inspect.isroutine(value):
        raise UserError(f"{key}: {value.__name__} is a function, and a class is expected")


def refuse_place(name: str | None) -> None:
    """Refuses a name of runs that leads out of the folder of logs.

    Raises:
        UserError: It does, or it is blank.
    """
    if name is None:
        return
    if not name.strip() or Path(name).is_absolute() or ".." in Path(name).parts:
        raise UserError(
            f"--name {name}: a name groups runs below --logs; it is no path of another place"
        )


def refuse_tuners(callbacks: Sequence[L.Callback]) -> None:
    """Looks for callbacks that would change a setting which is not theirs.

    Raises:
        UserError: There is one.
    """
    for callback in callbacks:
        if isinstance(callback, LearningRateFinder):
            raise UserError(
                "trainer.callbacks LearningRateFinder sets a model's lr, but here the optimizer "
                "has it, for several groups of parameters: python -m src.lr_find tries rates for "
                "each"
            )
        if isinstance(callback, BatchSizeFinder):
            raise UserError(
                "trainer.callbacks BatchSizeFinder would change data.batch_size, on which the "
                "results depend: set --batch_size, and --trainer.accumulate_grad_batches where "
                "memory is short"
            )
