"""The places of a batch that only fill up short sequences and small graphs."""

from collections.abc import Mapping

from torch import Tensor


def find_real(inputs: Tensor | Mapping[str, Tensor]) -> Tensor | None:
    """Returns which places of each sample are real, bool (B, S); None where none is padding.

    Args:
        inputs: The inputs of a batch: places are tokens of sequences, or nodes of graphs.
    """
    if isinstance(inputs, Tensor):
        return None
    if "tokens" in inputs:
        return inputs["tokens"] > 0
    return inputs.get("node_mask")


def hide_padding(
    outputs: Mapping[str, Tensor], inputs: Tensor | Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Returns outputs {task: (B, ..., O)} with NaN at padding, for whoever reads them apart.

    Outputs that are one vector a sample stay as they are.
    """
    real = find_real(inputs)
    shown = {}
    for name, values in outputs.items():
        per_place = real is not None and values.ndim == 3 and values.shape[:2] == real.shape
        if real is not None and per_place:
            values = values.masked_fill(~real[..., None], float("nan"))
        shown[name] = values
    return shown


def cut_padding(outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns outputs (B, S, O) of sequences cut to the length of the labels of their batch."""
    cut = {}
    for name, values in outputs.items():
        cut[name] = values[:, : targets[name].shape[1]] if values.ndim == 3 else values
    return cut
