"""The parts of a network by the names that a person gives them."""

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from torch import nn

from src.errors import UserError, suggest_or_list
from src.models.encoders import Encoder
from src.models.sharing import Sharing, StackedEncoders

if TYPE_CHECKING:
    from src.models.network import MultiTaskNetwork


def find_encoders(sharing: Sharing) -> dict[str, nn.Module]:
    """Returns {path below the architecture: an encoder, or several side by side}."""
    found: dict[str, nn.Module] = {}
    for path, module in sharing.named_modules():
        inner = any(path.startswith(f"{outer}.") for outer in found)
        if isinstance(module, Encoder | StackedEncoders) and not inner:
            found[path] = module
    return found


def list_names(model: "MultiTaskNetwork") -> list[str]:
    """Returns the names of the parts, for people."""
    stages = set()
    for name, _ in model.sharing.named_parameters():
        stage = re.search(r"(?:^|\.)(stages\.\d+)\.", name)
        if stage:
            stages.add(stage[1])
    children = {
        name
        for name, child in model.sharing.named_children()
        if any(True for _ in child.parameters())
    }
    heads = [f"heads.{task}" for task in model.tasks]
    by_number = sorted(stages, key=lambda stage: int(stage.partition(".")[2]))
    others = sorted(children - {"encoder"})
    return ["encoder", *by_number, "sharing", *others, "heads", *heads]


def select_parameters(model: "MultiTaskNetwork", part: str, key: str) -> set[str]:
    """Returns the names in the model of the parameters of a part.

    Args:
        model: The model, built.
        part: Its name: encoder, stages.0, sharing, heads, heads.<task>, or the path of a module.
        key: The setting that names it.

    Raises:
        UserError: There is no such part.
    """
    names = [name for name, _ in model.named_parameters()]
    of_sharing = [name for name in names if name.startswith("sharing.")]
    task = part.removeprefix("heads.")
    if part == "encoder":
        found = below(of_sharing, (f"sharing.{path}" for path in find_encoders(model.sharing)))
    elif part in ("sharing", "heads"):
        found = below(names, [part])
    elif part.startswith("heads.") and task in model.tasks:
        found = below(names, [f"heads.{model.heads.paths[task]}"])
    else:
        path = part.removeprefix("sharing.")
        found = below(of_sharing, [f"sharing.{path}"])
        if not found:
            # a stage of each encoder, whatever the architecture calls them
            stage = path.removeprefix("encoder.")
            if re.match(r"stages\.\d", stage):
                found = {name for name in of_sharing if f".{stage}." in name}
    if not found:
        hint = suggest_or_list(part, list_names(model))
        raise UserError(f"{key} names '{part}', which is no part of the network; {hint}")
    return found


def below(names: Iterable[str], paths: Iterable[str]) -> set[str]:
    """Returns the names that are one of some paths, or lie below it."""
    outer = list(paths)
    return {
        name for name in names if any(name == path or name.startswith(f"{path}.") for path in outer)
    }
