"""Trains with every sharing architecture under three balancers, one after the other, and keeps the final weights: for torchrun.

python -m torch.distributed.run --nproc_per_node 2 -m tests.integration.every_sharing OUT 2
"""

import sys
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.distributed as dist
from torch.optim import SGD

from src.balancing import PCGrad, StaticWeights
from src.cli import quiet
from src.models import MultiTaskModel
from src.models.encoders import MLP
from tests.models.test_matrix import SHARINGS
from tests.toy import Toy, bare_trainer

BALANCERS: dict[str, Any] = {
    "static": StaticWeights,
    "features": partial(PCGrad, level="features"),
    "parameters": partial(PCGrad, level="parameters"),
}


def cases() -> list[tuple[str, str]]:
    """(sharing, balancer) of all that can run: where tasks read the same features, at their level too."""
    return [(name, key) for name in SHARINGS for key in BALANCERS if key != "features" or name == "HardSharing"]


def model_of(sharing: str, balancer: str) -> MultiTaskModel:
    """A small network with dropout."""
    data = Toy()
    parts: Any = SHARINGS[sharing], BALANCERS[balancer], partial(SGD, lr=0.02), None
    return MultiTaskModel(data.tasks, data.input_shape, partial(MLP, width=8, depth=1, dropout=0.2), *parts)


def train(sharing: str, balancer: str, devices: int = 1, resume: Path | None = None, *callbacks: L.Callback) -> L.Trainer:
    """One short run, on data with missing labels and a task that most batches lack."""
    trainer = bare_trainer(devices, 3, callbacks=list(callbacks))
    trainer.fit(model_of(sharing, balancer), Toy(), ckpt_path=resume)
    return trainer


if __name__ == "__main__":
    quiet()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    states = {case: train(*case, devices=int(sys.argv[2])).lightning_module.state_dict() for case in cases()}
    if not dist.is_initialized() or dist.get_rank() == 0:
        torch.save(states, sys.argv[1])
