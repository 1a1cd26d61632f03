"""The gradients of all tasks at the features, from one backward pass through the heads.

Shapes: N samples (and places within them), D features, T tasks, and per group of alike heads K
heads with H outputs of the first layer; O counts the first layers' outputs of all tasks.

The heads read features that are cut off from the encoder. Each loss sees only its own outputs, so
that one backward pass of the sum of all losses, down to the outputs of the heads' first layers,
gives every task's own gradient delta_k there. The gradient at the features is delta_k W_k.

A loss that reads the head of another task as well runs that head once more for itself. The outputs
of such a copy stand behind those of all heads, and belong to the task whose loss reads them.
"""

from collections.abc import Iterator
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class HeadActivations:
    """The activations of one forward pass of all heads that their gradients need.

    Args:
        copies_weights: Whether the first layers' weights are copied, for heads whose whole weights
            are freed after the pass.

    Attributes:
        first: Per group the first layers' outputs (B, ..., K, H) and weights (K, H, D). A head of
            another class has its own copy of the features (B, ..., 1, D) there, and None.
        later: Per group the weights and biases behind the first layer, each (K, ...), or the
            parameters of a head of another class.
        copies: The tasks, as positions in T, that the last groups belong to, a copy of a head each.
    """

    def __init__(self, copies_weights: bool = False) -> None:
        self.copies_weights = copies_weights
        self.first: list[tuple[Tensor, Tensor | None]] = []
        self.later: list[list[Tensor]] = []
        self.copies: list[int] = []

    def add_first_layer(self, outputs: Tensor, weight: Tensor) -> None:
        """Begins a group of alike heads."""
        weight = weight.detach()
        self.first.append((outputs, weight.clone() if self.copies_weights else weight))
        self.later.append([])

    def add_later_layer(self, weight: Tensor, bias: Tensor) -> None:
        """Continues the group with a layer behind the first."""
        self.later[-1] += [p for p in (weight, bias) if p.requires_grad]

    def copy_features(self, features: Tensor, parameters: list[nn.Parameter]) -> Tensor:
        """Begins a group of one head of another class, and returns the features that it reads."""
        copy = features.detach().unsqueeze(-2).requires_grad_()
        self.first.append((copy, None))
        self.later.append([p for p in parameters if p.requires_grad])
        return copy.squeeze(-2)

    @torch.no_grad()
    def backward(self, total: Tensor) -> "HeadGradients":
        """Takes the gradients of the sum of all losses; this can be done once."""
        outputs = [output for output, _ in self.first]
        weights = [weight for group in self.later for weight in group]
        gradients = list(torch.autograd.grad(total, [*outputs, *weights], retain_graph=True))

        # all deltas meet on the device of the losses, wherever the heads are
        deltas = [d.flatten(0, -3).to(total.device) for d in gradients[: len(outputs)]]
        return HeadGradients(self, deltas, gradients[len(outputs) :])


class HeadGradients:
    """The gradients of the tasks' losses at their features and in their own heads.

    The outputs of all first layers stand side by side, O of them, with their weights below each
    other. A head of another class stands there with its features as outputs and the identity as
    weights.

    Attributes:
        delta_NO: The gradients at the first layers' outputs.
        weights: Per group the first layers' weights (K, H, D).
        E_OT: The task of each output, as 0 and 1.
        later: The gradients of the weights behind the first layers, in the order of the layers.
    """

    def __init__(
        self, activations: HeadActivations, deltas: list[Tensor], later: list[Tensor]
    ) -> None:
        self.activations = activations
        self.later = later
        self.rows_TND: Tensor | None = None
        self.shapes = tuple((d.shape[1], d.shape[2]) for d in deltas)
        self.copies = tuple(activations.copies)
        flat = [d.flatten(1) for d in deltas]
        self.delta_NO = torch.cat(flat, 1) if len(flat) > 1 else flat[0]
        self.weights = []
        for (_, weight), (_, size), delta in zip(
            activations.first, self.shapes, deltas, strict=True
        ):
            if weight is None:
                weight = torch.eye(size, device=delta.device, dtype=delta.dtype).unsqueeze(0)
            self.weights.append(weight.to(delta.device))
        where = (self.delta_NO.device, self.delta_NO.dtype)
        self.E_OT = assign_outputs(self.shapes, self.copies, where)

    def stack_weights(self) -> Tensor:
        """Returns the first layers' weights (O, D), where all tasks read the same features."""
        return torch.cat([weight.flatten(0, 1) for weight in self.weights])

    def per_task(self) -> list[Tensor]:
        """Returns the gradient of each task at its features, (N, D), in the order of T."""
        rows: list[Tensor] = []
        for delta_KNH, weight_KHD in self._groups():
            rows += torch.bmm(delta_KNH, weight_KHD).unbind(0)
        T = self.E_OT.shape[1]
        for task, row in zip(self.copies, rows[T:], strict=True):
            rows[task] = rows[task] + row
        return rows[:T]

    def stack(self) -> Tensor:
        """Returns the gradients at the features (T, N, D), where all have features of one size."""
        if self.rows_TND is None:
            samples = self.delta_NO.shape[0]
            features = self.weights[0].shape[2]
            T = self.E_OT.shape[1]
            rows = self.delta_NO.new_empty(T + len(self.copies), samples, features)
            places = rows.split([k for k, _ in self.shapes])
            for (delta_KNH, weight_KHD), place in zip(self._groups(), places, strict=True):
                torch.bmm(delta_KNH, weight_KHD, out=place)
            for task, row in zip(self.copies, rows[T:], strict=True):
                rows[task] += row
            self.rows_TND = rows[:T]
        return self.rows_TND

    def _groups(self) -> Iterator[tuple[Tensor, Tensor]]:
        deltas = self.delta_NO.split([k * h for k, h in self.shapes], 1)
        for delta, weight, shape in zip(deltas, self.weights, self.shapes, strict=True):
            yield delta.unflatten(1, shape).transpose(0, 1), weight

    def gramian(self, W_OD: Tensor) -> Tensor:
        """Returns the inner products (T, T) in float64, where all tasks read the same features.

        Takes them from the outputs alone, G_kl = sum over the outputs i of k and j of l of
        (delta'delta)_ij (W W')_ij, which forms no task's gradient, or from the gradients,
        whichever takes fewer products.
        """
        samples, outputs = self.delta_NO.shape
        T = self.E_OT.shape[1]
        features = W_OD.shape[1]
        if outputs**2 * (samples + features) <= T * (T + 1) * samples * features:
            delta = self.delta_NO.double()
            W = W_OD.double()
            E = self.E_OT.double()
            return E.T @ ((delta.T @ delta) * (W @ W.T)) @ E
        return inner_products(self.stack().flatten(1))

    def combine(self, weights_T: Tensor, W_OD: Tensor) -> Tensor:
        """Returns sum_t w_t (gradient of t at the features), (N, D), of features that all read."""
        if self.rows_TND is not None:
            return (weights_T @ self.rows_TND.flatten(1)).view_as(self.rows_TND[0])
        return (self.delta_NO * (self.E_OT @ weights_T)) @ W_OD

    def of_heads(self, weights_T: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Returns the gradients of sum_t w_t L_t in the heads.

        Returns:
            The tensors that lead to the heads' parameters, and the gradient at each of them.
        """
        places: list[Tensor] = []
        gradients: list[Tensor] = []
        later = iter(self.later)
        scaled = (self.delta_NO * (self.E_OT @ weights_T)).split([k * h for k, h in self.shapes], 1)
        owned = [*range(len(weights_T)), *self.copies]
        weights_of_groups = weights_T[owned].split([k for k, _ in self.shapes])
        groups = zip(
            self.activations.first, self.activations.later, scaled, weights_of_groups, strict=True
        )
        for (output, weight), parameters, delta, w_K in groups:
            # the first layers' own parameters follow from their outputs; frozen ones have none
            if weight is not None and not output.is_leaf:
                places.append(output)
                gradients.append(delta.reshape(output.shape))
            for parameter in parameters:
                places.append(parameter)
                factor = w_K if weight is None else w_K.view(-1, *[1] * (parameter.ndim - 1))
                gradients.append(next(later) * factor.to(parameter.device))
        return places, gradients


@lru_cache(maxsize=64)
def assign_outputs(
    groups: tuple[tuple[int, int], ...],
    copies: tuple[int, ...],
    where: tuple[torch.device, torch.dtype],
) -> Tensor:
    """Returns the task of each output as 0 and 1, (O, T).

    Args:
        groups: (K, H) of each group of K heads with H outputs.
        copies: The tasks that the last groups belong to.
        where: Device and dtype.
    """
    sizes = torch.tensor([h for k, h in groups for _ in range(k)])
    T = len(sizes) - len(copies)
    tasks = torch.tensor([*range(T), *copies]).repeat_interleave(sizes)
    return F.one_hot(tasks, T).to(*where)


def inner_products(rows: Tensor, chunk: int = 2**17) -> Tensor:
    """Returns the inner products (T, T) of T long rows, in float64.

    In fp32 the difference between nearly parallel gradients would be lost to rounding.

    Args:
        rows: (T, P)
        chunk: The number of columns that are converted at a time, which bounds the memory.
    """
    G = rows.new_zeros(len(rows), len(rows), dtype=torch.float64)
    for columns in rows.split(chunk, 1):
        columns = columns.double()
        G += columns @ columns.T
    return G
