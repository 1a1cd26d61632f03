"""The linear probe: a linear head fitted to frozen features, as strongly regularised as they ask.

With the features z of the examples, centred and divided by one number s, the root of their mean
variance, the probe minimises over the weights W and the bias b of a linear head

    J(W, b) = sum_i w_i loss(W z_i + b, y_i) / sum_i w_i + lambda / 2 ||W||^2

in float64. The bias is free. Squared errors have a closed form, ridge regression with
alpha = n lambda / 2 for n examples; every other loss of a task is minimised by L-BFGS, which for
cross-entropy is logistic regression with C = 1 / (n lambda). lambda is the one of ``PENALTIES``
with the least loss in a cross-validation on the examples themselves.
"""

from collections.abc import Sequence
from copy import deepcopy
from math import inf, isfinite
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from src.models.few_shot.examples import Examples, mean_loss, sum_losses
from src.rng import make_generator
from src.tasks import Regression, Task
from src.tasks.head import Head

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)
USUAL = 0.1  # where there are too few examples to choose
FOLDS = 5
MOST_STEPS = 200  # of L-BFGS
LEAST_GAIN = 1e-15  # of a step, relative to J
# where the penalty alone is to be chosen
STEPS_OF_FOLD = 50
GAIN_OF_FOLD = 1e-6
FAR = 1e100  # in place of a loss that is infinite


class Scale(NamedTuple):
    """How features are scaled before a probe is fitted: (z - mean) / spread."""

    mean: Tensor
    spread: Tensor

    def apply(self, examples: Examples) -> Examples:
        """Returns examples with scaled features."""
        scaled = (examples.features - self.mean) / self.spread
        return Examples(scaled, examples.targets, examples.weights)


def can_probe(head: Head) -> bool:
    """Returns whether a head is linear."""
    return len(head.linears) == 1


def fit_probe(task: Task, head: Head, examples: Examples, groups: Tensor, seed: int) -> float:
    """Fits a linear head in place; returns lambda.

    Args:
        task: The task.
        head: A linear head of the task.
        examples: The examples.
        groups: (B, G) The classes of each example, so that folds have all of them.
        seed: Seed of the folds.
    """
    rows = examples.double()
    penalty = choose_penalty(task, head, rows, groups, seed)
    fitted = minimise(task, head, rows, penalty)
    with torch.no_grad():
        for own, found in zip(head.parameters(), fitted.parameters(), strict=True):
            own.copy_(found)
    return penalty


def choose_penalty(
    task: Task,
    head: Head,
    examples: Examples,
    groups: Tensor,
    seed: int,
    penalties: Sequence[float] = PENALTIES,
) -> float:
    """Returns the penalty with the least loss over examples that were left out in turn.

    Of equal ones the largest counts. Where no fold can be made, it is ``USUAL``.
    """
    folds = deal_folds(groups, seed)
    if folds is None:
        return USUAL
    totals = dict.fromkeys(penalties, 0.0)
    for fold in range(int(folds.max()) + 1):
        inside = examples[(folds != fold).nonzero().flatten()]
        outside = examples[(folds == fold).nonzero().flatten()]
        fitted = make_zeros(head)
        scale = measure_scale(fitted, inside)
        inside, outside = scale.apply(inside), scale.apply(outside)
        # from the strongest on, each begins where the one before has ended
        for penalty in sorted(penalties, reverse=True):
            solve(task, fitted, inside, penalty, STEPS_OF_FOLD, GAIN_OF_FOLD)
            with torch.no_grad():
                loss, _ = sum_losses(task, fitted(outside.features), outside)
            totals[penalty] += loss.item() if isfinite(loss.item()) else inf
    return min(sorted(penalties, reverse=True), key=lambda penalty: totals[penalty])


def deal_folds(groups: Tensor, seed: int, folds: int = FOLDS) -> Tensor | None:
    """Deals examples to folds (B,), each class in turn; None where there are too few.

    The only example of a class is -1: it is never left out, since the others could not learn its
    class.

    Args:
        groups: (B, G) The classes of each example; it may have none or several.
        seed: Seed of the deal.
        folds: The most folds.
    """
    B, G = groups.shape
    order = torch.randperm(B, generator=make_generator(seed, B))
    alone = (groups & (groups.sum(0) == 1)).any(1)
    free = order[~alone[order]]
    if len(free) < 2:
        return None
    # by the first class of each example, so that neighbours go to different folds
    first = torch.where(groups.any(1), groups.long().argmax(1) if G else 0, G)
    free = free[first[free].argsort(stable=True)]
    dealt = torch.full((B,), -1)
    dealt[free] = torch.arange(len(free)) % min(folds, len(free))
    return dealt


# -- one fit ---------------------------------------------------------------------------------------
def minimise(task: Task, head: Head, examples: Examples, penalty: float) -> Head:
    """Returns a head of float64 that minimises J, for features as they are, not scaled.

    Args:
        task: The task.
        head: A linear head, whose parameters do not matter.
        examples: The examples in float64.
        penalty: lambda.
    """
    fitted = make_zeros(head)
    scale = measure_scale(fitted, examples)
    solve(task, fitted, scale.apply(examples), penalty)

    # W z' + b of scaled features is W / s z + b - W m / s of the features themselves
    linear = fitted.linears[0]
    with torch.no_grad():
        linear.weight.div_(scale.spread)
        linear.bias.sub_(linear.weight @ scale.mean)
    return fitted.requires_grad_(False)


def make_zeros(head: Head) -> Head:
    """Returns a head of the same shape whose parameters are zeros in float64."""
    zeros = deepcopy(head).double().requires_grad_(True)
    with torch.no_grad():
        for parameter in zeros.parameters():
            parameter.zero_()
    return zeros


def solve(
    task: Task,
    head: Head,
    scaled: Examples,
    penalty: float,
    steps: int = MOST_STEPS,
    gain: float = LEAST_GAIN,
) -> None:
    """Minimises J for scaled features in place, from where the head is.

    Args:
        task: The task.
        head: The head, in float64.
        scaled: The examples.
        penalty: lambda.
        steps: The most steps of L-BFGS.
        gain: The least gain of a step, relative to J.
    """
    if has_closed_form(task, head, scaled):
        solve_ridge(head.linears[0], scaled, penalty)
    else:
        run_lbfgs(task, head, scaled, penalty, steps, gain)


def measure_scale(head: Head, examples: Examples) -> Scale:
    """Returns the mean (D,) of features, and the root of their mean variance as one number.

    A head that pools tells padding by its zeros, which stay zero: its mean is 0.
    """
    features = examples.features
    z = features.flatten(0, -2)
    if features.ndim > 2:
        # zeros are padding
        z = z[z.any(-1)]
    mean = z.mean(0) if len(z) else features.new_zeros(features.shape[-1])
    spread = (z - mean).pow(2).mean().sqrt() if len(z) else mean.new_ones(())
    if not spread > 0:
        spread = torch.ones_like(spread)
    moves = type(head) is Head and features.ndim == 2
    return Scale(mean if moves else torch.zeros_like(mean), spread)


def has_closed_form(task: Task, head: Head, examples: Examples) -> bool:
    """Returns whether the minimum is that of ridge regression."""
    squared = (
        isinstance(task, Regression)
        and type(task).losses is Regression.losses
        and task.loss == "mse"
    )
    return squared and type(head) is Head and examples.features.ndim == 2


def solve_ridge(linear: nn.Linear, examples: Examples, penalty: float) -> None:
    """Solves ridge regression, each output by itself, in place.

    With centred features Z and labels y, weights w of the n known labels and alpha = n lambda / 2,
    n the sum of the weights of all known labels, it is
    W = (Z' diag(w) Z + alpha I)^-1 Z' diag(w) y. Where there are fewer examples than features, the
    same is computed from the inner products of the examples.
    """
    weights = examples.label_weights().reshape(len(examples), -1)
    labels = examples.targets.reshape(len(examples), -1)
    alpha = float(weights.sum()) * penalty / 2
    with torch.no_grad():
        for output, (w, y) in enumerate(zip(weights.unbind(1), labels.unbind(1), strict=True)):
            known = w > 0
            if not known.any():
                linear.weight[output] = 0
                linear.bias[output] = 0
                continue
            Z, y, w = examples.features[known], y[known], w[known]
            mean_z = w @ Z / w.sum()
            mean_y = w @ y / w.sum()
            root = w.sqrt()
            A = root[:, None] * (Z - mean_z)
            b = root * (y - mean_y)
            n, D = A.shape
            if n < D:
                eye = torch.eye(n, dtype=A.dtype, device=A.device)
                found = A.T @ torch.linalg.solve(A @ A.T + alpha * eye, b)
            else:
                eye = torch.eye(D, dtype=A.dtype, device=A.device)
                found = torch.linalg.solve(A.T @ A + alpha * eye, A.T @ b)
            linear.weight[output] = found
            linear.bias[output] = mean_y - found @ mean_z


def run_lbfgs(
    task: Task, head: Head, examples: Examples, penalty: float, steps: int, gain: float
) -> None:
    """Minimises J by L-BFGS in place, see ``solve``."""
    from scipy.optimize import minimize

    parameters = list(head.parameters())
    weights = [layer.weight for layer in head.linears]

    def evaluate(values: np.ndarray) -> tuple[float, np.ndarray]:
        put_values(values, parameters)
        loss = mean_loss(task, head(examples.features), examples)
        loss = loss + penalty / 2 * torch.stack([W.pow(2).sum() for W in weights]).sum()
        gradients = torch.autograd.grad(loss, parameters)
        slope = torch.cat([g.flatten() for g in gradients]).cpu().numpy()
        # a step that has gone too far is shortened
        return float(np.nan_to_num(loss.item(), nan=FAR, posinf=FAR)), np.nan_to_num(slope)

    with torch.enable_grad():
        start = torch.cat([p.detach().flatten() for p in parameters]).cpu().numpy()
        options: dict[str, float] = {"maxiter": steps, "maxfun": 2 * steps, "maxcor": 20}
        options |= {"ftol": gain, "gtol": 1e-10}
        found = minimize(evaluate, start, jac=True, method="L-BFGS-B", options=options)
    put_values(found.x, parameters)


@torch.no_grad()
def put_values(values: np.ndarray, parameters: Sequence[nn.Parameter]) -> None:
    """Puts numbers, one parameter after the other, into parameters."""
    parts = torch.from_numpy(values).split([p.numel() for p in parameters])
    for parameter, part in zip(parameters, parts, strict=True):
        parameter.copy_(part.view_as(parameter))
