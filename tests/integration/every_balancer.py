"""Trains with every balancer at each of its levels, one after the other, and keeps the final weights: for torchrun.

python -m torch.distributed.run --nproc_per_node 2 -m tests.integration.every_balancer OUT 2 [accumulated]
"""

import sys
import warnings
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch.optim import SGD

import src.balancing
from src.balancing import Balancer, LossBalancer
from src.balancing.balancer import OnHost
from src.cli import quiet
from src.models import MultiTaskModel
from src.models.encoders import MLP
from src.parser import subclasses
from tests.toy import Toy, bare_trainer

# the rate of the network: small where a method's direction is much longer than the gradients
RATES = {"FairGrad": 0.002, "NashMTL": 0.01, "ConFIG": 0.02, "DualBalance": 0.02, "LogSum": 0.02}


def methods() -> list[tuple[str, str | None, int]]:
    """(method, level, micro-batches per step) of all that can run."""
    found: list[tuple[str, str | None, int]] = []
    kinds: list[Any] = subclasses(Balancer)
    for kind in sorted(kinds, key=lambda kind: kind.__name__):
        if not kind.__module__.startswith("src."):
            continue
        levels = kind.levels if issubclass(kind, OnHost) else (None,)
        for level in levels:
            found += [
                (kind.__name__, level, several) for several in (1, 3) if several == 1 or (kind.accumulates and level != "features")
            ]
    return found


def train(name: str, level: str | None, several: int, epochs: int = 3) -> MultiTaskModel:
    """One short run, with clipping, on data with missing labels and a task that most batches lack."""
    data = Toy()
    kind = getattr(src.balancing, name)
    extra: dict[str, Any] = {"beta": 0.5} if (name, level) == ("DualBalance", "parameters") else {}
    balancer = partial(kind, **extra) if issubclass(kind, LossBalancer) else partial(kind, level=level, **extra)
    parts: dict[str, Any] = {
        "encoder": partial(MLP, width=16, dropout=0.1),
        "optimizer": partial(SGD, lr=RATES.get(name, 0.05)),
        "scheduler": None,
    }
    model = MultiTaskModel(data.tasks, data.input_shape, balancer=balancer, **parts)
    trainer = bare_trainer(int(sys.argv[2]), epochs, accumulate_grad_batches=several, gradient_clip_val=2.0)
    trainer.fit(model, data)
    return model


if __name__ == "__main__":
    quiet()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    accumulated = "accumulated" in sys.argv
    states = {method: train(*method).state_dict() for method in methods() if (method[2] > 1) == accumulated}
    if not dist.is_initialized() or dist.get_rank() == 0:
        torch.save(states, sys.argv[1])
