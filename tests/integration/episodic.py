"""Trains every way to learn from episodes on one topology, whole and broken off and resumed.

[python -m torch.distributed.run --nproc_per_node 2 -m] tests.integration.episodic OUT

OUT holds {name: {"losses": of every step, "whole": weights, "resumed": weights, "test": metrics}}.
"""

import os
import sys
import warnings
from functools import partial
from pathlib import Path
from typing import Any, cast

import lightning as L
import torch
import torch.distributed as dist
from torch import Tensor
from torch.optim import SGD, Adam

from src.checkpoint import SafeCheckpointIO
from src.cli.entrypoint import quiet
from src.data import Digits, Episodes, Sinusoids
from src.data.episodic import EpisodicData
from src.models import MultiTaskModel
from src.models.encoders import ConvNet, Perceptron
from src.models.meta import ANIL, MAML, Prototypes, Reptile
from src.monitoring.checkpoints import LastCheckpoint
from src.parallel import DDP
from tests.integration.resuming import BreakAt, Broken
from tests.toy import bare_trainer

# three episodes a step do not divide by two ranks, and the last step of an epoch has one alone
COUNTS: Any = {
    "episodes_per_batch": 3,
    "episodes_per_epoch": 10,
    "test_episodes": 7,
    "val_episodes": 2,
}
BREAK = 6  # within the second epoch of four steps


def sinusoids() -> EpisodicData:
    """Numbers."""
    return Sinusoids(shots=4, queries=3, test_queries=5, eval_batch_size=27, seed=3, **COUNTS)


def digits() -> EpisodicData:
    """Images of classes."""
    return Episodes(Digits(), target="digit", ways=2, queries=3, eval_batch_size=24, **COUNTS)


SMALL = partial(ConvNet, width=8, depth=1)
PLAIN = partial(Perceptron, width=8)
# name: data, encoder, way to learn, optimizer, micro-batches
CASES: dict[str, tuple[Any, Any, Any, Any, int]] = {
    "MAML": (sinusoids, PLAIN, partial(MAML, inner_steps=2), partial(Adam, lr=0.01), 1),
    "learnt rates": (
        sinusoids,
        PLAIN,
        partial(MAML, learn_rates=True, first_order=True, batched=False),
        partial(SGD, lr=0.01),
        2,
    ),
    "ANIL": (digits, SMALL, partial(ANIL, inner_lr=0.1, inner_steps=2), partial(Adam, lr=0.01), 1),
    "Reptile": (sinusoids, PLAIN, Reptile, partial(SGD, lr=0.5), 2),
    "Prototypes": (digits, SMALL, Prototypes, partial(SGD, lr=0.1), 1),
}


class Losses(L.Callback):
    """Keeps the loss of each batch over all ranks."""

    def __init__(self) -> None:
        self.found: list[Tensor] = []

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any
    ) -> None:
        losses_T = cast(MultiTaskModel, pl_module).step.losses_T
        assert losses_T is not None
        self.found.append(losses_T.detach().clone())


def train(name: str, folder: Path, breaks: bool, devices: int) -> dict[str, Any]:
    """One run, broken off and resumed or whole."""
    make_data, encoder, meta, optimizer, micro_batches = CASES[name]
    losses = Losses()
    for at in (BREAK // micro_batches, None) if breaks else (None,):
        data = make_data()
        model = MultiTaskModel(
            data.tasks,
            data.input_shape,
            encoder=encoder,
            meta=meta,
            optimizer=optimizer,
            scheduler=None,
        )
        trainer = bare_trainer(
            devices,
            3,
            strategy=DDP() if devices > 1 else "auto",
            plugins=[SafeCheckpointIO()],
            accumulate_grad_batches=micro_batches,
        )
        model.check(micro_batches)
        own = [losses, LastCheckpoint(folder, 5 // micro_batches)]
        cast(Any, trainer).callbacks += own if at is None else [*own, BreakAt(at)]
        try:
            last = folder / "last.ckpt"
            trainer.fit(model, data, ckpt_path=last if at is None and breaks else None)
            assert at is None
        except Broken:
            assert at is not None
    weights = {key: value.detach().clone() for key, value in model.state_dict().items()}
    if breaks:
        return {"resumed": weights}
    tested = trainer.test(model, data, verbose=False)[0]
    return {"whole": weights, "losses": torch.stack(losses.found), "test": tested}


def main(out: str) -> None:
    """Trains all cases; checkpoints go beside the results, where all ranks look."""
    devices = int(os.environ.get("WORLD_SIZE", 1))
    found = {}
    for name in CASES:
        folder = Path(out).parent / f"{name} {devices}"
        found[name] = train(name, folder, False, devices) | train(name, folder, True, devices)
    if not dist.is_initialized() or dist.get_rank() == 0:
        torch.save(found, out)


if __name__ == "__main__":
    quiet()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    main(sys.argv[1])
