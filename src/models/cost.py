"""The cost of a network: parameters, and floating-point operations of a forward pass."""

from collections.abc import Callable

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from src.batch import InputShape


def count_cost(network: nn.Module, shape: InputShape) -> tuple[int, float]:
    """Counts parameters, and the FLOPs that one more sample adds to a forward pass.

    FLOPs are those of matrix products, convolutions and attention.
    """
    training = network.training
    network.eval()
    flops = []
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        # two sizes, since some operations do not depend on the number of samples
        for rows in (2, 4):
            with FlopCounterMode(display=False) as counter:
                network(shape.example(rows))
            flops.append(counter.get_total_flops())
    network.train(training)
    return sum(p.numel() for p in network.parameters()), (flops[1] - flops[0]) / 2


def describe_cost(sharing: nn.Module, encoder: Callable[[], nn.Module], shape: InputShape) -> str:
    """Describes the cost of a sharing architecture, beside that of hard sharing: one encoder."""
    with torch.random.fork_rng(devices=[]):
        hard = count_cost(encoder(), shape)
    ours = count_cost(sharing, shape)

    words = []
    for value, base, unit in zip(ours, hard, ("parameters", "FLOPs a sample"), strict=True):
        text = f"{shorten_number(value)} {unit}"
        if base and value != base:
            text += f" ({value / base:.1f} times hard sharing)"
        words.append(text)
    return ", ".join(words)


def shorten_number(value: float) -> str:
    """Writes a number with three digits: 12.3 k, 4.56 M."""
    for factor, letter in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= factor:
            return f"{value / factor:.3g}{letter}"
    return f"{value:.3g}"
