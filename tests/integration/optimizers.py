"""Trains with optimizers and schedules of several kinds, whole and broken off, on one topology.

python -m torch.distributed.run --nproc_per_node 2 -m tests.integration.optimizers OUT "ddp x 2"
[CASE ...]

OUT holds {case: {"whole": weights that count, "resumed": ..., "rates": ...}, or the reason why it
was refused}.
"""

import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

import lightning as L
import pytorch_optimizer
import torch
import torch.distributed as dist
from torch.optim import AdamW

from src.checkpoint import SafeCheckpointIO
from src.cli.entrypoint import quiet
from src.models import MultiTaskModel, WarmupCosine
from src.models.encoders import MLP
from src.models.optimisation import MuonAdamW, TaskPlateau, WarmRestarts
from src.models.sharing import PLE, HardSharing, SoftSharing
from src.monitoring.checkpoints import LastCheckpoint
from src.parallel import MultiTaskStrategy
from tests.integration.grid import Topology
from tests.integration.resuming import TOPOLOGIES, BreakAt, Broken, weights_of
from tests.toy import Toy

EPOCHS = 3  # of 14 steps
BREAKS = (16, 24)  # goes on from 14, the end of an epoch, and from 21, the middle of one


@dataclass(frozen=True)
class Case:
    """What a run is trained with.

    Attributes:
        model: Settings of the model.
        trainer: Settings of the Trainer.
    """

    model: Mapping[str, Any]
    trainer: Mapping[str, Any] = field(default_factory=dict)


MUON = partial(MuonAdamW, lr=0.01)
FREE = partial(pytorch_optimizer.ScheduleFreeAdamW, lr=0.01, warmup_steps=5)
STALLS = partial(TaskPlateau, patience=1, threshold=0.02, cooldown=1)
CASES = {
    "Muon": Case({"optimizer": MUON}),
    "Muon, stacked": Case({"optimizer": MUON, "sharing": SoftSharing}),
    "Muon, in 16 bits": Case({"optimizer": MUON}, {"precision": "bf16-mixed"}),
    "schedule-free": Case({"optimizer": FREE, "scheduler": None}),
    "schedule-free, accumulated": Case(
        {"optimizer": FREE, "scheduler": None}, {"accumulate_grad_batches": 2}
    ),
    "Prodigy": Case({"optimizer": partial(pytorch_optimizer.Prodigy, d0=1e-3)}),
    "plateau": Case({"sharing": PLE, "scheduler": STALLS, "lr_multipliers": {"class": 0.5}}),
    "restarts": Case(
        {"sharing": PLE, "scheduler": partial(WarmRestarts, starts={"class": 1, "encoder": [2]})}
    ),
}


def make_model(case: Case) -> tuple[MultiTaskModel, Toy]:
    """A small network with dropout."""
    data = Toy()
    usual: dict[str, Any] = {
        "encoder": partial(MLP, width=16, depth=2, dropout=0.1),
        "sharing": HardSharing,
        "optimizer": partial(AdamW, lr=0.01),
        "scheduler": WarmupCosine,
    }
    return MultiTaskModel(data.tasks, data.input_shape, **usual | dict(case.model)), data


class Rates(L.Callback):
    """Keeps the rates of the groups after each step."""

    def __init__(self) -> None:
        self.steps: list[list[float]] = []

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *args: Any) -> None:
        self.steps.append([float(group["lr"]) for group in trainer.optimizers[0].param_groups])


def train(
    case: Case, topology: Topology, folder: Path, breaks: tuple[int, ...]
) -> tuple[dict[str, torch.Tensor], list[list[float]]] | str:
    """One run, resumed each time it has broken off; or why it was refused.

    Returns:
        The weights that count at the end, and the rates of all steps.
    """
    rates = Rates()
    for number, at in enumerate((*breaks, None)):
        model, data = make_model(case)
        strategy = topology.strategy()
        settings: dict[str, Any] = {"gradient_clip_val": 2.0, **case.trainer}
        try:
            trainer = L.Trainer(
                accelerator="cpu",
                devices=topology.devices,
                strategy=strategy,
                max_epochs=EPOCHS,
                use_distributed_sampler=False,
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                plugins=[SafeCheckpointIO()],
                num_sanity_val_steps=0,
                **settings,
            )
            model.check(trainer.accumulate_grad_batches)
            if isinstance(strategy, MultiTaskStrategy):
                strategy.check(model)
        except ValueError as error:
            return str(error)
        saves = LastCheckpoint(folder, 7)
        cast(Any, trainer).callbacks += [saves, rates, *([] if at is None else [BreakAt(at)])]
        try:
            trainer.fit(model, data, ckpt_path=folder / "last.ckpt" if number else None)
            assert at is None, f"it did not come to step {at}"
        except ValueError as error:
            return str(error)
        except Broken:
            assert trainer.global_step == at
    return weights_of(trainer), rates.steps


def main(out: str, name: str, *names: str) -> None:
    """Runs the cases on the topology; checkpoints go beside the results, where all ranks look."""
    topology = TOPOLOGIES[name]
    found: dict[str, Any] = {}
    for key in names or CASES:
        case = CASES[key]
        folder = Path(out).parent / key
        breaks = BREAKS if case.trainer.get("accumulate_grad_batches", 1) == 1 else (8, 12)
        whole = train(case, topology, folder / "whole", ())
        if isinstance(whole, str):
            found[key] = whole
            continue
        broken = train(case, topology, folder / "broken", breaks)
        assert not isinstance(broken, str)
        found[key] = {"whole": whole[0], "resumed": broken[0], "rates": whole[1]}
    if not dist.is_initialized() or dist.get_rank() == 0:
        torch.save(found, out)


if __name__ == "__main__":
    quiet()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    main(*sys.argv[1:])
