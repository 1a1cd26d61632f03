"""What a step sends from device to device, before any process is there to send it."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from src.planning.measure import without_trace

FIRST_BUCKET, BUCKET = (
    2**20,
    25 * 2**20,
)  # bytes at which DistributedDataParallel closes one and begins the next


@dataclass(frozen=True)
class Traffic:
    """What a device sends in a step, or receives.

    Attributes:
        what: In a word or two.
        count: Collectives, or copies.
        bytes: Of the tensors that these are about, all together, as they lie on one device.
        each_row: Whether the bytes are those for each row of the device's share of the batch.
        inside: Whether it stays within a process, from one of its devices to another.
    """

    what: str
    count: int
    bytes: float
    each_row: bool = False
    inside: bool = False

    def of(self, rows: int) -> "Traffic":
        """The same for a batch."""
        return replace(self, bytes=self.bytes * rows, each_row=False) if self.each_row else self

    def times(self, steps: int) -> "Traffic":
        """What so many batches send."""
        return replace(self, count=self.count * steps, bytes=self.bytes * steps)


def averaged(parameters: Iterable[Tensor], buffers: Iterable[Tensor] = ()) -> list[Traffic]:
    """What DistributedDataParallel sends in each step from the third on, when it has seen in which order gradients come.

    Args:
        parameters: All of the model, in its order; gradients come from the last one on.
        buffers: What it sends from the first process to the others before each forward pass.
    """
    buckets: dict[object, list[int]] = {}
    for p in reversed([p for p in parameters if p.requires_grad]):
        full = buckets.setdefault(p.dtype, [0])
        if full[-1] >= (FIRST_BUCKET if len(full) == 1 else BUCKET):
            full.append(0)
        full[-1] += p.numel() * p.element_size()
    sizes = [size for full in buckets.values() for size in full]
    found = [Traffic("gradients", len(sizes), sum(sizes))] if sizes else []
    state = list(buffers)
    if state:  # those of one type travel together
        found.append(
            Traffic(
                "buffers",
                len({b.dtype for b in state}),
                sum(b.numel() * b.element_size() for b in state),
            )
        )
    return found


def shard(shape: Sequence[int], pieces: int, place: int = 0) -> int:
    """How many numbers of a parameter lie in one of its shards, cut along the first dimension; the first one has the most."""
    rows, *others = shape or (1,)
    each = -(-rows // pieces)
    return prod(others) * max(min(each, rows - place * each), 0)


def sharded(
    units: Iterable[tuple[Sequence[Tensor], int, int]],
    pieces: int,
    runs_in: int | None = None,
    sums_in: int | None = None,
    shape: Callable[[Tensor], Sequence[int]] = lambda p: p.shape,
) -> list[Traffic]:
    """What FSDP2 sends in a step; shards travel filled up to the size of the first one.

    Args:
        units: Parameters that are fetched together, how often, and how often their gradients are
            summed.
        pieces: Shards of each parameter.
        runs_in: Bytes of a number in the forward and backward pass; None: as it lies there.
        sums_in: Bytes of a number where gradients are summed; likewise.
        shape: What of a parameter is cut into shards.
    """

    def size(weights: Sequence[Tensor], itemsize: int | None) -> int:
        return pieces * sum(
            shard(shape(p), pieces) * (itemsize or p.element_size()) for p in weights
        )

    chosen = list(units)
    trained = [unit for unit in chosen if any(p.requires_grad for p in unit[0])]
    return [
        Traffic(
            "weights",
            sum(n for _, n, _ in chosen),
            sum(n * size(weights, runs_in) for weights, n, _ in chosen),
        ),
        Traffic(
            "gradients",
            sum(n for _, _, n in trained),
            sum(n * size(weights, sums_in) for weights, _, n in trained),
        ),
    ]


def carried(model: Any, places: Mapping[str, Any], root: Any = 0) -> list[Traffic]:
    """What is copied over the borders between the devices of one process, there and back, found out by one run on the CPU.

    Args:
        model: The model, built.
        places: {path of a part, or 'sharing' for the rest of the architecture: its device}.
        root: The device of losses and batches.
    """
    home, rows = places.get("sharing", root), 2
    at: dict[
        int, tuple[Tensor, Any]
    ] = {}  # what lies elsewhere than at home, as long as no other stage has read it
    copies: list[int] = []

    def carry(tensor: Tensor, there: Any, here: Any) -> None:
        if there != here:
            copies.extend([tensor.nbytes] * (1 + tensor.requires_grad))

    def hooked(part: nn.Module, place: Any) -> Iterator[Any]:
        def before(_: nn.Module, inputs: Any) -> None:
            for tensor in tensors(inputs):
                carry(tensor, at.pop(id(tensor), (tensor, home))[1], place)

        def after(_: nn.Module, inputs: Any, output: Any) -> None:
            at.update({id(tensor): (tensor, place) for tensor in tensors(output)})

        yield part.register_forward_pre_hook(before)
        yield part.register_forward_hook(after)

    parts: dict[str, nn.Module] = model.parts()
    hooks = [
        hook
        for path, part in parts.items()
        if not path.startswith("heads.")
        for hook in hooked(part, places[path])
    ]
    inputs = model.input_shape.example(rows)
    with without_trace(model, hooks):
        features = {id(z): z for z in tensors(dict(model.sharing(inputs)))}
    for tensor, place in at.values():
        carry(tensor, place, home)
    for tensor in (*tensors(inputs), *features.values()):
        carry(tensor, home, root)
    for place in {places[path] for path in parts if path.startswith("heads.")}:
        for tensor in features.values():
            carry(tensor, root, place)
    what = "activations and their gradients"
    return (
        [Traffic(what, len(copies), sum(copies) / rows, each_row=True, inside=True)]
        if copies
        else []
    )


def within_layers(
    model: Any, cut: Mapping[nn.Module, str], backward: int, again: int = 0, size: int | None = None
) -> list[Traffic]:
    """What devices add up that compute layers together: outputs, and gradients of inputs; found out by one run on the CPU.

    Args:
        model: The model, built; where sequences differ in length, they have five tokens.
        cut: {linear layer: what of it each device has, some of its 'outputs' or 'inputs'}.
        backward: Backward passes of a step.
        again: Forward passes of a step besides the one that they follow.
        size: Bytes of a number in these passes; None: as it comes.
    """
    rows = 2
    outputs: list[int] = []
    gradients: list[int] = []

    def nbytes(tensor: Tensor) -> int:
        return tensor.numel() * (size or tensor.element_size())

    def before(_: nn.Module, inputs: tuple[Tensor]) -> None:
        if inputs[0].requires_grad:
            gradients.append(nbytes(inputs[0]))

    def after(_: nn.Module, inputs: Any, output: Tensor) -> None:
        outputs.append(nbytes(output))

    of_inputs = [
        layer.register_forward_pre_hook(before) for layer, what in cut.items() if what == "outputs"
    ]
    of_outputs = [
        layer.register_forward_hook(after) for layer, what in cut.items() if what == "inputs"
    ]
    with without_trace(model, [*of_inputs, *of_outputs]):
        features = tensors(dict(model.sharing(model.input_shape.example(rows))))
        first, of_backward = len(outputs), list(gradients)
        trained = [p for p in model.sharing.parameters() if p.requires_grad]
        if gradients and any(
            getattr(module, "recompute", False) for module in model.sharing.modules()
        ):
            torch.autograd.grad(
                [z.sum() for z in features], trained, allow_unused=True
            )  # what runs once more
    sent = outputs[:first] * (1 + again) + (outputs[first:] + of_backward) * backward
    return (
        [Traffic("sums within layers", len(sent), sum(sent) / rows, each_row=True)] if sent else []
    )


def tensors(tree: Any) -> list[Tensor]:
    """Those in nested tuples and mappings."""
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
