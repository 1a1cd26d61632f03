"""The inner loop: a few steps of gradient descent on an episode's support rows."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor
from torch.func import grad, vmap

Parameters = dict[str, Tensor]
Rates = Mapping[str, float | Tensor]


def descend(
    loss: Callable[[Parameters], Tensor],
    start: Parameters,
    rates: Rates,
    steps: int,
    first_order: bool,
) -> Iterator[Parameters]:
    """Yields theta_0, theta_1 ... theta_k, with theta_{i+1} = theta_i - rate grad loss(theta_i).

    Args:
        loss: The support loss of some parameters, a scalar.
        start: theta_0.
        rates: The rate of each parameter.
        steps: k.
        first_order: Whether the gradients are constants for whoever differentiates the result.
    """
    parameters = start
    yield parameters
    for _ in range(steps):
        # torch.func.grad takes a gradient wherever it is called; without a graph it is a constant
        with torch.set_grad_enabled(torch.is_grad_enabled() and not first_order):
            gradients = grad(loss)(parameters)
        moved = {}
        for name, parameter in parameters.items():
            moved[name] = parameter - rates[name] * gradients[name]
        parameters = moved
        yield parameters


def run_each(
    function: Callable[..., Sequence[Tensor]],
    shared: Sequence[object],
    *each: object,
    batched: bool,
) -> list[Tensor]:
    """Calls a function for each of E episodes, and stacks what it returns.

    Args:
        function: Takes what all episodes share, and then what each has.
        shared: Arguments for all episodes: tensors, or dicts of them.
        each: Arguments whose first dimension is E.
        batched: Whether all episodes run as one program (``torch.func.vmap``), or one by one, for
            encoders whose operations cannot be batched. The results agree to rounding.
    """
    if batched:
        dims = (*(None for _ in shared), *(0 for _ in each))
        return list(vmap(function, in_dims=dims)(*shared, *each))
    flat = [each_leaf for argument in each for each_leaf in _leaves(argument)]
    found = []
    for place in range(len(flat[0])):
        own = [_take(argument, place) for argument in each]
        found.append(function(*shared, *own))
    return [torch.stack(outputs) for outputs in zip(*found, strict=True)]


def _leaves(argument: object) -> list[Tensor]:
    if isinstance(argument, dict):
        return list(argument.values())
    assert isinstance(argument, Tensor)
    return [argument]


def _take(argument: object, place: int) -> object:
    if isinstance(argument, dict):
        return {name: tensor[place] for name, tensor in argument.items()}
    assert isinstance(argument, Tensor)
    return argument[place]
