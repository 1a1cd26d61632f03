"""The mean of several networks' predictions of one task, and how far apart they are.

M networks are averaged in the space of predictions: probabilities are averaged as probabilities,
numbers as numbers. The mean is given as outputs again, logits for probabilities, so that loss,
metrics, thresholds and decoding are those of any outputs.
"""

from collections.abc import Sequence
from math import log
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


class Ensembling:
    """Averages the outputs of several networks for a task; each kind of task says how.

    A kind that says nothing averages the outputs themselves.
    """

    def mix(self, outputs_M: Tensor) -> Tensor:
        """Returns the outputs (..., O) that predict the mean of the predictions.

        Args:
            outputs_M: (M, ..., O), fp64.
        """
        return outputs_M.mean(0)

    def measure_spread(self, outputs_M: Tensor, mixed: Tensor) -> dict[str, Any]:
        """Returns {suffix of the column's name: B standard deviations over the M networks}.

        They are of what is predicted: a probability, or a number in the label's own unit.

        Args:
            outputs_M: (M, B, O).
            mixed: (B, O), their average.
        """
        return name_spread(outputs_M.double(), ())

    def average(self, outputs_M: Tensor) -> Tensor:
        """Returns the outputs (..., O) of an ensemble of M networks.

        Networks that agree on a row keep their outputs there, to the bit.

        Args:
            outputs_M: (M, ..., O).
        """
        first = outputs_M[0]
        mixed = self.mix(outputs_M.double()).to(first.dtype)
        agree = (outputs_M == first).all(0).all(-1, keepdim=True)
        return torch.where(agree, first, mixed)


def mix_logits(logits_M: Tensor) -> Tensor:
    """Returns the logits of the mean of M probabilities, exact where these are near 0 or 1.

    It is log(mean(p)) - log(mean(1 - p)), where the number of networks drops out.
    """
    return F.logsigmoid(logits_M).logsumexp(0) - F.logsigmoid(-logits_M).logsumexp(0)


def mix_log_probabilities(logits_M: Tensor) -> Tensor:
    """Returns the logarithms of the mean of M distributions over classes (M, ..., C)."""
    return logits_M.log_softmax(-1).logsumexp(0) - log(len(logits_M))


def name_spread(values_M: Tensor, names: Sequence[str]) -> dict[str, list[float]]:
    """Returns the standard deviation of each output over M networks, as columns of a table.

    It is that of these M values themselves, with M in the denominator.

    Args:
        values_M: (M, B, O) predictions.
        names: One name per output; none for a single one.
    """
    deviations = values_M.std(0, correction=0)
    outputs = deviations.shape[-1]
    if outputs == 1 and not names:
        return {"spread": deviations[..., 0].tolist()}
    shown = names or [str(k) for k in range(outputs)]
    return {f"spread_{name}": deviations[..., k].tolist() for k, name in enumerate(shown)}
