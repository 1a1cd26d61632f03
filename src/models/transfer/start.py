"""Starts a model from a trained one: part by part, with a reason for each part."""

from collections.abc import Mapping, Sequence
from typing import Any

from src.errors import UserError, suggest_or_list
from src.models.heads import name_heads
from src.models.network import MultiTaskNetwork
from src.models.transfer.heads import start_head
from src.models.transfer.lora import strip_adapters
from src.models.transfer.report import PartReport
from src.models.transfer.sharing import get_architecture, name_part, start_sharing
from src.models.transfer.source import Source


def start_from(
    model: MultiTaskNetwork,
    source: Source,
    parts: Sequence[str] | None = None,
    inputs: Sequence[Mapping[str, Any]] = (),
) -> list[PartReport]:
    """Gives a model the weights of a trained one, as far as they fit.

    Tasks are matched by name, and their outputs too: classes, labels, columns of a vector. A model
    whose tasks are all the source's then predicts what the source did, to the bit.

    Args:
        model: The model, which is built if it is not.
        source: The trained model.
        parts: The parts that start from it, such as encoder, heads or heads.income; the others are
            fresh. None takes all that fit.
        inputs: The entries of the model's input columns in a schema; none where inputs have no
            columns.

    Returns:
        What became of each part.

    Raises:
        UserError: There is no such part, or the source has another encoder, width or input.
    """
    model.configure_model()
    wanted = None if parts is None else find_parts(model, parts)
    reports = start_sharing(model, source, wanted, inputs)
    paths = name_heads(source.tasks)
    for name, task in model.tasks.items():
        part = f"heads.{name}"
        if wanted is not None and part not in wanted:
            reports.append(PartReport(part, "fresh", "not among init_from.parts"))
        elif name not in source.tasks:
            reports.append(PartReport(part, "fresh", "a new task"))
        else:
            state = source.entries(f"heads.{paths[name]}.")
            described = source.tasks[name]
            report = start_head(name, task, model.heads[name], described, state)
            reports.append(report)
            if report.status == "kept":
                model.chosen_tasks[name] = task.restore_choice(described)
    gone = [name for name in source.tasks if name not in model.tasks]
    return reports + [
        PartReport(f"heads.{name}", "dropped", "this run has no such task") for name in gone
    ]


def list_parts(model: MultiTaskNetwork) -> list[str]:
    """Returns the names of the parts of a model."""
    state = strip_adapters(get_architecture(model).state_dict())
    keys = [tuple(name.split(".")) for name in state]
    return [*dict.fromkeys(map(name_part, keys)), *(f"heads.{name}" for name in model.tasks)]


def find_parts(model: MultiTaskNetwork, parts: Sequence[str]) -> list[str]:
    """Returns the parts that names stand for: heads stands for each head.

    Raises:
        UserError: There is no such part, or no name is given.
    """
    known = list_parts(model)
    groups = list(dict.fromkeys(part.partition(".")[0] for part in known if "." in part))
    found: list[str] = []
    for part in parts:
        below = [name for name in known if name == part or name.startswith(f"{part}.")]
        if not below:
            hint = suggest_or_list(part, [*known, *groups])
            raise UserError(f"init_from.parts names '{part}', which is no part of this run; {hint}")
        found += below
    if not found:
        raise UserError(
            f"init_from.parts is empty: name parts, such as [{known[0]}], or leave it out"
        )
    return found
