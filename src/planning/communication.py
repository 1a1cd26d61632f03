"""Estimates what a step sends from device to device, before any process is there to send it."""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from src.planning.measure import preserve_state
from src.planning.tensors import count_bytes, list_tensors
from src.runner import ShardableModel

# DistributedDataParallel closes a bucket at this many bytes and begins the next one.
FIRST_BUCKET = 2**20
BUCKET = 25 * 2**20

ROWS = 2  # of the batch on which a model is tried; bytes are given per row
ACTIVATIONS = "activations and their gradients"


@dataclass(frozen=True)
class Traffic:
    """Messages of one kind that a device sends or receives in a step.

    Attributes:
        what: Their content in a word or two.
        count: Number of collectives, or of copies.
        bytes: Size of all their tensors together, as they lie on one device.
        each_row: Whether the bytes are per row of the device's share of the batch.
        inside: Whether they stay within a process, from one of its devices to another.
    """

    what: str
    count: int
    bytes: float
    each_row: bool = False
    inside: bool = False

    def of(self, rows: int) -> "Traffic":
        """Returns this traffic for a batch with this number of rows."""
        return replace(self, bytes=self.bytes * rows, each_row=False) if self.each_row else self

    def times(self, batches: int) -> "Traffic":
        """Returns the traffic of several batches."""
        return replace(self, count=self.count * batches, bytes=self.bytes * batches)


# -- data parallelism ------------------------------------------------------------------------------
def estimate_ddp(parameters: Iterable[Tensor], buffers: Iterable[Tensor] = ()) -> list[Traffic]:
    """Estimates what DistributedDataParallel sends in a step.

    Counts hold from the third step on: before, it has not seen the order of the gradients.

    Args:
        parameters: All parameters of the model, in its order; gradients come from the last one on.
        buffers: Buffers that the first process sends to the others before each forward pass.
    """
    buckets: dict[torch.dtype, list[int]] = {}
    for p in reversed([p for p in parameters if p.requires_grad]):
        # A bucket has one type, and ends with the parameter that fills it up.
        sizes = buckets.setdefault(p.dtype, [0])
        limit = FIRST_BUCKET if len(sizes) == 1 else BUCKET
        if sizes[-1] >= limit:
            sizes.append(0)
        sizes[-1] += count_bytes([p])

    found = []
    if buckets:
        count = sum(len(sizes) for sizes in buckets.values())
        found.append(Traffic("gradients", count, sum(sum(sizes) for sizes in buckets.values())))

    state = list(buffers)
    if state:
        # Buffers of one type travel together.
        found.append(Traffic("buffers", len({b.dtype for b in state}), count_bytes(state)))
    return found


# -- shards ----------------------------------------------------------------------------------------
def count_in_shard(shape: Sequence[int], shards: int, place: int = 0) -> int:
    """Counts the numbers in one shard of a parameter that is cut along its first dimension.

    Args:
        shape: The parameter's shape.
        shards: Number of shards.
        place: Which shard; the first one is the largest.
    """
    # A single number is cut like a list of one.
    rows, *others = shape or (1,)
    each = -(-rows // shards)
    return prod(others) * max(min(each, rows - place * each), 0)


def estimate_fsdp(
    units: Iterable[tuple[Sequence[Tensor], int, int]],
    shards: int,
    compute_itemsize: int | None = None,
    reduce_itemsize: int | None = None,
    shape_of: Callable[[Tensor], Sequence[int]] = lambda p: p.shape,
) -> list[Traffic]:
    """Estimates what FSDP2 sends in a step; each shard is padded to the size of the first one.

    Args:
        units: Parameters that are fetched together, how often they are fetched, and how often
            their gradients are summed.
        shards: Number of shards of each parameter.
        compute_itemsize: Bytes of a number in the forward and backward pass; None: as stored.
        reduce_itemsize: Bytes of a number where gradients are summed; None: as stored.
        shape_of: The shape of the tensor that is cut into shards.
    """

    def count(weights: Sequence[Tensor], itemsize: int | None) -> int:
        each = [
            count_in_shard(shape_of(p), shards) * (itemsize or p.element_size()) for p in weights
        ]
        return shards * sum(each)

    fetches = 0
    gathered = 0  # bytes
    sums = 0
    reduced = 0  # bytes
    for weights, fetched, summed in units:
        fetches += fetched
        gathered += fetched * count(weights, compute_itemsize)
        # A unit counts as a whole, with its frozen parameters.
        if any(p.requires_grad for p in weights):
            sums += summed
            reduced += summed * count(weights, reduce_itemsize)
    return [Traffic("weights", fetches, gathered), Traffic("gradients", sums, reduced)]


# -- several devices for one model -----------------------------------------------------------------
def estimate_transfers(
    model: ShardableModel, places: Mapping[str, Hashable], root: Hashable = 0
) -> list[Traffic]:
    """Estimates what is copied between the devices of one process, by a run on the CPU.

    Activations go there, and their gradients back.

    Args:
        model: The model, built.
        places: {path of a part, or "sharing" for the rest of the architecture: its device}.
        root: The device of losses and batches.
    """
    home = places.get("sharing", root)
    copies: list[int] = []  # bytes of each
    # Outputs of stages, each with its device, until another stage reads them.
    unread: dict[int, tuple[Tensor, Hashable]] = {}

    def copy(tensor: Tensor, source: Hashable, target: Hashable) -> None:
        if source != target:
            copies.append(tensor.nbytes)
            if tensor.requires_grad:
                copies.append(tensor.nbytes)  # the gradient's way back

    def watch(stage: nn.Module, place: Hashable) -> list[RemovableHandle]:
        def read(_: nn.Module, inputs: object) -> None:
            for tensor in list_tensors(inputs):
                source = unread.pop(id(tensor), (tensor, home))[1]
                copy(tensor, source, place)

        def write(_: nn.Module, inputs: object, output: object) -> None:
            for tensor in list_tensors(output):
                unread[id(tensor)] = tensor, place

        return [stage.register_forward_pre_hook(read), stage.register_forward_hook(write)]

    hooks: list[RemovableHandle] = []
    places_of_heads = set()
    for path, part in model.parts().items():
        if path.startswith("heads."):
            places_of_heads.add(places[path])
        else:
            hooks += watch(part, places[path])

    inputs = model.input_shape.example(ROWS)
    with preserve_state(model, hooks):
        # Tasks may share one feature, which travels once.
        features = {id(z): z for z in list_tensors(model.sharing(inputs))}

    # Outputs that no other stage reads go home. From there features and inputs go to the losses,
    # and features from the losses to the heads.
    for tensor, source in unread.values():
        copy(tensor, source, home)
    for tensor in (*list_tensors(inputs), *features.values()):
        copy(tensor, home, root)
    for target in places_of_heads:
        for tensor in features.values():
            copy(tensor, root, target)

    if not copies:
        return []
    return [Traffic(ACTIVATIONS, len(copies), sum(copies) / ROWS, each_row=True, inside=True)]


def estimate_tensor_parallel(
    model: ShardableModel,
    cut: Mapping[nn.Module, str],
    backward_passes: int,
    extra_forward_passes: int = 0,
    itemsize: int | None = None,
) -> list[Traffic]:
    """Estimates what devices sum that compute layers together, by a run on the CPU.

    They sum the outputs of a layer whose inputs are cut, and the gradients of the inputs of a layer
    whose outputs are cut.

    Args:
        model: The model, built; sequences of different lengths are taken to have five tokens.
        cut: {linear layer: "columns" or "rows", its split by tensor parallelism}.
        backward_passes: Backward passes of a step.
        extra_forward_passes: Forward passes of a step that no backward pass follows.
        itemsize: Bytes of a number in these passes; None: as it comes.
    """
    outputs: list[int] = []
    gradients: list[int] = []

    def count(tensor: Tensor) -> int:
        return tensor.numel() * (itemsize or tensor.element_size())

    def before(_: nn.Module, inputs: tuple[Tensor]) -> None:
        # The first layer reads data, which need no gradient.
        if inputs[0].requires_grad:
            gradients.append(count(inputs[0]))

    def after(_: nn.Module, inputs: object, output: Tensor) -> None:
        outputs.append(count(output))

    hooks: list[RemovableHandle] = []
    for layer, side in cut.items():
        if side == "columns":
            hooks.append(layer.register_forward_pre_hook(before))
        elif side == "rows":
            hooks.append(layer.register_forward_hook(after))

    with preserve_state(model, hooks):
        features = list_tensors(model.sharing(model.input_shape.example(ROWS)))
        of_forward = list(outputs)
        of_backward = list(gradients)

        recomputed = any(getattr(module, "recompute", False) for module in model.sharing.modules())
        if gradients and recomputed:
            # The backward pass runs stages again, and the hooks count them.
            trained = [p for p in model.sharing.parameters() if p.requires_grad]
            torch.autograd.grad([z.sum() for z in features], trained, allow_unused=True)
        of_recomputation = outputs[len(of_forward) :]

    sent = of_forward * (1 + extra_forward_passes)
    sent += (of_recomputation + of_backward) * backward_passes
    if not sent:
        return []
    return [Traffic("sums within layers", len(sent), sum(sent) / ROWS, each_row=True)]
