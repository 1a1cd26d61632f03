"""Measures the bytes and the time that each part of a network takes, by running it on the CPU."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.hooks import RemovableHandle

from src.planning.recorder import CostRecorder
from src.planning.tensors import count_bytes, list_tensors
from src.runner import Inputs, ShardableModel

REST = ("sharing", "heads", "balancer")  # modules that also hold weights outside all parts
TIMED = 3  # timed runs; the fastest counts, part by part


@dataclass(frozen=True)
class Cost:
    """The bytes and the time that a part of a network takes.

    Attributes:
        parameters: Bytes of its weights.
        gradients: Bytes of the weights that train.
        buffers: Bytes of its buffers.
        activations: Bytes that its forward pass keeps for the backward pass.
        seconds: Time of its forward pass.
    """

    parameters: int
    gradients: int
    buffers: int
    activations: int = 0
    seconds: float = 0.0


@contextmanager
def preserve_state(model: ShardableModel, hooks: Iterable[RemovableHandle] = ()) -> Iterator[None]:
    """Restores a model's buffers and torch's generator after runs, and removes hooks."""
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    try:
        with (
            torch.random.fork_rng(devices=[]),
            torch.enable_grad(),
            # Compiling a part would take longer than all runs.
            torch.compiler.set_stance("force_eager"),
        ):
            yield
    finally:
        for hook in hooks:
            hook.remove()
        with torch.no_grad():
            for name, buffer in model.named_buffers():
                buffer.copy_(buffers[name])


def measure_costs(
    model: ShardableModel, inputs: Inputs, targets: Mapping[str, Tensor] | None = None
) -> dict[str, Cost]:
    """Runs a network a few times, and leaves it as it was.

    A tensor that several parts keep counts for the first one. Where stages are recomputed in the
    backward pass, their inputs count. Heads run together, and share by their sizes what that takes.

    Args:
        model: The model, built, on the CPU.
        inputs: Some samples, as a batch holds them.
        targets: {task: labels}; None leaves out the bytes that the losses keep.

    Returns:
        {path of a part, as ``model.parts()`` has it: its cost}. Costs outside all parts stand under
        "sharing", "heads" and "balancer", if there are any.
    """
    parts = model.parts()
    recomputed = any(getattr(module, "recompute", False) for module in model.sharing.modules())
    recorder = CostRecorder([*model.parameters(), *model.buffers()], recomputed)
    hooks = [hook for part, module in parts.items() for hook in recorder.watch(module, part)]
    times: list[dict[str, float]] = []

    with preserve_state(model, hooks):
        for run in range(1 + TIMED):
            # Bytes are counted in the first run, which is not timed: it warms up, and counting
            # slows it down.
            counting = run == 0
            watched = saved_tensors_hooks(recorder.keep, lambda tensor: tensor)
            recorder.seconds.clear()
            with watched if counting else nullcontext():
                with recorder.record("sharing"):
                    features = model.sharing(inputs)
                with recorder.record("heads"):
                    outputs = model.heads(features)
                    if targets is not None:
                        model.heads.loss_sums(outputs, targets)
            if not counting:
                times.append(dict(recorder.seconds))

    # Whatever else the machine does can only add to a time.
    seconds = {part: min(run.get(part, 0.0) for run in times) for part in times[-1]}
    kept = dict(recorder.kept)
    share_among_heads(parts, kept, seconds)

    weights = weigh_parts(model)
    outside = {part: Cost(0, 0, 0) for part in kept if part not in weights}
    return {
        part: replace(cost, activations=kept.get(part, 0), seconds=seconds.get(part, 0.0))
        for part, cost in (weights | outside).items()
    }


def share_among_heads(
    parts: Mapping[str, nn.Module], kept: dict[str, int], seconds: dict[str, float]
) -> None:
    """Splits what the heads took together, in place, in proportion to their numbers of weights."""
    sizes = {
        part: sum(p.numel() for p in module.parameters())
        for part, module in parts.items()
        if part.startswith("heads.")
    }
    whole = sum(sizes.values())
    kept_together = kept.pop("heads", 0)
    seconds_together = seconds.pop("heads", 0.0)

    for part, size in sizes.items():
        # Heads without weights share equally.
        share = size / whole if whole else 1 / len(sizes)
        kept[part] = kept.get(part, 0) + round(kept_together * share)
        seconds[part] = seconds.get(part, 0.0) + seconds_together * share


def extrapolate_costs(
    model: ShardableModel,
    sample: Callable[[int], tuple[Inputs, Mapping[str, Tensor]]],
    rows: int,
) -> dict[str, Cost]:
    """Estimates the costs of many rows, on a straight line through those of two and of four rows.

    Args:
        model: The model, built, on the CPU.
        sample: Given a number of rows, returns inputs and targets of at most that number.
        rows: Number of rows.
    """
    measured: list[tuple[int, dict[str, Cost]]] = []
    for count in (2, 4):
        inputs, targets = sample(count)
        found = len(list_tensors(inputs)[0])
        measured.append((found, measure_costs(model, inputs, targets)))
    (few, of_few), (many, of_many) = measured

    def extend(at_few: float, at_many: float) -> float:
        # A split of one or two rows gives no line, and costs are taken to be proportional.
        if many == few:
            return at_many / many * rows
        return max(at_few + (at_many - at_few) / (many - few) * (rows - few), 0.0)

    return {
        part: replace(
            cost,
            activations=round(extend(of_few[part].activations, cost.activations)),
            seconds=extend(of_few[part].seconds, cost.seconds),
        )
        for part, cost in of_many.items()
    }


def weigh_parts(model: ShardableModel) -> dict[str, Cost]:
    """Returns the bytes of each part's weights and buffers, without running the model."""
    return {
        part: Cost(
            parameters=count_bytes(weights),
            gradients=count_bytes(p for p in weights if p.requires_grad),
            buffers=count_bytes(buffers),
        )
        for part, (weights, buffers) in collect_tensors(model).items()
    }


def collect_tensors(model: ShardableModel) -> dict[str, tuple[list[nn.Parameter], list[Tensor]]]:
    """Returns {part: its weights and its buffers}; a tensor of several parts stands in the first.

    Tensors outside all parts stand under "sharing", "heads" and "balancer", if there are any.
    """
    parts = model.parts()
    modules = parts | {rest: getattr(model, rest) for rest in REST}
    found: dict[str, tuple[list[nn.Parameter], list[Tensor]]] = {}
    seen: set[int] = set()

    # Parts come first, so that the others keep the rest.
    for part, module in modules.items():
        weights = [p for p in module.parameters() if id(p) not in seen]
        buffers = [b for b in module.buffers() if id(b) not in seen]
        seen |= {id(tensor) for tensor in (*weights, *buffers)}
        if part in parts or weights or buffers:
            found[part] = weights, buffers
    return found
