"""What each part of a network takes, found out by running it on the CPU: what it keeps for the backward pass, and how long."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._pytree import tree_leaves


@dataclass(frozen=True)
class Cost:
    """What a part of a network takes.

    Attributes:
        parameters: Bytes of its weights.
        gradients: Bytes of those weights that train.
        buffers: Bytes of what it has besides weights.
        activations: Bytes that its forward pass keeps for the backward pass.
        seconds: Of its forward pass.
    """

    parameters: int
    gradients: int
    buffers: int
    activations: int
    seconds: float


REST = ("sharing", "heads", "balancer")  # of each of these, what is in no part


TIMED = 3  # runs, of which the fastest counts, part by part


class Clock:
    """Notes what is kept and how long it takes, for the part that runs.

    Args:
        weights: What does not count, being there anyway.
        recomputed: Whether stages run once more, for which their inputs are kept just before they
            run.
    """

    def __init__(self, weights: list[Tensor], recomputed: bool) -> None:
        self.recomputed = recomputed
        self.kept: dict[str, int] = defaultdict(int)
        self.seconds: dict[str, float] = defaultdict(float)
        self._running: list[str] = []
        self._since = 0.0
        self._seen: dict[int, Any] = {
            w.untyped_storage().data_ptr(): w for w in weights
        }  # alive, so that no address comes twice
        self._keeper: dict[int, str] = {}

    @contextmanager
    def on(self, part: str) -> Iterator[None]:
        """While this part runs."""
        self.enter(part)
        yield
        self.leave()

    def enter(self, part: str) -> None:
        """The part inside the one that ran until now begins."""
        self._turn()
        self._running.append(part)

    def leave(self) -> None:
        """The part ends."""
        self._turn()
        self._running.pop()

    def _turn(self) -> None:
        now = perf_counter()
        if self._running:
            self.seconds[self._running[-1]] += now - self._since
        self._since = now

    def keep(self, tensor: Tensor) -> Tensor:
        """Counts the bytes behind a tensor, once."""
        storage = tensor.untyped_storage()
        if storage.nbytes() and storage.data_ptr() not in self._seen:
            self._seen[storage.data_ptr()], self._keeper[storage.data_ptr()] = (
                storage,
                self._running[-1],
            )
            self.kept[self._running[-1]] += storage.nbytes()
        return tensor.detach()  # itself would hold its own graph

    def watch(self, module: nn.Module, part: str) -> Iterator[Any]:
        """Puts hooks on a module that is a part."""

        def before(_: nn.Module, inputs: Any) -> None:
            around = self._running[-1]
            self.enter(part)
            for tensor in tree_leaves(inputs) if self.recomputed else ():
                storage = tensor.untyped_storage()
                if self._keeper.get(storage.data_ptr()) == around:
                    self._keeper[storage.data_ptr()] = part
                    self.kept[around] -= storage.nbytes()
                    self.kept[part] += storage.nbytes()

        def after(*_: Any) -> None:
            self.leave()

        yield module.register_forward_pre_hook(before)
        yield module.register_forward_hook(after)


@contextmanager
def without_trace(model: Any, hooks: Iterable[Any] = ()) -> Iterator[None]:
    """Runs that leave a model's buffers and torch's generator as they were; the hooks that watch them are taken away."""
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    try:
        with (
            torch.random.fork_rng(devices=[]),
            torch.enable_grad(),
            torch.compiler.set_stance("force_eager"),
        ):
            yield
    finally:
        for hook in hooks:
            hook.remove()
        with torch.no_grad():
            for name, buffer in model.named_buffers():
                buffer.copy_(buffers[name])


def measured(model: Any, inputs: Any, targets: Any = None) -> dict[str, Cost]:
    """Runs a network a few times, and leaves it as it was.

    Kept tensors count once, for the part that kept them first. Where stages are computed once more
    in the backward pass, their inputs count. Heads that run as one product share what that takes by
    their sizes.

    Args:
        model: The model, built, on the CPU.
        inputs: Some samples, as a batch holds them.
        targets: {task: labels}; None leaves out what the losses keep.

    Returns: {path of a part as ``model.parts()`` has it, or 'sharing', 'heads', 'balancer' for what
        is in no part: what it takes}; a rest that has and keeps nothing is not there.
    """
    parts: dict[str, nn.Module] = model.parts()
    recomputed = any(getattr(module, "recompute", False) for module in model.sharing.modules())
    clock = Clock([*model.parameters(), *model.buffers()], recomputed)
    runs: list[dict[str, float]] = []
    hooks = [hook for part, module in parts.items() for hook in clock.watch(module, part)]
    with without_trace(model, hooks):
        for k in range(1 + TIMED):
            clock.seconds.clear()
            with (
                saved_tensors_hooks(clock.keep, lambda tensor: tensor) if k == 0 else nullcontext()
            ):
                with clock.on("sharing"):
                    features = model.sharing(inputs)
                with clock.on("heads"):
                    outputs = model.heads(features)
                    if targets is not None:
                        model.loss_sums(outputs, targets)
            if k:  # the first run warms up, and is slowed down by being watched
                runs.append(dict(clock.seconds))
    # whatever else the machine does can only add to a time
    clock.seconds.update({part: min(run.get(part, 0.0) for run in runs) for part in clock.seconds})
    share_out(parts, clock)
    held = holdings(model, parts)
    rest = {part: (0, 0, 0) for part in clock.kept if part not in held}
    return {
        part: Cost(*bytes_, clock.kept[part], clock.seconds[part])
        for part, bytes_ in (held | rest).items()
    }


def measured_at(model: Any, sample: Callable[[int], tuple[Any, Any]], rows: int) -> dict[str, Cost]:
    """What the parts take for so many rows, by a straight line through what they take for two and four.

    Args:
        model: The model, built, on the CPU.
        sample: Gives inputs and targets of at most so many rows.
        rows: Number of rows.
    """
    found = []
    for count in (2, 4):
        inputs, targets = sample(count)
        found.append(
            (len(next(leaf for leaf in tree_leaves(inputs))), measured(model, inputs, targets))
        )
    (few, small), (many, large) = found

    def at(a: float, b: float) -> float:
        return (
            max(a + (b - a) / (many - few) * (rows - few), 0.0) if many > few else b / many * rows
        )

    return {
        part: replace(
            cost,
            activations=round(at(small[part].activations, cost.activations)),
            seconds=at(small[part].seconds, cost.seconds),
        )
        for part, cost in large.items()
    }


def share_out(parts: dict[str, nn.Module], clock: Clock) -> None:
    """Gives the heads what they have taken together."""
    sizes = {
        part: sum(p.numel() for p in module.parameters())
        for part, module in parts.items()
        if part.startswith("heads.")
    }
    kept, seconds, whole = (
        clock.kept.pop("heads", 0),
        clock.seconds.pop("heads", 0.0),
        sum(sizes.values()),
    )
    for part, size in sizes.items():
        share = size / whole if whole else 1 / len(sizes)
        clock.kept[part] += round(kept * share)
        clock.seconds[part] += seconds * share


def holdings(
    model: Any, parts: dict[str, nn.Module] | None = None
) -> dict[str, tuple[int, int, int]]:
    """{part: bytes of its weights, of those that train, of its buffers}, each weight in the first part that has it.

    Args:
        model: The model, built.
        parts: Its parts, where they are known; the rest comes after them, where it has something.
    """
    return {
        part: (total(weights), total([p for p in weights if p.requires_grad]), total(others))
        for part, (weights, others) in tensors_of(model, parts).items()
    }


def tensors_of(
    model: Any, parts: dict[str, nn.Module] | None = None
) -> dict[str, tuple[list[nn.Parameter], list[Tensor]]]:
    """{part: its weights and its buffers}, otherwise as :func:`holdings`."""
    parts = model.parts() if parts is None else parts
    found: dict[str, tuple[list[nn.Parameter], list[Tensor]]] = {}
    seen: set[int] = set()
    for part, module in [*parts.items(), *((rest, getattr(model, rest)) for rest in REST)]:
        weights = [p for p in module.parameters() if id(p) not in seen]
        others = [b for b in module.buffers() if id(b) not in seen]
        seen |= {id(tensor) for tensor in (*weights, *others)}
        if part in parts or weights or others:
            found[part] = weights, others
    return found


def total(tensors: list[Any]) -> int:
    """Bytes of some tensors."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
