"""Breaks runs off on one topology, resumes them, and keeps the weights of both kinds of runs.

python -m torch.distributed.run --nproc_per_node 2 -m tests.integration.resuming OUT "fsdp x 2" CASE
...

OUT holds {(case, cell): {"whole": weights, "resumed": weights}, or the reason why the cell was
refused}; a case is a name of ``CASES``.
"""

import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

import lightning as L
import torch
import torch.distributed as dist
from torch.optim import AdamW

from src.checkpoint import SafeCheckpointIO
from src.cli.entrypoint import quiet
from src.data import MultiTaskDataModule, Sources
from src.models.optimisation import WarmupCosine
from src.monitoring.checkpoints import LastCheckpoint
from src.parallel import FSDP, MultiTaskStrategy
from tests.integration import grid
from tests.integration.grid import (
    Cell,
    Topology,
    cells,
    fair_cells,
    finetuned_cells,
    model_of,
    selected_cells,
)
from tests.toy import Toy, bare_trainer
from tests.toy_groups import GroupedToy

# a balancer without a state, one that learns, those that keep numbers of each task, and one that
# keeps a row of each
SOME: tuple[Cell, ...] = (
    ("balancing", "StaticWeights", "losses"),
    ("balancing", "UncertaintyWeights", "losses"),
    ("balancing", "DynamicWeightAverage", "losses"),
    ("balancing", "GradNorm", "features"),
    ("balancing", "ExcessMTL", "parameters"),
)
EPOCHS = 3
TOPOLOGIES = {
    name: where
    for name, where in grid.TOPOLOGIES.items()
    if where.nodes == 1 and where.processes < 3
}
TOPOLOGIES["fsdp x 2 in folders"] = grid.Topology(2, 2, partial(FSDP, checkpoint="folder"))
TOPOLOGIES["fsdp 1 x 2 with tensor parallel"] = grid.Topology(
    2, 2, partial(FSDP, tensor_parallel_size=2)
)


class Broken(Exception):
    """A run was broken off."""


class BreakAt(L.Callback):
    """Breaks a run off on all ranks, before a step.

    Args:
        step: How many steps are done by then.
    """

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self.step:
            raise Broken


@dataclass(frozen=True)
class Case:
    """How runs are trained, saved and broken off; an epoch has 14 batches.

    Attributes:
        every: Steps between two checkpoints.
        breaks: After how many steps it breaks off, each time it has been resumed.
        cells: With which balancers and architectures.
        schedule: Whether the default schedule drives the rate.
        data: Makes the data module.
        settings: Of the Trainer.
    """

    every: int = 7
    breaks: tuple[int, ...] = (
        16,
        24,
    )  # goes on from 14, the end of an epoch, and from 21, the middle of one
    cells: Sequence[Cell] = SOME
    schedule: bool = True
    data: Callable[[], MultiTaskDataModule] = Toy
    settings: Mapping[str, Any] = field(default_factory=dict)


def two_sources() -> MultiTaskDataModule:
    """The toy twice, with batches of their own sizes, in turn."""
    return Sources(
        {"a": Toy(batch_size=32), "b": Toy(batch_size=24)},
        sampler="temperature",
        temperature=3.0,
        prefix=True,
    )


FEW = SOME[:2]
CASES = {
    "few": Case(cells=FEW),
    "schedule": Case(),
    "no schedule": Case(schedule=False),
    "every third step": Case(every=3, breaks=(20, 33), cells=FEW),
    "workers": Case(cells=FEW, data=partial(Toy, num_workers=2)),
    "sources": Case(cells=FEW[:1], breaks=(17, 29), data=two_sources),
    "accumulation": Case(
        every=2, breaks=(8, 12), cells=FEW, settings={"accumulate_grad_batches": 3}
    ),
    "short epochs": Case(every=3, breaks=(13, 26), cells=FEW, settings={"limit_train_batches": 10}),
    "steps, not epochs": Case(cells=FEW, schedule=False, settings={"max_steps": 50}),
    "loaders made anew": Case(cells=FEW, settings={"reload_dataloaders_every_n_epochs": 1}),
    # broken off before a thaw, and amid the epoch after it
    "fine-tuned": Case(breaks=(10, 24), cells=finetuned_cells()),
    "selected": Case(breaks=(10, 24), cells=selected_cells()),
    "fair": Case(breaks=(10, 24), cells=fair_cells(), data=GroupedToy),
    "all": Case(breaks=(24,), cells=cells()),
}


def weights_of(trainer: L.Trainer) -> dict[str, torch.Tensor]:
    """The whole model, on the first rank."""
    if isinstance(trainer.strategy, FSDP):
        trainer.strategy.checkpoint = "file"  # no parts
    state = trainer.strategy.lightning_module_state_dict()
    return {name: value.detach().cpu().clone() for name, value in state.items()}


def train(
    cell: Cell, case: Case, topology: Topology, folder: Path, breaks: tuple[int, ...]
) -> dict[str, torch.Tensor] | str:
    """One run, resumed each time it has broken off; or why it was refused."""
    for number, at in enumerate((*breaks, None)):
        data = case.data()
        optimizer, schedule = partial(AdamW, lr=0.01), WarmupCosine if case.schedule else None
        model = model_of(cell, data, optimizer=optimizer, scheduler=schedule)
        settings: dict[str, Any] = {
            "gradient_clip_val": 2.0,
            "plugins": [SafeCheckpointIO()],
            **case.settings,
        }
        epochs = -1 if "max_steps" in settings else EPOCHS
        try:
            strategy = topology.strategy()
            trainer = bare_trainer(
                topology.devices, epochs, strategy=strategy, num_nodes=topology.nodes, **settings
            )
            model.check(trainer.accumulate_grad_batches)
            if isinstance(strategy, MultiTaskStrategy):
                strategy.check(model)
        except ValueError as error:
            return str(error)
        cast(Any, trainer).callbacks += [
            LastCheckpoint(folder, case.every),
            *([] if at is None else [BreakAt(at)]),
        ]
        try:
            trainer.fit(model, data, ckpt_path=folder / "last.ckpt" if number else None)
            assert at is None, f"it did not come to step {at}"
        except Broken:
            assert trainer.global_step == at
    return weights_of(trainer)


def main(out: str, name: str, *names: str) -> None:
    """Runs the cases on the topology; checkpoints go beside the results, where all ranks look."""
    topology = TOPOLOGIES[name]
    found: dict[tuple[str, Cell], Any] = {}
    for key in names:
        case = CASES[key]
        for i, cell in enumerate(case.cells):
            folder = Path(out).parent / f"{key} {i}"
            whole = train(cell, case, topology, folder / "whole", ())
            if isinstance(whole, str):
                found[key, cell] = whole
            else:
                found[key, cell] = {
                    "whole": whole,
                    "resumed": train(cell, case, topology, folder / "broken", case.breaks),
                }
    if not dist.is_initialized() or dist.get_rank() == 0:
        torch.save(found, out)


if __name__ == "__main__":
    quiet()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    main(*sys.argv[1:])
