"""Parameter groups: which parameters share a rate, a rule and a score."""

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from torch import nn

from src.models.encoders import Encoder
from src.models.sharing import Sharing, StackedEncoders
from src.models.sharing.stacked_layers import StackedLinear

if TYPE_CHECKING:
    from src.models.module import MultiTaskModel

# of one layer, or of K layers side by side
Matrices = Literal["single", "stacked"]

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True)
class Grouping:
    """How far parameters are split into groups, besides by their rates.

    Attributes:
        by_task: Each task's own parameters are groups apart, for schedules that look at tasks.
        by_matrix: Matrices of the encoders are groups apart, for optimizers that treat them so.
    """

    by_task: bool = False
    by_matrix: bool = False


class Part(NamedTuple):
    """The place of a parameter of the sharing architecture.

    Attributes:
        task: The one task that owns it; None where several do.
        stage: The number of its stage; None for none, or where stages do not matter.
        matrices: The kind of matrices that it holds; None for none.
    """

    task: str | None
    stage: int | None
    matrices: Matrices | None

    @property
    def name(self) -> str:
        """The name of the group."""
        words = ["encoder"] if self.task is None else [self.task, "encoder"]
        if self.stage is not None:
            words.append(str(self.stage))
        if self.matrices is not None:
            words.append("matrices" if self.matrices == "single" else "stacks")
        return ".".join(words)


def parameter_groups(
    model: "MultiTaskModel", lr: float, grouping: Grouping | None = None
) -> list[dict[str, Any]]:
    """Returns the optimizer's groups by name: 'encoder', 'heads', single heads, 'balancer'.

    'encoder' is all of the sharing architecture. Heads at one rate are one group, since an
    optimizer pays for every group in every step; a head with a multiplier is a group by its task's
    name. The parameters of a balancer are no weights of the network, and do not decay. With a stage
    decay below 1, stage k of K is a group 'encoder.k' at lr x decay^(K - 1 - k); parameters outside
    the stages keep the whole rate.

    Where groups are by task, each head is a group, and so are the parameters of the architecture
    that one task owns, '<task>.encoder'; a group of one task has the task under 'task'. Where they
    are by matrix, 'encoder.matrices' and 'encoder.stacks' hold the matrices of the encoders, and
    have their kind under 'matrices'.

    Args:
        model: The model, built.
        lr: The learning rate.
        grouping: How far parameters are split; None for as far as the rates ask for.
    """
    grouping = grouping or Grouping()
    multipliers = model.lr_multipliers
    decay = model.stage_decay
    owner_of = find_owners(model.sharing) if grouping.by_task else {}
    kind_of = find_matrices(model.sharing) if grouping.by_matrix else {}
    parts: dict[Part, list[nn.Parameter]] = defaultdict(list)
    for name, p in model.sharing.named_parameters():
        stage = stage_of(name) if decay < 1 else None
        parts[Part(owner_of.get(id(p)), stage, kind_of.get(id(p)))].append(p)
    top = max((part.stage for part in parts if part.stage is not None), default=0)

    found: list[dict[str, Any]] = []

    def add(
        name: str, parameters: list[nn.Parameter], factor: float, **more: str | float | None
    ) -> None:
        if parameters:
            known = {key: value for key, value in more.items() if value is not None}
            found.append({"name": name, "params": parameters, "lr": lr * factor, **known})

    for part, parameters in parts.items():
        below = 0 if part.stage is None else top - part.stage
        factor = multipliers.get("encoder", 1.0) * decay**below
        add(part.name, parameters, factor, task=part.task, matrices=part.matrices)

    heads = {name: list(model.heads[name].parameters()) for name in model.tasks}
    apart = set(heads) if grouping.by_task else set(multipliers)
    add("heads", [p for task, own in heads.items() if task not in apart for p in own], 1.0)
    for task, own in heads.items():
        if task in apart:
            known_as = task if grouping.by_task else None
            add(task, own, multipliers.get(task, 1.0), task=known_as)

    factor = multipliers.get("balancer", 1.0)
    add("balancer", list(model.balancer.parameters()), factor, weight_decay=0.0)
    return found


def stage_of(name: str) -> int | None:
    """Returns the encoder's stage that a parameter belongs to, by its name; None for no stage.

    Stages keep their numbers when an architecture cuts an encoder.
    """
    found = re.search(r"(?:^|\.)stages\.(\d+)\.", name)
    return int(found[1]) if found else None


def find_owners(sharing: Sharing) -> Mapping[int, str]:
    """Returns {id of a parameter: the one task that reaches it}.

    A parameter that is a stack of parts, one of each task, belongs to no single task.
    """
    found: dict[int, str] = {}
    for owned in sharing.owners():
        if len(owned.tasks) == 1 and not owned.slices and len(sharing.tasks) > 1:
            found |= {id(p): owned.tasks[0] for p in owned.parameters}
    return found


def find_matrices(sharing: Sharing) -> Mapping[int, Matrices]:
    """Returns {id of a parameter: the kind of matrices that it is} for the encoders' layers.

    They are the weights of linear layers and convolutions. Embeddings, norms, biases, and all that
    an architecture has around its encoders, such as gates, are no such matrices.
    """
    found: dict[int, Matrices] = {}
    for encoder in sharing.modules():
        if not isinstance(encoder, Encoder | StackedEncoders):
            continue
        for layer in encoder.modules():
            if isinstance(layer, LAYERS):
                found[id(layer.weight)] = "single"
            elif isinstance(layer, StackedLinear):
                found[id(layer.weight)] = "stacked"
    return found
