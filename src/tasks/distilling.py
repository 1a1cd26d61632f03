"""How outputs of an earlier network stand for labels that are missing."""

import torch.nn.functional as F
from torch import Tensor


class Distilling:
    """Compares the outputs of a task with those of a teacher; kinds with probabilities say how.

    A kind that says nothing takes the mean squared distance of the outputs: numbers are learnt as
    the teacher predicts them, logits are matched (Ba and Caruana, "Do deep nets really need to be
    deep?", NeurIPS 2014). Probabilities are compared by their divergence (Hinton, Vinyals and Dean,
    "Distilling the knowledge in a neural network", arXiv 1503.02531).
    """

    def distil(
        self, outputs: Tensor, taught: Tensor, targets: Tensor, temperature: float
    ) -> Tensor:
        """Returns unreduced losses, of the shape of ``targets``.

        Args:
            outputs: (B, ..., O).
            taught: (B, ..., O) The teacher's outputs, without NaN.
            targets: (B, ...) or (B, ..., L) The labels; their shape alone is read.
            temperature: Divides logits before they become probabilities; the losses are multiplied
                by its square, so that gradients keep their scale.
        """
        distances = (outputs - taught).square().mean(-1)
        # a label of several numbers that has one loss carries it in each of them
        while distances.ndim < targets.ndim:
            distances = distances[..., None]
        return distances.expand(targets.shape)


def compare_classes(outputs: Tensor, taught: Tensor, temperature: float) -> Tensor:
    """Returns T^2 KL(teacher || student) (...) of distributions over classes.

    Args:
        outputs: (..., C) logits.
        taught: (..., C) The teacher's logits.
        temperature: T.
    """
    student = (outputs / temperature).log_softmax(-1)
    teacher = (taught / temperature).log_softmax(-1)
    return F.kl_div(student, teacher, reduction="none", log_target=True).sum(-1) * temperature**2


def compare_probabilities(outputs: Tensor, taught: Tensor, temperature: float) -> Tensor:
    """Returns T^2 KL(teacher || student) (...) of yes or no, each with a logit of its own.

    Args:
        outputs: (...) logits.
        taught: (...) The teacher's logits.
        temperature: T.
    """
    student = outputs / temperature
    teacher = taught / temperature
    share = teacher.sigmoid()
    yes = share * (F.logsigmoid(teacher) - F.logsigmoid(student))
    no = (1 - share) * (F.logsigmoid(-teacher) - F.logsigmoid(-student))
    return (yes + no) * temperature**2
