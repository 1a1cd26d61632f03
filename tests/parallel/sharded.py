"""Short runs on one process, on shards and on copies, and what they leave.

python -m torch.distributed.run --nproc_per_node 2 -m tests.parallel.sharded FOLDER shards, or 4 and
"tensor": runs its ``CASES``, and optimizers from every kind of checkpoint to every strategy. FOLDER
holds the checkpoints of one process already.
"""

import sys
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.distributed as dist
from torch import Tensor
from torch.optim import SGD, Adam, AdamW

from src.balancing import MGDA, PCGrad, UncertaintyWeights
from src.batch import InputShape
from src.checkpoint import SafeCheckpointIO
from src.cli.entrypoint import quiet
from src.collectives import gather
from src.data import MultiTaskDataModule
from src.models import MultiTaskModel
from src.models.encoders import MLP, Transformer
from src.monitoring import FiniteLossGuard, RanksAgreeGuard
from src.parallel import DDP, FSDP
from src.parallel.dtensor import (
    count_holders,
    full_tensor,
    local,
    locate_shard,
    shard_like,
    total_norm,
)
from tests.integration.grid import Losses
from tests.integration.test_pipeline import Sentences
from tests.toy import Toy, bare_trainer

Whole = dict[str, Any]


class Frozen(MLP):
    """The first stage does not train."""

    def __init__(self, shape: InputShape, **settings: Any) -> None:
        super().__init__(shape, **settings)
        self.stages[0].requires_grad_(False)


class AllFrozen(MLP):
    """Nothing trains."""

    def __init__(self, shape: InputShape, **settings: Any) -> None:
        super().__init__(shape, **settings)
        self.requires_grad_(False)


UNEVEN = partial(MLP, width=9, depth=1, dropout=0.1)  # neither it nor the heads divide by two
EVEN = partial(
    MLP, width=10, depth=2, dropout=0.1
)  # five units on each device, whose shards are uneven
TOKENS = partial(Transformer, width=8, depth=2, heads=2, dropout=0.2)
BY_PARAMETERS = partial(PCGrad, level="parameters")


@dataclass(frozen=True)
class Case:
    """One run.

    Attributes:
        model: What the model is made of, besides the usual.
        trainer: Settings of the trainer.
        strategy: Settings of FSDP.
        steps: How many.
        looks: Whether it evaluates and predicts, too.
        data: What it reads.
    """

    model: dict[str, Any] = field(default_factory=dict)
    trainer: dict[str, Any] = field(default_factory=dict)
    strategy: dict[str, Any] = field(default_factory=dict)
    steps: int = 4
    looks: bool = False
    data: Callable[[], MultiTaskDataModule] = Toy


CLIPPED: dict[str, dict[str, Any]] = {
    "norm": {"gradient_clip_val": 0.5},
    "value": {"gradient_clip_val": 0.02, "gradient_clip_algorithm": "value"},
}
LEARNT = {"balancer": UncertaintyWeights}
SHARDS = {
    "clipped by norm": Case(LEARNT, CLIPPED["norm"], looks=True),
    "accumulated, gradients of tasks": Case(
        {"balancer": BY_PARAMETERS}, {"accumulate_grad_batches": 3}, steps=5
    ),
    "frozen, gradients of tasks": Case(
        {"encoder": partial(Frozen, width=9, depth=1), "balancer": BY_PARAMETERS}
    ),
    "recomputed": Case({"checkpoint_activations": True}),
    "kept, gradients of tasks": Case(
        {"balancer": BY_PARAMETERS}, strategy={"reshard_after_forward": False}
    ),
    "16 bits, gradients of tasks": Case(
        {"balancer": BY_PARAMETERS}, strategy={"parameter_type": "bfloat16"}
    ),
    "double, gradients of tasks": Case({"balancer": BY_PARAMETERS}, {"precision": "64-true"}),
    "one layer on both": Case(
        {"encoder": TOKENS},
        CLIPPED["norm"],
        {"tensor_parallel_size": 2},
        data=Sentences,
        looks=True,
    ),
}
MORE_SHARDS = {
    "clipped by value": Case(LEARNT, CLIPPED["value"]),
    "accumulated": Case({}, {"accumulate_grad_batches": 3}, steps=5),
    "frozen": Case({"encoder": partial(Frozen, width=9, depth=1)}),
    "all frozen": Case({"encoder": partial(AllFrozen, width=9, depth=1)}, CLIPPED["norm"]),
    "all frozen, gradients of tasks": Case(
        {"encoder": partial(AllFrozen, width=9, depth=1), "balancer": BY_PARAMETERS}
    ),
    "recomputed, gradients of tasks": Case(
        {"checkpoint_activations": True, "balancer": BY_PARAMETERS}
    ),
    "kept": Case({}, strategy={"reshard_after_forward": False}, looks=True),
    "16 bits": Case(LEARNT, strategy={"parameter_type": "bfloat16"}, looks=True),
    "16 bits, gradients of features": Case(
        {"balancer": PCGrad}, strategy={"parameter_type": "bfloat16"}
    ),
    "16 bits, sums in 32": Case(
        {}, strategy={"parameter_type": "bfloat16", "reduce_type": "float32"}
    ),
    "mixed": Case({"balancer": BY_PARAMETERS}, {"precision": "bf16-mixed"}),
    "double": Case(LEARNT, CLIPPED["norm"] | {"precision": "64-true"}),
    "sentences": Case({"encoder": TOKENS}, CLIPPED["norm"], data=Sentences, looks=True),
}
TENSOR = {
    "clipped by norm": Case({"encoder": EVEN, **LEARNT}, CLIPPED["norm"], looks=True),
    "by Gramian": Case(
        {"encoder": EVEN, "balancer": partial(MGDA, level="parameters")}, CLIPPED["norm"]
    ),
    "sentences": Case({"encoder": TOKENS}, CLIPPED["norm"], data=Sentences, looks=True),
}
MORE_TENSOR = {
    "clipped by value": Case({"encoder": EVEN, **LEARNT}, CLIPPED["value"]),
    "accumulated, gradients of tasks": Case(
        {"encoder": EVEN, "balancer": BY_PARAMETERS}, {"accumulate_grad_batches": 3}
    ),
    "sentences, recomputed": Case(
        {"encoder": TOKENS, "checkpoint_activations": True}, data=Sentences
    ),
    "sentences, kept": Case(
        {"encoder": TOKENS}, strategy={"reshard_after_forward": False}, data=Sentences
    ),
    "16 bits": Case({"encoder": EVEN}, strategy={"parameter_type": "bfloat16"}),
    "double": Case({"encoder": TOKENS}, {"precision": "64-true"}, data=Sentences),
}
# of the fast suite
FEW_SHARDS = {name: SHARDS[name] for name in ("clipped by norm", "accumulated, gradients of tasks")}
CASES = {
    "few shards": FEW_SHARDS,
    "shards": SHARDS,
    "tensor": TENSOR,
    "more shards": MORE_SHARDS,
    "more tensor": MORE_TENSOR,
}
PROCESSES = {kind: 4 if "tensor" in kind else 2 for kind in CASES}
ENCODERS = {kind: EVEN if "tensor" in kind else UNEVEN for kind in CASES}
SETTINGS: dict[str, dict[str, Any]] = {
    kind: {"tensor_parallel_size": 2} if "tensor" in kind else {} for kind in CASES
}
# a floor that keeps rounding from turning signs where a gradient is next to nothing
OPTIMIZERS: dict[str, Any] = {
    "AdamW": partial(AdamW, lr=0.01, eps=1e-3),
    "SGD": partial(SGD, lr=0.05),
    "momentum": partial(SGD, lr=0.05, momentum=0.9),
    "amsgrad": partial(Adam, lr=0.01, eps=1e-3, amsgrad=True),
}
NAMES: dict[str, list[str]] = {
    "few shards": ["momentum"],
    "shards": ["AdamW", "SGD"],
    "tensor": [],
    "more shards": ["momentum", "amsgrad"],
    "more tensor": ["AdamW"],
}
STARTS = ("one", "ddp", "fsdp", "folder")
MIDDLE, END = 4, 7  # of an epoch of 14 steps: where a checkpoint is written, and where runs end


class Saves(L.Callback):
    """Saves checkpoints at a step, {path: how}."""

    def __init__(self, step: int, paths: dict[Path, str]) -> None:
        self.step, self.paths = step, paths

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        if not self.step:
            self.save(trainer)

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        if trainer.global_step == self.step:
            self.save(trainer)

    def save(self, trainer: L.Trainer) -> None:
        for path, how in self.paths.items():
            if isinstance(trainer.strategy, FSDP):
                trainer.strategy.checkpoint = how  # type: ignore[assignment]
            trainer.save_checkpoint(path)


def model_of(data: MultiTaskDataModule, **parts: Any) -> MultiTaskModel:
    usual: dict[str, Any] = {
        "encoder": UNEVEN,
        "optimizer": partial(SGD, lr=0.05, momentum=0.9),
        "scheduler": None,
    }
    return MultiTaskModel(data.tasks, data.input_shape, **usual | parts)


def left_by(trainer: L.Trainer) -> Whole:
    """Returns the whole weights and optimizer state of a run; every process must call this."""
    strategy = trainer.strategy
    if isinstance(strategy, FSDP):
        strategy.checkpoint = "file"
    weights, optimizer = (
        strategy.lightning_module_state_dict(),
        strategy.optimizer_state(trainer.optimizers[0]),
    )
    copied: Whole = torch.utils._pytree.tree_map_only(
        Tensor, lambda x: x.detach().clone(), {"weights": dict(weights), "optimizer": optimizer}
    )
    return copied


def run(case: Case, devices: int, **more: Any) -> Whole:
    """Trains, and returns what the run leaves."""
    data = case.data()
    model, losses = model_of(data, **case.model), Losses()
    strategy: Any = FSDP(**{**more, **case.strategy}) if devices > 1 else "auto"
    settings = {"precision": "32-true", **case.trainer}
    trainer = bare_trainer(
        devices, 10, strategy=strategy, callbacks=[losses], max_steps=case.steps, **settings
    )
    model.check(trainer.accumulate_grad_batches)
    if devices > 1:
        strategy.check(model)
    trainer.fit(model, data)
    found = {"losses": torch.stack(losses.steps), **left_by(trainer)}
    found["types"] = {str(p.dtype) for p in model.parameters()}
    found["held"] = sum(local(p).numel() for p in model.parameters())
    if case.looks:
        trainer.limit_test_batches = trainer.limit_predict_batches = 1.0
        (found["metrics"],) = trainer.test(model, data, verbose=False)
        predicted: Any = trainer.predict(model, data)
        mine = {
            (name, int(k)): out[name][j]
            for ids, out in predicted
            for j, k in enumerate(ids)
            if k >= 0
            for name in out
        }
        everyone = [mine]
        if devices > 1:
            share = strategy.mesh["data"].get_group()
            everyone = [{} for _ in range(dist.get_world_size(share))]
            dist.all_gather_object(everyone, mine, group=share)
        found["rows"] = {key: output for part in everyone for key, output in part.items()}
    return found


def leg(
    kind: str,
    optimizer: str,
    strategy: Any = "auto",
    start: Path | None = None,
    saves: dict[Path, str] | None = None,
    at: int = MIDDLE,
) -> Whole:
    """Trains from the start or a checkpoint to the end, and saves on the way.

    The balancer has parameters of its own.
    """
    devices = 1 if strategy == "auto" else PROCESSES[kind]
    model = model_of(Toy(), encoder=ENCODERS[kind], optimizer=OPTIMIZERS[optimizer], **LEARNT)
    settings: dict[str, Any] = {
        "callbacks": [Saves(at, saves or {})],
        "plugins": [SafeCheckpointIO()],
        **CLIPPED["norm"],
    }
    trainer = bare_trainer(devices, 10, strategy=strategy, max_steps=END, **settings)
    trainer.fit(model, Toy(), ckpt_path=start)
    return left_by(trainer)


def legs(folder: Path, kind: str) -> dict[tuple[str, str], Whole]:
    """Takes every optimizer from every kind of checkpoint to every strategy."""
    found: dict[tuple[str, str], Whole] = {}
    shards, run = partial(FSDP, **SETTINGS[kind]), partial(leg, kind)
    for name in NAMES[kind]:

        def path(kind: str) -> Path:
            return folder / f"{kind}-{name}.ckpt"  # noqa: B023

        found[name, "fsdp"] = run(
            name, shards(), saves={path("fsdp"): "file", path("folder"): "folder"}
        )
        found[name, "ddp"] = run(name, DDP(), saves={path("ddp"): "file"})
        for start in STARTS:
            found[name, f"{start} -> fsdp"] = run(name, shards(), path(start))
        found[name, "fsdp -> ddp"] = run(name, DDP(), path("fsdp"))
        if name == "AdamW":  # before the first step there is no state
            found[name, "folder -> ddp"] = run(name, DDP(), path("folder"))
            run(
                name,
                shards(),
                saves={path("first file"): "file", path("first folder"): "folder"},
                at=0,
            )
            for start in ("first file", "first folder"):
                found[name, f"{start} -> fsdp"] = run(name, shards(), path(start))
    return found


def said(run: Callable[[], Any]) -> str:
    """Returns the error that a run ends with."""
    try:
        run()
    except ValueError as error:
        return str(error)
    return ""


def guarded(kind: str, strategy: Any, data: Toy, callback: L.Callback) -> str:
    """Returns the error with which one epoch ends."""
    model, devices = (
        model_of(data, encoder=ENCODERS[kind], **LEARNT),
        1 if strategy == "auto" else PROCESSES[kind],
    )
    return said(
        lambda: bare_trainer(devices, 1, strategy=strategy, callbacks=[callback]).fit(model, data)
    )


# what all hold, and weights of which each has a part: those of tensor parallelism also twice
DRIFTS = (None, "balancer.log_variances_T", "sharing.encoder.stages.0.1.bias", "heads.deep.0.bias")


class Drifts(RanksAgreeGuard):
    """Changes a number that several processes should hold alike on one of them."""

    def __init__(self, what: str | None) -> None:
        super().__init__(every_n_steps=1)
        self.what, self.looked = what, 0

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *args: Any) -> None:
        if self.what and trainer.global_step == 3 and trainer.global_rank % 2:
            local(pl_module.get_parameter(self.what)).data.add_(0.1)
        super().on_train_batch_end(trainer, pl_module, *args)
        self.looked += 1


def norms(kind: str) -> Whole:
    """Compares the norm of all gradients with torch's, and checks the layout of the shards."""
    found: Whole = {}

    class Looks(L.Callback):
        def on_before_optimizer_step(
            self, trainer: L.Trainer, pl_module: Any, optimizer: Any
        ) -> None:
            named = {name: p for name, p in pl_module.named_parameters() if p.grad is not None}
            found["ours"] = total_norm(p.grad for p in named.values()).item()
            wholes = {name: full_tensor(p.grad).double() for name, p in named.items()}
            found["torch"] = torch.nn.utils.get_total_norm(wholes.values()).item()
            found["parts"] = {
                name: (count_holders(p), tuple(local(p).shape), tuple(p.shape))
                for name, p in named.items()
            }
            for p in pl_module.parameters():
                counted = torch.arange(p.numel(), dtype=p.dtype).view(p.shape)
                laid = shard_like(counted, p)
                assert local(laid).shape == local(p).shape
                assert torch.equal(full_tensor(laid), counted)
                if isinstance(laid, torch.distributed.tensor.DTensor):
                    part, first = locate_shard(counted, laid)
                    assert torch.equal(part, local(laid))
                    assert not part.numel() or part.flatten()[0] == counted[first]

    model = model_of(Toy(), encoder=ENCODERS[kind], **LEARNT)
    bare_trainer(
        PROCESSES[kind], 1, strategy=FSDP(**SETTINGS[kind]), callbacks=[Looks()], max_steps=1
    ).fit(model, Toy())
    return found


def attempt(run: Callable[[], Any]) -> Any:
    """Returns the result, or the traceback: one case must not hide the others."""
    try:
        return run()
    except Exception:
        return traceback.format_exc()


if __name__ == "__main__":
    quiet()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    folder, kind = Path(sys.argv[1]), sys.argv[2]
    strategy = partial(FSDP, **SETTINGS[kind])
    todo: dict[str, Callable[[], Any]] = {
        name: partial(run, case, PROCESSES[kind], **SETTINGS[kind])
        for name, case in CASES[kind].items()
    }
    todo["legs"] = partial(legs, folder, kind)
    if kind in ("shards", "tensor"):
        todo["norms"] = partial(norms, kind)
        todo["not finite"] = lambda: guarded(kind, strategy(), Toy(nan_row=7), FiniteLossGuard())
        todo |= {
            f"drift of {what}": partial(guarded, kind, strategy(), Toy(), Drifts(what))
            for what in DRIFTS
        }
    left = {name: attempt(job) for name, job in todo.items()}
    held = gather(
        {
            name: value["held"]
            for name, value in left.items()
            if isinstance(value, dict) and "held" in value
        }
    )
    if dist.get_rank() == 0:
        torch.save({**left, "held": held}, folder / f"{kind}.pt")
