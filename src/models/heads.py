"""All heads of a model, alike ones run as one product.

A loop over T small heads costs T launches of everything; T alike heads on one feature cost one
matrix product, with their weights put side by side. Each head stays a module of its own with its
own parameters (``heads.<task>``), so that checkpoints, learning rates, placement and sharding see
heads, and only the arithmetic is batched.
"""

from collections import defaultdict
from collections.abc import Container, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import count, groupby

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.tasks import Task
from src.tasks.head import Head


@dataclass(frozen=True)
class Group:
    """K alike tasks: their names, and one of them for all."""

    names: tuple[str, ...]
    task: Task

    def stack(self, targets: Mapping[str, Tensor]) -> Tensor:
        """The K targets side by side: (B, ..., K) for scalar labels, (B, ..., K, L) for vectors."""
        dim = -1 - self.task.event_dims
        if len(self.names) == 1:
            return targets[self.names[0]].unsqueeze(dim)
        return torch.stack([targets[name] for name in self.names], dim)

    def per_task(self, elements: Tensor) -> Tensor:
        """Sums elements of the targets' shape to (K,)."""
        k = elements.ndim - 1 - self.task.event_dims
        return elements.sum([d for d in range(elements.ndim) if d != k])


class Heads(nn.Module):
    """One head per task.

    Args:
        tasks: {name: task}.
        feature_sizes: {name: size of the features its head reads}.

    Attributes:
        groups: Alike tasks; their names, one group after the other, are the order of T throughout
            the model.
    """

    def __init__(self, tasks: Mapping[str, Task], feature_sizes: Mapping[str, int]) -> None:
        super().__init__()
        heads = {name: task.head(feature_sizes[name]) for name, task in tasks.items()}
        taken = {
            *dir(self),
            *dir(nn.ModuleDict()),
            "paths",
            "groups",
        }  # names of attributes, which no module can have
        self.paths = {name: free(name, taken, tasks) for name in heads}
        for name, head in heads.items():
            self.add_module(self.paths[name], head)

        alike: dict[Hashable, list[str]] = defaultdict(list)
        for name, head in heads.items():
            batched = type(head) is Head  # a head of another make runs by itself
            alike[(tasks[name].loss_key(), feature_sizes[name]) if batched else name].append(name)
        self.groups = tuple(Group(tuple(names), tasks[names[0]]) for names in alike.values())

    def __getitem__(self, name: str) -> Head:
        head = self._modules[self.paths[name]]
        assert isinstance(head, Head)
        return head

    def forward(self, features: Mapping[str, Tensor]) -> list[Tensor]:
        """Returns per group the outputs (B, ..., K, O), in fp32 where the features have less."""
        return self._of_all(features, None)

    def taped(
        self, features: Mapping[str, Tensor], tape: "HeadActivations"
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Returns the same, and the outputs of first layers, where a later backward pass starts; the tape notes what that needs."""
        return self._of_all(features, tape), [first for first, _ in tape.first]

    def _of_all(
        self, features: Mapping[str, Tensor], tape: "HeadActivations | None"
    ) -> list[Tensor]:
        outputs = [
            self._outputs(group, [features[name] for name in group.names], tape)
            for group in self.groups
        ]
        return [
            out.float() if out.dtype in (torch.half, torch.bfloat16) else out for out in outputs
        ]

    def _outputs(
        self, group: Group, features: list[Tensor], tape: "HeadActivations | None"
    ) -> Tensor:
        heads = [self[name] for name in group.names]
        if len(heads) == 1 and tape is None:
            return heads[0](features[0]).unsqueeze(-2)
        if type(heads[0]) is not Head:
            assert tape is not None
            x = tape.own_features(features[0], list(heads[0].parameters()))
            return heads[0](x).unsqueeze(-2)
        linears = [head.linears for head in heads]
        # those that follow one another on one device are one product
        runs = [
            list(run)
            for _, run in groupby(range(len(heads)), lambda k: linears[k][0].weight.device)
        ]
        outputs = [
            together([linears[k] for k in run], [features[k] for k in run], tape) for run in runs
        ]
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs, -2)

    def split(self, outputs: list[Tensor]) -> dict[str, Tensor]:
        """Group outputs as {task: (B, ..., O)}."""
        pairs = zip(self.groups, outputs, strict=True)
        return {name: out[..., k, :] for group, out in pairs for k, name in enumerate(group.names)}


def free(name: str, taken: Container[str], others: Container[str]) -> str:
    """The name, with underscores behind it if it is taken."""
    if name not in taken:
        return name
    return next(
        path for n in count(1) if (path := name + "_" * n) not in taken and path not in others
    )


def together(
    heads: Sequence[Sequence[nn.Linear]], features: Sequence[Tensor], tape: "HeadActivations | None"
) -> Tensor:
    """The outputs (B, ..., K, O) of K alike heads, given the linear layers of each, on the device where they lie."""
    layers = list(zip(*heads, strict=True))
    weight, bias = side_by_side(layers[0])
    home = features[0].device
    if all(z is features[0] for z in features):
        x = F.linear(features[0].to(weight.device), weight.flatten(0, 1), bias.flatten())
        x = x.view(*x.shape[:-1], *bias.shape)
    else:
        x = products(torch.stack(list(features), -2).to(weight.device), weight, bias)
    if tape is not None:
        tape.first_layer(x, weight)
    for layer in layers[1:]:
        weight, bias = side_by_side(layer)
        if tape is not None:
            tape.later_layer(weight, bias)
        x = products(F.gelu(x), weight, bias)
    return x.to(home)


def side_by_side(layers: tuple[nn.Linear, ...]) -> tuple[Tensor, Tensor]:
    """The weights (K, O, I) and biases (K, O) of K alike linear layers."""
    if len(layers) == 1:
        return layers[0].weight.unsqueeze(0), layers[0].bias.unsqueeze(0)
    return torch.stack([layer.weight for layer in layers]), torch.stack(
        [layer.bias for layer in layers]
    )


def products(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """K linear layers, each on its own features: (..., K, I) -> (..., K, O), one batched product."""
    return torch.einsum("...ki,koi->...ko", x, weight) + bias


@lru_cache(maxsize=64)
def blocks(groups: tuple[tuple[int, int], ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    """Which output belongs to which task, (outputs, T) of 0 and 1, for groups of K tasks with H outputs each."""
    sizes = torch.tensor([h for k, h in groups for _ in range(k)])
    return F.one_hot(torch.arange(len(sizes)).repeat_interleave(sizes)).to(device, dtype)


class HeadActivations:
    """What one forward pass of all heads leaves for the gradients of each task, with respect to its features and to its own head.

    The heads read features that are cut off from the encoder. Each loss sees only its own outputs,
    so that one backward pass of the sum of all losses, down to the outputs of the heads' first
    layers, gives every task's gradient delta there; that with respect to the features is delta_k
    W_k.

    Attributes:
        first: Per group the first layers' outputs (B, ..., K, H) and weights (K, H, D); a head of
            another make has its own copy of the features (B, ..., 1, D) there, and None.
        later: Per group the weights and biases behind the first layer, each (K, ...), or the
            parameters of a head of another make.
    """

    def __init__(self) -> None:
        self.first: list[tuple[Tensor, Tensor | None]] = []
        self.later: list[list[Tensor]] = []

    def first_layer(self, outputs: Tensor, weight: Tensor) -> None:
        """Begins a group of alike heads."""
        self.first.append((outputs, weight.detach()))
        self.later.append([])

    def later_layer(self, weight: Tensor, bias: Tensor) -> None:
        """Goes on with it."""
        self.later[-1] += [weight, bias]

    def keep(self) -> None:
        """StackedEncoders the weights, where the heads' own are gone once they have run."""
        self.first = [
            (outputs, None if weight is None else weight.clone()) for outputs, weight in self.first
        ]

    def own_features(self, features: Tensor, parameters: list[nn.Parameter]) -> Tensor:
        """Begins a group of one head of another make, and returns what it is to read."""
        copy = features.detach().unsqueeze(-2).requires_grad_()
        self.first.append((copy, None))
        self.later.append([p for p in parameters if p.requires_grad])
        return copy.squeeze(-2)

    @torch.no_grad()
    def backward(self, total: Tensor) -> "HeadGradients":
        """Takes the gradients of the sum of all losses; the pass can be taken once."""
        wanted = [out for out, _ in self.first] + [
            weight for group in self.later for weight in group
        ]
        gradients = list(torch.autograd.grad(total, wanted, retain_graph=True))
        deltas = gradients[: len(self.first)]
        return HeadGradients(
            self, [d.flatten(0, -3).to(total.device) for d in deltas], gradients[len(self.first) :]
        )


class HeadGradients:
    """The gradients that a tape has taken.

    All first layers' outputs stand side by side, O of them, their weights below each other; a head
    of another make stands there with its features as outputs and the identity for weights.

    Attributes:
        delta_NO: Gradients at the first layers' outputs, N samples (and places in them).
        weights: Per group the first layers' weights (K, H, D).
        E_OT: Which output belongs to which task, as 0 and 1.
        later: Gradients of the weights behind the first layers, in the order of the tape.
    """

    def __init__(self, tape: HeadActivations, deltas: list[Tensor], later: list[Tensor]) -> None:
        self.tape, self.later = tape, later
        self.rows_TND: Tensor | None = None
        self.shapes = tuple((d.shape[1], d.shape[2]) for d in deltas)
        self.delta_NO = (
            torch.cat([d.flatten(1) for d in deltas], 1)
            if len(deltas) > 1
            else deltas[0].flatten(1)
        )
        self.weights = [
            torch.eye(shape[1], device=d.device, dtype=d.dtype).unsqueeze(0)
            if weight is None
            else weight.to(d.device)
            for (_, weight), shape, d in zip(tape.first, self.shapes, deltas, strict=True)
        ]
        self.E_OT = blocks(self.shapes, self.delta_NO.device, self.delta_NO.dtype)

    def stacked(self) -> Tensor:
        """The first layers' weights (O, D), where all tasks read the same features."""
        return torch.cat([weight.flatten(0, 1) for weight in self.weights])

    def rows(self) -> list[Tensor]:
        """Returns per task, in the order of T, the gradient with respect to its features (N, D)."""
        rows: list[Tensor] = []
        for delta_KNH, weight_KHD in self._groups():
            rows += torch.bmm(delta_KNH, weight_KHD).unbind(0)
        return rows

    def together(self) -> Tensor:
        """Returns the same in one piece (T, N, D), where all tasks read features of one size."""
        if self.rows_TND is None:
            samples, features = self.delta_NO.shape[0], self.weights[0].shape[2]
            self.rows_TND = self.delta_NO.new_empty(self.E_OT.shape[1], samples, features)
            places = self.rows_TND.split([k for k, _ in self.shapes])
            for (delta_KNH, weight_KHD), place in zip(self._groups(), places, strict=True):
                torch.bmm(delta_KNH, weight_KHD, out=place)
        return self.rows_TND

    def _groups(self) -> Iterator[tuple[Tensor, Tensor]]:
        parts = self.delta_NO.split([k * h for k, h in self.shapes], 1)
        for delta, weight, shape in zip(parts, self.weights, self.shapes, strict=True):
            yield delta.unflatten(1, shape).transpose(0, 1), weight

    def gram(self, W_OD: Tensor) -> Tensor:
        """Returns the inner products (T, T) of these gradients in float64, where all tasks read the same features.

        Either from the outputs alone, G_kl = sum over the outputs i of k and j of l of
        (delta'delta)_ij (W W')_ij, which forms no task's gradient, or from the gradients, whichever
        takes fewer products.
        """
        (samples, outputs), T, features = self.delta_NO.shape, self.E_OT.shape[1], W_OD.shape[1]
        if outputs**2 * (samples + features) <= T * (T + 1) * samples * features:
            delta, W, E = self.delta_NO.double(), W_OD.double(), self.E_OT.double()
            return E.T @ ((delta.T @ delta) * (W @ W.T)) @ E
        return inner_products(self.together().flatten(1))

    def combined(self, weights_T: Tensor, W_OD: Tensor) -> Tensor:
        """Returns sum_t w_t (gradient of t with respect to the features), (N, D), where all tasks read the same features."""
        if self.rows_TND is not None:
            return (weights_T @ self.rows_TND.flatten(1)).view_as(self.rows_TND[0])
        return (self.delta_NO * (self.E_OT @ weights_T)) @ W_OD

    def heads(self, weights_T: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Returns what the heads' own parameters hang on, and the gradients there of sum_t w_t L_t."""
        places: list[Tensor] = []
        gradients: list[Tensor] = []
        later = iter(self.later)
        scaled = (self.delta_NO * (self.E_OT @ weights_T)).split([k * h for k, h in self.shapes], 1)
        of_groups = weights_T.split([k for k, _ in self.shapes])
        for (output, weight), delta, w, group in zip(
            self.tape.first, scaled, of_groups, self.tape.later, strict=True
        ):
            if weight is not None:
                places.append(output)
                gradients.append(delta.reshape(output.shape))
            for parameter in group:
                places.append(parameter)
                factor = w if weight is None else w.view(-1, *[1] * (parameter.ndim - 1))
                gradients.append(next(later) * factor.to(parameter.device))
        return places, gradients


def inner_products(rows: Tensor, chunk: int = 2**17) -> Tensor:
    """The inner products (T, T) of T long rows, in float64: in fp32 what nearly parallel gradients differ in would be rounding."""
    G = rows.new_zeros(len(rows), len(rows), dtype=torch.float64)
    for part in rows.split(chunk, 1):
        part = part.double()
        G += part @ part.T
    return G
