"""LSTMs as ONNX has them, so that a traced network reads sentences of any length.

A trace would unroll an LSTM for the length of its example.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import torch
from torch import Tensor, nn

VERSION = 14  # of the operation, in the opsets 14 to 21


class OnnxLSTM(nn.Module):
    """One layer in one direction, with the parameters of an LSTM of torch; it can only be traced.

    Args:
        lstm: The layer, whose batches come first.
    """

    def __init__(self, lstm: nn.LSTM) -> None:
        super().__init__()
        self.size = lstm.hidden_size
        for name, parameter in lstm.named_parameters():
            self.register_parameter(name, parameter)

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        """Returns what the layer gives for each token, (B, S, H); there is no last state."""
        weight = self._order("weight_ih_l0")
        recurrent = self._order("weight_hh_l0")
        bias = torch.cat([self._order("bias_ih_l0"), self._order("bias_hh_l0")])
        y = torch.onnx.ops.symbolic(
            "LSTM",
            (x.transpose(0, 1), weight[None], recurrent[None], bias[None]),
            {"hidden_size": self.size},
            dtype=x.dtype,
            shape=(x.shape[1], 1, x.shape[0], self.size),
            version=VERSION,
        )
        return y.squeeze(1).transpose(0, 1), None

    def _order(self, name: str) -> Tensor:
        """Returns a parameter with its gates in ONNX's order: input, output, forget, cell."""
        i, f, g, o = cast(Tensor, getattr(self, name)).chunk(4)
        return torch.cat([i, o, f, g])


@contextmanager
def use_onnx_lstms(model: nn.Module) -> Iterator[None]:
    """Puts ONNX's form in place of a model's LSTMs, while it is traced."""
    swapped = []
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.LSTM:
                setattr(parent, name, OnnxLSTM(child))
                swapped.append((parent, name, child))
    try:
        yield
    finally:
        for parent, name, child in swapped:
            setattr(parent, name, child)
