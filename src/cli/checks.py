"""What a configuration must not be, found before anything is built of it."""

import importlib
import inspect
import math
from collections.abc import Mapping, Sequence
from types import NoneType
from typing import Any, get_args, get_type_hints

from lightning.pytorch.callbacks import StochasticWeightAveraging

from src.cli.classes import choices
from src.errors import UserError

# optimizers that torch has, and that cannot train any of our models
UNFIT = {
    "SparseAdam": "takes sparse gradients alone, and those of a model here are dense",
    "LBFGS": "takes one group of parameters alone, and a model here has several",
    "Muon": "takes matrices alone, and a model here has biases, too",
    "Optimizer": "is a contract, no class to use",
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
    name = path.rpartition(".")[2]
    if path.startswith("torch.optim.") and name in UNFIT:
        raise UserError(f"model.optimizer: {name} {UNFIT[name]}; use AdamW, Adam or SGD")


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


def refuse_unmakeable(settings: Mapping[str, Any], key: str = "", owner: Any = None) -> None:
    """Looks for what a type alone does not tell: null where a class allows none, functions, and classes that are only a contract.

    Args:
        settings: The parsed configuration, or a part of it.
        key: What it is the value of.
        owner: The class whose settings these are.

    Raises:
        UserError: There is one.
    """
    hints = hints_of(owner) if owner else {}
    for name, value in settings.items():
        path = f"{key}.{name}" if key else name
        if (
            value is None
            and name in hints
            and NoneType not in get_args(hints[name])
            and hints[name] not in (Any, NoneType)
        ):
            raise UserError(f"{path} is null, but {owner.__name__} needs a value there")
        if isinstance(value, Mapping) and "class_path" not in value:
            refuse_unmakeable({k: v for k, v in value.items() if v is not None}, path)
        for item in value if isinstance(value, list) else [value]:
            refuse_function(item, path)
            if isinstance(item, Mapping) and "class_path" in item:
                module, _, short = str(item["class_path"]).rpartition(".")
                theclass = getattr(importlib.import_module(module), short, None) if module else None
                refuse_function(theclass, path)
                if inspect.isabstract(theclass):
                    raise UserError(
                        f"{path}: {short} is a contract, no class to use; known are {', '.join(choices(path))}"
                    )
                refuse_unmakeable(item.get("init_args") or {}, path, theclass)


def refuse_function(value: Any, key: str) -> None:
    """Refuses a function where a class is chosen: whoever opens the run would have to call it unseen.

    Raises:
        UserError: It is one.
    """
    if inspect.isroutine(value):
        raise UserError(f"{key}: {value.__name__} is a function, and a class is expected")


def hints_of(owner: Any) -> dict[str, Any]:
    """The types of a class's settings, where they can be told."""
    try:
        return get_type_hints(owner.__init__)
    except (NameError, TypeError):
        return {}
