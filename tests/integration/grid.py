"""Trains every balancer and architecture on one topology, and keeps losses and final weights.

python -m torch.distributed.run --nproc_per_node 2 -m tests.integration.grid OUT "ddp x 2"
[accumulated] [WORD ...]

OUT holds {cell: {"losses": (steps, T), "weights": {name: tensor}}, or the reason why it was
refused}; further words choose the
cells whose name holds one of them. ``accumulated``: the balancers that can, with three
micro-batches per step.
"""

import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import lightning as L
import torch
import torch.distributed as dist
from torch.optim import SGD

import src.balancing
from src.balancing import Balancer, LossBalancer, PCGrad, StaticWeights
from src.balancing.gradients import CpuBalancer
from src.cli.classes import subclasses
from src.cli.entrypoint import quiet
from src.data import MultiTaskDataModule
from src.models import MultiTaskModel
from src.models.encoders import MLP, BiLSTM, Encoder, MessagePassing, Transformer, UNet
from src.models.fairness import (
    DemographicParity,
    EqualizedOdds,
    GroupDRO,
    GroupObjectives,
    Reweighting,
)
from src.models.feature_selection import GroupLasso, LassoNet, StochasticGates
from src.models.transfer.finetune import Finetune, LoRA
from src.parallel import DDP, FSDP, DDPPlacement, MultiTaskStrategy, Pipeline, Placement
from tests.models.test_matrix import SHARINGS
from tests.toy import Toy, bare_trainer
from tests.toy_groups import GroupedToy
from tests.toy_uses import Graphs, Numbers, Pixels, Toys, Weights, Words


@dataclass(frozen=True)
class Topology:
    """Where a grid runs.

    Attributes:
        processes: How many, over all nodes.
        devices: What each node's Trainer is told.
        strategy: Makes the strategy.
        nodes: On how many machines.
    """

    processes: int
    devices: int
    strategy: Callable[[], Any]
    nodes: int = 1


TOPOLOGIES = {
    "1 process": Topology(1, 1, lambda: "auto"),
    "ddp x 2": Topology(2, 2, DDP),
    "ddp x 4": Topology(4, 4, DDP),
    "fsdp x 2": Topology(2, 2, FSDP),
    "fsdp x 4": Topology(4, 4, FSDP),
    "fsdp 2 x 2 with tensor parallel": Topology(4, 4, lambda: FSDP(tensor_parallel_size=2)),
    "pipeline x 2": Topology(2, 2, Pipeline),
    "pipeline x 3": Topology(3, 3, Pipeline),
    "placement x 2": Topology(1, 2, Placement),
    "ddp_placement 2 x 2": Topology(2, 4, DDPPlacement),
    "two nodes x 1": Topology(2, 1, DDP, nodes=2),
}

Cell = tuple[str, str, str]

# other forms of data, and other kinds of tasks: the data, and an encoder that reads them
USES: dict[str, tuple[type[Toys], Callable[..., Encoder]]] = {
    "words": (Words, partial(Transformer, width=8, depth=2, heads=2, dropout=0.1)),
    "words, LSTM": (Words, partial(BiLSTM, width=8, depth=1, dropout=0.1)),
    "pixels": (Pixels, partial(UNet, width=4, depth=1)),
    "graphs": (Graphs, partial(MessagePassing, width=8, depth=2, dropout=0.1, pool="none")),
    "kinds of numbers": (Numbers, partial(MLP, width=16, dropout=0.1)),
    "weights and dependent tasks": (Weights, partial(MLP, width=16, dropout=0.1)),
}

# fine-tuning: which parts train, and the cell whose network is tuned; not in the published table
THAW = Finetune(
    freeze=["encoder", "heads.class", "heads.number"],
    thaw_at={"stages.1": 1, "encoder": 2, "heads.number": 1},
)
FINETUNED: dict[str, tuple[Finetune, Cell]] = {
    "frozen": (Finetune(freeze="encoder"), ("balancing", "StaticWeights", "losses")),
    "frozen, GradNorm": (Finetune(freeze="encoder"), ("balancing", "GradNorm", "features")),
    "thaw": (THAW, ("balancing", "StaticWeights", "losses")),
    "thaw, FAMO": (THAW, ("balancing", "FAMO", "losses")),
    "thaw, AutoLambda": (THAW, ("balancing", "AutoLambda", "losses")),
    "thaw, PCGrad": (THAW, ("balancing", "PCGrad", "features")),
    "thaw, GradDrop": (THAW, ("balancing", "GradDrop", "features")),
    "thaw, UPGrad": (THAW, ("balancing", "UPGrad", "parameters")),
    "thaw, MoCo": (THAW, ("balancing", "MoCo", "parameters")),
    "thaw, ExcessMTL": (THAW, ("balancing", "ExcessMTL", "parameters")),
    "thaw, DualBalance": (THAW, ("balancing", "DualBalance", "parameters")),
    "thaw, AutoScale": (THAW, ("balancing", "AutoScale", "parameters")),
    "thaw, PLE": (THAW, ("sharing", "PLE", "parameters")),
    "thaw, Groups": (THAW, ("sharing", "Groups", "parameters")),
    "thaw, Separate": (THAW, ("sharing", "Separate", "losses")),
    "biases": (Finetune(bias_only=True), ("balancing", "PCGrad", "parameters")),
    "lora": (Finetune(lora=LoRA(2, dropout=0.1)), ("balancing", "StaticWeights", "losses")),
    "lora, PCGrad": (Finetune(lora=LoRA(2)), ("balancing", "PCGrad", "parameters")),
    "lora, MMoE": (Finetune(lora=LoRA(2)), ("sharing", "MMoE", "parameters")),
}

# ways to choose inputs, and the cell of the network behind them; not in the published table
BOTH = partial(StochasticGates, per="both", strength=0.05, warmup=1.5)
SELECTED: dict[str, tuple[Callable[..., Any], Cell]] = {
    "gates": (
        partial(StochasticGates, strength=0.05),
        ("sharing", "HardSharing", "losses"),
    ),
    "gates, shared": (
        partial(StochasticGates, per="shared", strength=0.05),
        ("balancing", "PCGrad", "features"),
    ),
    "gates, both, PLE": (BOTH, ("sharing", "PLE", "parameters")),
    "gates, both, FAMO": (BOTH, ("balancing", "FAMO", "losses")),
    "gates, Separate": (
        partial(StochasticGates, strength=0.05),
        ("sharing", "Separate", "parameters"),
    ),
    "group lasso": (
        partial(GroupLasso, strength=0.17, warmup=1.5),
        ("balancing", "PCGrad", "features"),
    ),
    "group lasso, Separate": (
        partial(GroupLasso, per="task", strength=0.2),
        ("sharing", "Separate", "losses"),
    ),
    "LassoNet": (
        partial(LassoNet, strength=1.3, hierarchy=1.0),
        ("sharing", "HardSharing", "losses"),
    ),
    "LassoNet, Separate": (
        partial(LassoNet, per="task", strength=4.0),
        ("sharing", "Separate", "losses"),
    ),
}

# ways to compare groups of people, and the cell of the network; not in the published table
FAIR: dict[str, tuple[Callable[..., Any], Cell]] = {
    "GroupDRO": (
        partial(GroupDRO, step_size=0.1, adjustment=1.0),
        ("balancing", "StaticWeights", "losses"),
    ),
    "GroupDRO, PCGrad": (GroupDRO, ("balancing", "PCGrad", "features")),
    "GroupDRO, FAMO": (GroupDRO, ("balancing", "FAMO", "losses")),
    "Reweighting": (Reweighting, ("balancing", "UncertaintyWeights", "losses")),
    "EqualizedOdds": (
        partial(EqualizedOdds, strength=3.0),
        ("balancing", "StaticWeights", "losses"),
    ),
    "EqualizedOdds, MGDA": (
        partial(EqualizedOdds, strength=3.0),
        ("balancing", "MGDA", "features"),
    ),
    "EqualizedOdds, PLE": (partial(EqualizedOdds, strength=3.0), ("sharing", "PLE", "parameters")),
    "DemographicParity": (
        partial(DemographicParity, strength=3.0),
        ("balancing", "PCGrad", "parameters"),
    ),
    "GroupObjectives": (GroupObjectives, ("balancing", "SmoothTchebycheff", "losses")),
    "GroupObjectives, FAMO": (GroupObjectives, ("balancing", "FAMO", "losses")),
    "GroupObjectives, MGDA": (GroupObjectives, ("balancing", "MGDA", "parameters")),
    "GroupObjectives, PCGrad, PLE": (GroupObjectives, ("sharing", "PLE", "parameters")),
    "GroupObjectives, GradDrop": (GroupObjectives, ("balancing", "GradDrop", "parameters")),
}

# the rate of the network: small where a method's direction is much longer than the gradients
RATES = {"FairGrad": 0.002, "NashMTL": 0.01, "ConFIG": 0.02, "DualBalance": 0.02, "LogSum": 0.02}


def cells(accumulated: bool = False) -> list[Cell]:
    """Lists (kind, name, level): balancers at each level, architectures with and without gradients.

    Args:
        accumulated: Of balancers alone those whose steps may have several micro-batches.
    """
    kinds: list[Any] = sorted(subclasses(Balancer), key=lambda kind: kind.__name__)
    ours = [kind for kind in kinds if kind.__module__.startswith("src.")]
    levels = {kind: kind.levels if issubclass(kind, CpuBalancer) else ("losses",) for kind in ours}
    if accumulated:
        return [
            ("balancing", k.__name__, level)
            for k in ours
            for level in levels[k]
            if k.accumulates and level != "features"
        ]
    balancing = [("balancing", kind.__name__, level) for kind in ours for level in levels[kind]]
    sharing = [("sharing", name, level) for name in SHARINGS for level in ("losses", "parameters")]
    uses = [("use", name, level) for name in USES for level in ("losses", "features", "parameters")]
    return balancing + sharing + uses


def finetuned_cells() -> list[Cell]:
    """Lists the cells of fine-tuning, which further words choose."""
    return [("finetune", name, base[2]) for name, (_, base) in FINETUNED.items()]


def selected_cells() -> list[Cell]:
    """Lists the cells of ways to choose inputs, which further words choose."""
    return [("select", name, base[2]) for name, (_, base) in SELECTED.items()]


def fair_cells() -> list[Cell]:
    """Lists the cells of ways to compare groups, which further words choose."""
    return [("fair", name, base[2]) for name, (_, base) in FAIR.items()]


def data_of(cell: Cell) -> MultiTaskDataModule:
    """The data of a cell: the toy, or one of another form."""
    kind, name, _ = cell
    if kind == "fair":
        return GroupedToy()
    return USES[name][0]() if kind == "use" else Toy()


def model_of(cell: Cell, data: Any = None, **more: Any) -> MultiTaskModel:
    """A small network with dropout for the tasks of a data module, its own unless it is another."""
    kind, name, level = cell
    data = data or data_of(cell)
    if kind == "select":
        select, base = SELECTED[name]
        return model_of(base, data, select=select, **more)
    if kind == "fair":
        fairness, base = FAIR[name]
        groups = data.sensitive_groups
        return model_of(base, data, fairness=fairness, groups=groups, **more)
    if kind == "finetune":
        settings, base = FINETUNED[name]
        model = model_of(base, data, **more)
        model.finetune = settings
        return model
    parts: dict[str, Any] = {"scheduler": None}
    if kind == "use":
        gradients = partial(PCGrad, level=cast(Any, level))
        balancer = StaticWeights if level == "losses" else gradients
        parts |= {"encoder": USES[name][1], "optimizer": partial(SGD, lr=0.05)}
        return MultiTaskModel(data.tasks, data.input_shape, balancer=balancer, **parts | more)
    if kind == "sharing":
        balancer = StaticWeights if level == "losses" else partial(PCGrad, level="parameters")
        parts |= {
            "encoder": partial(MLP, width=8, depth=1, dropout=0.2),
            "optimizer": partial(SGD, lr=0.02),
        }
        parts |= {"sharing": SHARINGS[name], "balancer": balancer}
        return MultiTaskModel(data.tasks, data.input_shape, **parts | more)
    method = getattr(src.balancing, name)
    extra: dict[str, Any] = {"beta": 0.5} if (name, level) == ("DualBalance", "parameters") else {}
    balancer = (
        partial(method, **extra)
        if issubclass(method, LossBalancer)
        else partial(method, level=level, **extra)
    )
    parts |= {
        "encoder": partial(MLP, width=16, dropout=0.1),
        "optimizer": partial(SGD, lr=RATES.get(name, 0.05)),
    }
    return MultiTaskModel(data.tasks, data.input_shape, balancer=balancer, **parts | more)


class Losses(L.Callback):
    """Keeps the losses of each step."""

    def __init__(self) -> None:
        self.steps: list[torch.Tensor] = []

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *args: Any) -> None:
        self.steps.append(pl_module.step.losses_T.detach().double().cpu().clone())


def train(cell: Cell, topology: Topology, epochs: int = 3, **settings: Any) -> dict[str, Any] | str:
    """Trains for a few epochs with clipping; or returns why this was refused."""
    model, losses = model_of(cell), Losses()
    settings.setdefault("gradient_clip_val", 2.0)
    try:
        strategy = topology.strategy()
        trainer = bare_trainer(
            topology.devices,
            epochs,
            strategy=strategy,
            num_nodes=topology.nodes,
            callbacks=[losses],
            **settings,
        )
        model.check(trainer.accumulate_grad_batches)
        if isinstance(strategy, MultiTaskStrategy):
            strategy.check(model)
    except ValueError as error:
        return str(error)
    trainer.fit(model, data_of(cell))
    weights = trainer.strategy.lightning_module_state_dict()  # whole, whatever each process holds
    return {
        "losses": torch.stack(losses.steps),
        "weights": {k: v.detach().cpu().clone() for k, v in weights.items()},
    }


if __name__ == "__main__":
    quiet()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    out, name, *words = sys.argv[1:]
    accumulated = "accumulated" in words[:1]
    words = words[accumulated:]
    chosen = [
        cell
        for cell in [
            *cells(accumulated),
            *([*finetuned_cells(), *selected_cells(), *fair_cells()] if words else []),
        ]
        if not words or any(word in "-".join(cell) for word in words)
    ]
    found = {
        cell: train(cell, TOPOLOGIES[name], accumulate_grad_batches=3 if accumulated else 1)
        for cell in chosen
    }
    if not dist.is_initialized() or dist.get_rank() == 0:
        torch.save(found, out)
