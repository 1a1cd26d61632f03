"""The orders of units in which an encoder computes the same features.

Units of a layer may change places if the weights that read them move along. A network merges with
another only once their units are in the same order, see ``src/analysis/merging/alignment.py``.
"""

from dataclasses import dataclass

from torch import nn

from src.models.encoders.convnet import ConvNet
from src.models.encoders.encoder import Encoder
from src.models.encoders.mlp import MLP, Block


@dataclass(frozen=True)
class UnitOrder:
    """The groups of units that may change places.

    Attributes:
        axes: {parameter's name: the group of units along each dimension, None where nothing
            moves}, from the inputs upwards; parameters that are not there stay as they are.
        blocks: {group: number of equal blocks of neighbours that stay together}; 1 where a group
            is not there.
        features: The group of the encoder's features.
    """

    axes: dict[str, tuple[str | None, ...]]
    blocks: dict[str, int]
    features: str


def find_unit_order(encoder: Encoder) -> UnitOrder | None:
    """Returns the groups of units of an encoder; None where this house does not know them."""
    if type(encoder) is MLP:
        return describe_mlp(encoder)
    if type(encoder) is ConvNet:
        return describe_convnet(encoder)
    return None


def describe_mlp(encoder: MLP) -> UnitOrder:
    """Returns the groups of an MLP: its residual stream, and the hidden units of each block.

    What a block adds must stand where the stream has it, so that all blocks share one order.
    LayerNorm sums over all units, whatever their order.
    """
    axes: dict[str, tuple[str | None, ...]] = {}
    stream = "stream"
    within: set[nn.Module] = set()
    for path, module in encoder.named_modules():
        if isinstance(module, Block):
            norm, inner, _, _, outer = module.body
            within |= {norm, inner, outer}
            axes |= name_vectors(f"{path}.body.0", stream)
            axes |= name_linear(f"{path}.body.1", path, stream)
            axes |= name_linear(f"{path}.body.4", stream, path)
        elif isinstance(module, nn.Linear) and module not in within:
            axes |= name_linear(path, stream, None)
        elif isinstance(module, nn.LayerNorm) and module not in within:
            axes |= name_vectors(path, stream)
    return UnitOrder(axes, {}, stream)


def describe_convnet(encoder: ConvNet) -> UnitOrder:
    """Returns the groups of a ConvNet: the channels of each convolution.

    GroupNorm divides the channels into groups of neighbours, which must keep their members.
    """
    axes: dict[str, tuple[str | None, ...]] = {}
    blocks: dict[str, int] = {}
    below: str | None = None
    for path, module in encoder.named_modules():
        if isinstance(module, nn.Conv2d):
            axes[f"{path}.weight"] = (path, below, None, None)
            below = path
        elif isinstance(module, nn.GroupNorm):
            assert below is not None
            axes |= name_vectors(path, below)
            # groups of one channel each bind nothing
            blocks[below] = module.num_groups if module.num_groups < module.num_channels else 1
    assert below is not None
    return UnitOrder(axes, blocks, below)


def name_linear(path: str, outputs: str, inputs: str | None) -> dict[str, tuple[str | None, ...]]:
    """Returns the axes of a linear layer."""
    return {f"{path}.weight": (outputs, inputs), f"{path}.bias": (outputs,)}


def name_vectors(path: str, group: str) -> dict[str, tuple[str | None, ...]]:
    """Returns the axes of a norm's factors and shifts."""
    return {f"{path}.weight": (group,), f"{path}.bias": (group,)}
