"""Plans of tensor parallelism: how devices compute the layers of an encoder together.

A pair of linear layers is split as in Megatron-LM (Shoeybi et al., arXiv 1909.08053). Each device
holds some columns of the first matrix, and so computes some of its outputs; it holds the rows of
the second matrix that read them, and the devices add up what comes out. A plan is plain data; the
strategy fsdp carries it out.
"""

from collections.abc import Mapping
from typing import Literal

from torch import nn

from src.models.encoders import mlp, transformer
from src.models.encoders.encoder import Encoder

# columns: the outputs of a linear layer; rows: its inputs; units: what reaches a dropout layer that
# stands between two such layers
Split = Literal["columns", "rows", "units"]

# {class of a module: the split of each layer below it, and the attribute that holds the number of
# pieces which may not be broken}. Subclasses inherit an entry.
PLANS: dict[type[nn.Module], tuple[dict[str, Split], str]] = {
    mlp.Block: ({"body.1": "columns", "body.3": "units", "body.4": "rows"}, "width"),
    # a device has whole attention heads
    transformer.Block: (
        {
            "queries_keys_values": "columns",
            "out.0": "rows",
            "mlp.1": "columns",
            "mlp.3": "units",
            "mlp.4": "rows",
        },
        "heads",
    ),
}


def find_plan(encoder: Encoder) -> Mapping[str, tuple[str, int]]:
    """Finds the plan of an encoder: the one that it states itself, else that of its modules.

    Returns:
        {path of a layer: (its split, the number of pieces)}: the number of devices must divide the
        pieces. It is empty where nothing is known about the encoder.
    """
    modules = dict(encoder.named_modules())
    stated = encoder.tensor_parallel_plan()
    if stated:
        # an architecture may have kept some of the stages alone
        return {path: entry for path, entry in stated.items() if path in modules}

    plan: dict[str, tuple[str, int]] = {}
    for path, module in modules.items():
        for kind in type(module).__mro__:
            if kind in PLANS:
                layers, pieces = PLANS[kind]
                for layer, split in layers.items():
                    plan[f"{path}.{layer}"] = (split, getattr(module, pieces))
                break
    return plan
