"""The checks of a pipeline: which models and settings it can run."""

from collections.abc import Sequence

from torch import nn

from src.errors import UserError
from src.parallel.pipeline_interfaces import STAGE
from src.runner import ShardableModel

WAY_OUT = "use --strategy ddp, fsdp or placement"


def check_slices(micro_batches: int, rows: int | None) -> None:
    """Checks that each slice has a row.

    Args:
        micro_batches: The number of slices.
        rows: The rows of a step, where they are known.

    Raises:
        UserError: There are more slices than rows.
    """
    if micro_batches < 1:
        raise UserError(f"strategy.micro_batches is {micro_batches}; it must be at least 1")
    if rows is not None and rows < micro_batches:
        raise UserError(
            f"strategy.micro_batches is {micro_batches}, but data.batch_size is {rows}: a slice "
            "needs a row"
        )


def check_model(model: ShardableModel, schedule: str, precision: object) -> None:
    """Checks that a schedule can train a model.

    Args:
        model: The model, built.
        schedule: The order of forward and backward passes.
        precision: The Trainer's precision.

    Raises:
        UserError: It is no chain of stages, or its balancer needs what slices cannot give.
    """
    if schedule not in ("gpipe", "1f1b"):
        raise UserError(f"strategy.schedule is '{schedule}'; it must be gpipe or 1f1b")
    check_balancer(model, schedule)

    kind = type(model.sharing).__name__
    stages = list_stages(model)
    inside = {id(p) for stage in stages for p in stage.parameters()}
    all_inside = all(id(p) in inside for p in model.sharing.parameters())
    if not model.sharing.one_feature or not stages or not all_inside:
        raise UserError(
            f"--strategy pipeline runs one chain of stages, which {kind} with these settings is "
            f"not: set --model.sharing HardSharing without until, or {WAY_OUT}"
        )
    if model.penalty() is not None:
        raise UserError(
            f"{kind} has a penalty on weights, but a process of a pipeline has only its own: "
            f"{WAY_OUT}"
        )
    if model.compares_groups:
        raise UserError(
            "model.fairness compares groups over the whole batch, which a pipeline cuts into "
            f"slices: {WAY_OUT}, or model.fairness Reweighting"
        )
    if model.freezing.thaws:
        raise UserError(
            "--strategy pipeline prepares its schedule for the parameters that train at first, and "
            f"finetune.thaw_at adds others later: {WAY_OUT}"
        )
    if precision == "16-mixed":
        raise UserError(
            "--precision 16-mixed scales losses that a pipeline's schedule does not see: use "
            "bf16-mixed"
        )


def check_balancer(model: ShardableModel, schedule: str) -> None:
    """Checks that a schedule can give a balancer what it needs.

    Raises:
        UserError: It cannot.
    """
    name = type(model.balancer).__name__
    if model.balancer.level is not None:
        raise UserError(
            f"--model.balancer {name} weighs gradients of tasks, and a pipeline's schedule has one "
            f"backward pass for all: {WAY_OUT}, or a balancer that looks at losses alone"
        )
    if model.balancer.needs_lookahead:
        raise UserError(
            f"{name} takes a step and takes it back, for which a pipeline has no schedule: "
            f"{WAY_OUT}"
        )
    if schedule == "1f1b" and not model.balancer.weights_before_losses:
        raise UserError(
            f"--model.balancer {name} weighs tasks by the losses of the step, and with 1f1b the "
            "first slice goes backward before the last one's losses are there: set "
            "--strategy.schedule gpipe"
        )


def check_cut(model: ShardableModel, cut: Sequence[int] | None, ranks: int) -> None:
    """Checks that each process has a stage.

    Args:
        model: The model, built.
        cut: How many stages each process has; None where this is to be found.
        ranks: The number of processes.

    Raises:
        UserError: There are too few stages, or the cut does not fit them.
    """
    stages = len(list_stages(model))
    encoder = type(model.get_submodule("sharing.encoder")).__name__
    if ranks > stages:
        raise UserError(
            f"--strategy pipeline: {ranks} devices need a stage each, but {encoder} has {stages}: "
            f"use --devices {stages}, or an encoder of more depth"
        )
    if cut is not None and (len(cut) != ranks or sum(cut) != stages or min(cut) < 1):
        raise UserError(
            f"strategy.cut is {cut}; it must be {ranks} numbers of at least 1, one for each "
            f"device, and the sum is {stages}, the stages of {encoder}"
        )


def list_stages(model: ShardableModel) -> list[nn.Module]:
    """Returns the stages of the encoder, in running order."""
    return [part for path, part in model.parts().items() if path.startswith(STAGE)]
