"""What a network costs: parameters, and floating-point operations of a forward pass."""

from collections.abc import Callable

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from src.batch import InputShape


def cost(network: nn.Module, shape: InputShape) -> tuple[int, float]:
    """Parameters, and FLOPs of a forward pass: those of products, convolutions and attention, for each sample more."""
    training = network.training
    network.eval()
    flops = []
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        for rows in (2, 4):
            with FlopCounterMode(display=False) as counter:
                network(shape.example(rows))
            flops.append(counter.get_total_flops())
    network.train(training)
    return sum(p.numel() for p in network.parameters()), (flops[1] - flops[0]) / 2


def costs(sharing: nn.Module, encoder: Callable[[], nn.Module], shape: InputShape) -> str:
    """Parameters and FLOPs of a sharing architecture, against those of hard sharing, which are one encoder's."""
    with torch.random.fork_rng(devices=[]):
        hard = cost(encoder(), shape)
    ours = cost(sharing, shape)
    parts = [
        f"{short(value)} {unit}"
        + ("" if value == base else f" ({value / base:.1f} times hard sharing)" if base else "")
        for value, base, unit in zip(ours, hard, ("parameters", "FLOPs a sample"), strict=True)
    ]
    return ", ".join(parts)


def short(value: float) -> str:
    """A number in three digits: 12.3 k, 4.56 M."""
    for factor, letter in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= factor:
            return f"{value / factor:.3g}{letter}"
    return f"{value:.3g}"
