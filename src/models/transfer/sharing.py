"""The architecture of a model from that of a trained one, with other tasks or another encoder."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from src.errors import UserError
from src.models.encoders.columns import OfColumn
from src.models.network import MultiTaskNetwork
from src.models.sharing.sharing import Sharing, owner_names
from src.models.transfer.inputs import move_columns
from src.models.transfer.lora import strip_adapters
from src.models.transfer.named_tensors import NamedTensor, copy_by_name, fits, name_all
from src.models.transfer.report import PartReport
from src.models.transfer.source import Source
from src.models.transfer.task_axes import Key, Place, TaskAxes, find_task_axes

Entries = dict[Key, NamedTensor]
ENCODER = "encoder"


def name_part(key: Key) -> str:
    """Returns the part that an entry of an architecture belongs to."""
    return ENCODER if key[0] == ENCODER else f"sharing.{key[0]}"


def start_sharing(
    model: MultiTaskNetwork,
    source: Source,
    wanted: Sequence[str] | None,
    inputs: Sequence[Mapping[str, Any]] = (),
) -> list[PartReport]:
    """Fills the parts of an architecture from a source.

    Args:
        model: The model, built.
        source: The source.
        wanted: The parts that are to be filled; None for all.
        inputs: The entries of the model's input columns in a schema.

    Raises:
        UserError: A part differs from that of the source in more than its tasks.
    """
    ours, theirs = name_states(model, source)
    columns = ""
    if wanted is None or any(name_part(key) in wanted for key in ours):
        ours, theirs, columns = move_columns(model, source, inputs, ours, theirs)
    parts = list(dict.fromkeys(map(name_part, ours)))
    others = list(dict.fromkeys(map(name_part, theirs)))
    reports = []
    matched: dict[str, list[Key]] = {}
    for part in parts:
        if wanted is not None and part not in wanted:
            reports.append(PartReport(part, "fresh", "not among init_from.parts"))
        elif part not in others:
            reports.append(PartReport(part, "fresh", describe_lack(model, source)))
        else:
            matched[part] = match_part(part, ours, theirs, model, source)

    # every part fits before any is changed
    for part, keys in matched.items():
        report = copy_part(part, keys, ours, theirs, model, source)
        if columns and any(has_columns(ours[key]) for key in keys):
            why = "; ".join(filter(None, [report.why, columns]))
            report = PartReport(part, "grown" if "new" in why else report.status, why)
        reports.append(report)
    if not matched and (wanted is None or set(wanted) & set(parts)):
        kind = type(get_architecture(model)).__name__
        raise UserError(
            f"{source.path}: shares by {source.sharing or 'another architecture'}, and this run by "
            f"{kind}, with no part in common: take the same --model.sharing, or --init_from.parts "
            "'[heads]'; HardSharing, MTAN, AITM and TaskAdapters have one encoder in common"
        )
    reports += [PartReport(p, "dropped", "this run has none") for p in others if p not in parts]
    return sorted(reports, key=lambda report: [*parts, *others].index(report.part))


def get_architecture(model: MultiTaskNetwork) -> Sharing:
    """Returns the architecture of a model, without what selects its inputs."""
    if model.selection is None:
        return model.sharing
    return model.selection.architecture


def describe_lack(model: MultiTaskNetwork, source: Source) -> str:
    """Says why a part is not among those of the source."""
    if source.sharing is None or source.sharing == type(get_architecture(model)).__name__:
        return "the source has none"
    return f"the source shares by {source.sharing}"


def name_states(model: MultiTaskNetwork, source: Source) -> tuple[Entries, Entries]:
    """Names the entries of the architectures of a model and of a source, after tasks."""
    state = strip_adapters(get_architecture(model).state_dict())
    there = strip_adapters(source.entries("sharing."))
    inner = "architecture."
    if any(name.startswith(inner) for name in there):
        # what selects inputs stands around it
        there = {n.removeprefix(inner): t for n, t in there.items() if n.startswith(inner)}
    if source.sharing not in (None, type(get_architecture(model)).__name__):
        return name_plainly(state), name_other_encoder(state, there)
    if model.sharing.one_feature or list(source.tasks) == list(model.tasks):
        return name_plainly(state), name_plainly(there)
    axes = find_axes(model, source)
    return axes.describe(state, list(model.tasks)), axes.describe(there, list(source.tasks))


def name_plainly(state: Mapping[str, Tensor]) -> Entries:
    """Names entries as they are."""
    return {tuple(name.split(".")): NamedTensor(tensor) for name, tensor in state.items()}


def name_other_encoder(state: Mapping[str, Tensor], there: Mapping[str, Tensor]) -> Entries:
    """Names the entries of another architecture, whose one encoder may stand in for that of ours.

    An architecture that changes the weights of its encoder as it runs has them with a dimension of
    length 1 in front.
    """
    found: Entries = {}
    for name, tensor in there.items():
        ours = state.get(name)
        if ours is not None and name.startswith(f"{ENCODER}."):
            if ours.shape == (1, *tensor.shape):
                tensor = tensor[None]
            elif tensor.shape == (1, *ours.shape):
                tensor = tensor[0]
        found[tuple(name.split("."))] = NamedTensor(tensor)
    return found


def find_axes(model: MultiTaskNetwork, source: Source) -> TaskAxes:
    """Finds where tasks lie in the architecture.

    Raises:
        UserError: Its settings are for the model's tasks alone.
    """
    make_encoder = partial(model.make_encoder, model.input_shape)
    try:
        with torch.random.fork_rng(devices=[]):
            return find_task_axes(partial(model.make_sharing, make_encoder))
    except UserError:
        kind = type(get_architecture(model)).__name__
        raise UserError(
            f"{source.path}: has the tasks {name_all(list(source.tasks))}, and this run "
            f"{name_all(list(model.tasks))}; the settings of {kind} name tasks, so that no weights "
            "can move to others: keep the tasks and their order"
        ) from None


def find_tasks(labels: Iterable[Hashable]) -> list[str]:
    """Returns the tasks that labels of positions name."""
    tasks = [label.task for label in labels if isinstance(label, Place) and label.task]
    return list(dict.fromkeys(tasks))


def match_part(
    part: str, ours: Entries, theirs: Entries, model: MultiTaskNetwork, source: Source
) -> list[Key]:
    """Returns the entries of a part that both have.

    Raises:
        UserError: They differ in more than their tasks.
    """
    here = [key for key in ours if name_part(key) == part]
    there = [key for key in theirs if name_part(key) == part]
    alone = [(key, "this run has", source.path) for key in here if key not in theirs]
    alone += [(key, f"{source.path} has", "this run") for key in there if key not in ours]
    for key, has, lacks in alone:
        # modules of a task, or of a column, come and go with it
        if not find_tasks(key) and not isinstance(key[-1], OfColumn):
            raise UserError(
                f"{source.path}: does not fit this run: {has} {spell(key)}, and {lacks} has none: "
                "take the same encoder, as deep as there"
            )
    both = [key for key in here if key in theirs]
    for key in both:
        if not fits(ours[key], theirs[key]):
            raise UserError(
                f"{source.path}: does not fit this run: {spell(key)} is of shape "
                f"{tuple(theirs[key].tensor.shape)} there, and "
                f"{tuple(ours[key].tensor.shape)} here"
            )
    return both


def has_columns(entry: NamedTensor) -> bool:
    """Returns whether positions of an entry have the names of columns."""
    return any(not isinstance(axis.labels[0], Place) for axis in entry.axes.values())


def spell(key: Key) -> str:
    """Returns the name of an entry for people."""
    return ".".join(part.task if isinstance(part, Place) else str(part) for part in key)


def copy_part(
    part: str,
    keys: Sequence[Key],
    ours: Entries,
    theirs: Entries,
    model: MultiTaskNetwork,
    source: Source,
) -> PartReport:
    """Fills the entries of a part, and says what is new in it and what is gone."""
    # entries are in the order of the state
    architecture = get_architecture(model)
    names = dict(zip(ours, strip_adapters(architecture.state_dict()), strict=True))
    owners = strip_adapters(owner_names(architecture))
    new: set[str] = set()
    gone: set[str] = set()
    crosses = False
    for key in keys:
        copied = copy_by_name(ours[key], theirs[key])
        new |= set(find_tasks(copied.new))
        gone |= set(find_tasks(copied.gone))
        is_shared = len(owners.get(names[key], ())) > 1
        crosses |= is_shared and bool(find_tasks(copied.new | copied.gone))
    for entries, others, tasks in ((ours, theirs, new), (theirs, ours, gone)):
        for key in entries:
            if name_part(key) == part and key not in others:
                own = find_tasks(key)
                tasks |= set(own)
                crosses |= bool(own) and len(owners.get(names.get(key, ""), ())) > 1

    why = []
    if new:
        why.append(f"new: {name_all([task for task in model.tasks if task in new])}")
    if gone:
        why.append(f"gone: {name_all([task for task in source.tasks if task in gone])}")
    if crosses:
        why.append("tasks read each other here, so that predictions change")
    return PartReport(part, "grown" if new else "kept", "; ".join(why))
