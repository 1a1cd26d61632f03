"""Parameter groups, and the rate of each."""

import re
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from torch import nn


def parameter_groups(
    encoder: Mapping[str, nn.Parameter],
    heads: Mapping[str, list[nn.Parameter]],
    balancer: list[nn.Parameter],
    multipliers: Mapping[str, float],
    stage_decay: float,
    lr: float,
) -> list[dict[str, Any]]:
    """Returns the optimizer's groups by name: 'encoder', 'heads', single heads, 'balancer'.

    'encoder' is all of the sharing architecture. Heads at one rate are one group, since an
    optimizer pays for every group in every step; a head with a multiplier is a group by its task's
    name. The parameters of a balancer are no weights of the network, and do not decay. With a stage
    decay below 1, stage k of K is a group 'encoder.k' at lr x decay^(K - 1 - k); parameters outside
    the stages keep the whole rate.

    Args:
        encoder: The parameters of the sharing architecture by name.
        heads: The parameters of each task's head.
        balancer: The balancer's parameters.
        multipliers: Factors on the rate of 'encoder', 'balancer' or a task.
        stage_decay: The factor from each stage to the one below.
        lr: The learning rate.
    """
    stages: dict[int | None, list[nn.Parameter]] = defaultdict(list)
    for name, p in encoder.items():
        stages[stage_of(name) if stage_decay < 1 else None].append(p)
    top = max((k for k in stages if k is not None), default=0)

    found: list[dict[str, Any]] = []

    def add(name: str, parameters: list[nn.Parameter], factor: float) -> None:
        if parameters:
            found.append({"name": name, "params": parameters, "lr": lr * factor})

    of_encoder = multipliers.get("encoder", 1.0)
    for k, parameters in stages.items():
        if k is None:
            add("encoder", parameters, of_encoder * 1.0)
        else:
            add(f"encoder.{k}", parameters, of_encoder * stage_decay ** (top - k))
    together = [p for task, own in heads.items() if task not in multipliers for p in own]
    add("heads", together, 1.0)
    for task, own in heads.items():
        if task in multipliers:
            add(task, own, multipliers[task])
    if balancer:
        add("balancer", balancer, multipliers.get("balancer", 1.0))
        found[-1]["weight_decay"] = 0.0
    return found


def stage_of(name: str) -> int | None:
    """Returns the encoder's stage that a parameter belongs to, by its name; None for no stage.

    Stages keep their numbers when an architecture cuts an encoder.
    """
    found = re.search(r"(?:^|\.)stages\.(\d+)\.", name)
    return int(found[1]) if found else None
