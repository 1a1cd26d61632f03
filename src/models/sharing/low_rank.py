"""Low-rank terms beside the layers of one encoder, which runs once for all tasks side by side.

With W a matrix of the encoder, expert e adds B_e A_e x to W x, with A_e (r, in) and B_e (out, r). A
gate g_e says how much of it counts: y = W x + s sum_e g_e B_e A_e x. The product with W is one of
the rows of all tasks; no matrix W + B A is ever made.
"""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.errors import UserError
from src.models.dropout import Dropout
from src.models.encoders import Encoder
from src.models.encoders.encoder import Inputs, State, top
from src.models.sharing.sharing import EncoderFactory, Owned, Sharing
from src.models.sharing.stacked_layers import StackedDropout


class LowRankTerm(nn.Module):
    """The term s sum_e g_e B_e A_e x of one layer, a linear one or a convolution.

    A convolution's A_e is r kernels of its own size, stride and padding, and B_e a 1x1 convolution.
    Every B_e starts at 0, so that the layer is at first what it was.

    Args:
        layer: The layer that it stands beside.
        experts: E.
        rank: r.
        scale: s.
        one_down: Whether all experts have one A.
    """

    def __init__(
        self, layer: nn.Module, experts: int, rank: int, scale: float, one_down: bool
    ) -> None:
        super().__init__()
        weight = cast(Tensor, layer.weight)
        outputs = len(weight)
        inputs = weight[0].numel()
        self.scale = scale
        self.features = weight.shape[1]
        self.kernel = weight.shape[1:]
        self.window: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]] | None = None
        if isinstance(layer, nn.Conv2d):
            assert not isinstance(layer.padding, str)
            self.window = layer.stride, layer.padding, layer.dilation
        downs = 1 if one_down else experts
        self.down = nn.Parameter(torch.randn(downs, rank, inputs) / inputs**0.5)
        self.up = nn.Parameter(torch.zeros(experts, outputs, rank))

    def forward(self, x: Tensor, gates: Tensor) -> Tensor:
        """Returns the term for inputs of the layer.

        Args:
            x: (N, ..., in), or (N, in, H, W) for a convolution.
            gates: (N, E), or (N, ..., E) with a gate for each place of a linear layer.
        """
        down = self.down.flatten(0, 1)
        if self.window is not None:
            h = F.conv2d(x, down.view(-1, *self.kernel), None, *self.window).movedim(1, -1)
        else:
            h = F.linear(x, down)

        # gates stand beside the places of h, and each counts for the r numbers of its expert
        gates = gates.to(h.dtype)
        gates = gates.view(gates.shape[0], *[1] * (h.ndim - gates.ndim), *gates.shape[1:])
        mixed = (gates.unsqueeze(-1) * h.unflatten(-1, (len(self.down), -1))).flatten(-2)
        y = self.scale * F.linear(mixed, self.up.movedim(0, 1).flatten(1))
        return y if self.window is None else y.movedim(-1, 1)


class DropoutOfCopies(StackedDropout):
    """Dropout of K copies of a batch in a row: each row and copy has a mask of its own.

    Args:
        p: Share of units to drop.
        copies: K.
    """

    def __init__(self, p: float, copies: int) -> None:
        super().__init__(p)
        self.copies = copies

    def forward(self, input: Tensor) -> Tensor:
        """(K B, ...) -> (K B, ...)."""
        return super().forward(input.unflatten(0, (self.copies, -1))).flatten(0, 1)


class LowRankSharing(Sharing):
    """One encoder for all tasks, with gated low-rank terms beside its layers.

    These are linear layers, and convolutions that join all channels. The rows of a batch run in K
    copies, all of the first copy before the second. Stages below the first layer with a term run
    once.

    Args:
        encoder: Makes an encoder.
        tasks: The tasks' names.
        copies: K: the number of tasks, or 1 where all of them read the same features.
        experts: E.
        rank: r.
        scale: s.
        one_down: Whether all experts of a layer have one A.

    Attributes:
        terms: {key of a layer: its term}.
        stages: {key of a layer: the number of its stage}.
    """

    def __init__(
        self,
        encoder: EncoderFactory,
        tasks: Sequence[str],
        copies: int,
        experts: int,
        rank: int,
        scale: float,
        one_down: bool = False,
    ) -> None:
        super().__init__(encoder, tasks)
        kind = type(self).__name__
        if experts < 1 or rank < 1:
            raise UserError(f"{kind}: experts {experts} and rank {rank} must be at least 1")
        if not scale > 0:
            raise UserError(f"{kind}: scale {scale} must be above 0")
        self.copies = copies
        # terms lie beside the encoder, so that a strategy cannot place its stages elsewhere
        self.reads_weights = True
        self.encoder = encoder()
        layers = find_layers(self.encoder, copies, kind)
        self.feature_sizes = dict.fromkeys(tasks, self.encoder.features)

        names = [name for name, _ in self.encoder.stages.named_children()]
        self.stages = {make_key(path): names.index(path.split(".")[0]) for path in layers}
        self.first = min(self.stages.values())
        self.terms = nn.ModuleDict()
        for path, layer in layers.items():
            key = make_key(path)
            self.terms[key] = self.make_term(layer, experts, rank, scale, one_down)
            layer.register_forward_hook(partial(self._add_term, key))
        if copies > 1:
            for stage in list(self.encoder.stages)[self.first :]:
                replace_dropout(stage, copies)

    def make_term(
        self, layer: nn.Module, experts: int, rank: int, scale: float, one_down: bool
    ) -> LowRankTerm:
        """Makes the term of a layer, see ``LowRankTerm``."""
        return LowRankTerm(layer, experts, rank, scale, one_down)

    @abstractmethod
    def gates(self, key: str, x: Tensor) -> Tensor:
        """Returns how much each expert of a layer counts.

        Args:
            key: The key of the layer.
            x: Its input, (K N, ..., in), or (K N, in, H, W) for a convolution.

        Returns:
            (K N, E), or (K N, ..., E) for each place of a linear layer, or (1, E) for all rows.
        """

    def _add_term(
        self, key: str, layer: nn.Module, inputs: tuple[Tensor], output: Tensor
    ) -> Tensor:
        """Adds a layer's term to its output; the layer calls it."""
        (x,) = inputs
        term: Tensor = self.terms[key](x, self.gates(key, x))
        return output + term

    def forward(self, inputs: Tensor | dict[str, Tensor]) -> Mapping[str, Tensor]:
        """Returns each task's own features, or the same ones for all."""
        state: Inputs | State = inputs
        for k, stage in enumerate(self.encoder.stages):
            if k == self.first and self.copies > 1:
                state = repeat_rows(state, self.copies)
            state = self.encoder.run(stage, state)
        z = top(cast(State, state))
        if self.copies == 1:
            return dict.fromkeys(self.tasks, z)
        return dict(zip(self.tasks, z.unflatten(0, (self.copies, -1)).unbind(), strict=True))

    def owners(self) -> Iterator[Owned]:
        """Yields the encoder and all terms for all tasks."""
        yield Owned(self.tasks, list(self.encoder.parameters()))
        for term in self.terms.values():
            yield Owned(self.tasks, [cast(LowRankTerm, term).down, cast(LowRankTerm, term).up])

    def tensor_parallel_plan(self) -> dict[str, tuple[str, int]]:
        """Returns nothing: a term is added to the whole output of its layer."""
        return {}


def make_key(path: str) -> str:
    """Returns the key of a layer, which may hold no dots."""
    return path.replace(".", "_")


def repeat_rows(state: Inputs | State, copies: int) -> Inputs | State:
    """Repeats the rows of inputs or of a state, copy by copy: (B, ...) -> (K B, ...)."""

    def repeat(x: Tensor) -> Tensor:
        return x.expand(copies, *x.shape).flatten(0, 1)

    if isinstance(state, Tensor):
        return repeat(state)
    if isinstance(state, dict):
        return {name: repeat(x) for name, x in state.items()}
    return tuple(repeat(x) for x in state)


def replace_dropout(module: nn.Module, copies: int) -> None:
    """Replaces the dropout layers below a module by those of copies."""
    for name, child in list(module.named_children()):
        if isinstance(child, Dropout):
            setattr(module, name, DropoutOfCopies(child.p, copies))
        else:
            replace_dropout(child, copies)


def can_have_term(module: nn.Module) -> bool:
    """Returns whether a module is a linear layer, or a convolution of all channels."""
    if isinstance(module, nn.Conv2d):
        plain = module.padding_mode == "zeros" and not isinstance(module.padding, str)
        return plain and module.groups == 1
    if isinstance(module, nn.Linear):
        return True
    # those of PyTorch Geometric have another base class
    weight = getattr(module, "weight", None)
    return type(module).__name__ == "Linear" and isinstance(weight, Tensor) and weight.ndim == 2


@torch.no_grad()
def find_layers(encoder: Encoder, copies: int, kind: str) -> dict[str, nn.Module]:
    """Finds the layers of an encoder that can have a term, {path below its stages: layer}.

    Copies of a batch run in a row: such a layer reads the rows of one copy after those of another.
    A layer that reads something else, such as positions, or edges in another order, is left out.

    Args:
        encoder: The encoder.
        copies: The number of copies.
        kind: The name of the sharing architecture, for messages.

    Raises:
        UserError: There are none, or the encoder is recurrent.
    """
    name = type(encoder).__name__
    if any(isinstance(module, nn.RNNBase) for module in encoder.modules()):
        raise UserError(
            f"{kind} adds terms to linear layers and convolutions, but {name} is recurrent: use "
            "--model.sharing TaskAdapters, or another encoder"
        )
    candidates = {
        path: module for path, module in encoder.stages.named_modules() if can_have_term(module)
    }
    once = trace_inputs(encoder, candidates, 1)
    several = trace_inputs(encoder, candidates, copies)
    found = {}
    for path, inputs in once.items():
        pairs = zip(inputs, several[path], strict=True)
        if all(are_copies(many, x, copies) for x, many in pairs):
            found[path] = candidates[path]
    if not found:
        raise UserError(
            f"{kind} adds terms to linear layers and convolutions, but {name} has none: use "
            "another encoder"
        )
    return found


def are_copies(many: Tensor, x: Tensor, copies: int) -> bool:
    """Returns whether a tensor is copies of x in a row, up to rounding."""
    if many.shape[0] != copies * x.shape[0]:
        return False
    return torch.allclose(many.unflatten(0, (copies, -1)), x, rtol=1e-4, atol=1e-5)


def trace_inputs(
    encoder: Encoder, layers: Mapping[str, nn.Module], copies: int
) -> dict[str, list[Tensor]]:
    """Runs copies of an example through an encoder, and keeps what reaches its layers.

    Returns:
        {path: the input of each call}; a layer that is never called is not there.
    """
    seen: dict[str, list[Tensor]] = {}

    def keep(path: str, module: nn.Module, inputs: tuple[Tensor]) -> None:
        seen.setdefault(path, []).append(inputs[0].detach())

    hooks = [layer.register_forward_pre_hook(partial(keep, path)) for path, layer in layers.items()]
    training = encoder.training
    encoder.eval()
    with torch.random.fork_rng(devices=[]), torch.compiler.set_stance("force_eager"):
        encoder.stages(repeat_rows(encoder.shape.example(), copies))
    encoder.train(training)
    for hook in hooks:
        hook.remove()
    return seen
