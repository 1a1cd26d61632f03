"""GradDrop: gradient sign dropout."""

from collections.abc import Mapping

import torch
from torch import Tensor

from src.balancing.balancer import Level, TaskLosses
from src.balancing.gradients import Coordinates, GradientBalancer
from src.errors import UserError
from src.rng import draw_uniform


class GradDrop(GradientBalancer):
    """GradDrop: draws one sign per feature, and drops the gradients that have the other sign.

    The default is the paper's form (Chen et al., "Just pick a sign", NeurIPS 2020, Algorithm 1).
    With features z, the signal of task t is G_t = sum over the batch of sign(z) g_t, one number per
    feature. With P = (1 + sum_t G_t / sum_t |G_t|) / 2 and U uniform in [0, 1), tasks with G_t > 0
    are kept where U < P, and tasks with G_t < 0 are kept elsewhere, for all samples of the batch
    alike. Then d = sum_t (leak_t + (1 - leak_t) kept_t) g_t. The authors' code also rescales d,
    which the paper does not mention, and which is left out here.

    With ``per_sample``, each sample has coordinates and a draw of its own, and the signal is g_t
    itself, without the sign of z. With ``level: parameters`` there are neither features nor
    samples, and the signal is the gradient of each parameter.

    U is a hash of (seed, step, coordinate in the global batch): the same on any topology.

    Args:
        tasks: {task: likelihood}.
        level: Where gradients are taken: features or parameters.
        leak: Share of a dropped gradient that passes nevertheless, in [0, 1]: one for all tasks, or
            {task: share} with 0 for the others.
        per_sample: Whether each sample has a draw of its own.
    """

    def __init__(
        self,
        tasks: Mapping[str, str],
        level: Level = "features",
        leak: float | dict[str, float] = 0.0,
        per_sample: bool = False,
    ) -> None:
        super().__init__(tasks, level)
        leaks = leak if isinstance(leak, dict) else dict.fromkeys(self.tasks, leak)
        for name, share in leaks.items():
            if name not in self.tasks:
                known = ", ".join(self.tasks)
                raise UserError(
                    f"GradDrop: leak names '{name}', which is no task; there are {known}"
                )
            if not 0 <= share <= 1:
                raise UserError(f"GradDrop: leak {share} is outside [0, 1]")
        if per_sample and level == "parameters":
            raise UserError(
                "GradDrop: gradients of parameters are not per sample: "
                "set --model.balancer.level features"
            )
        self.per_sample = per_sample
        self.sums_features = level == "features" and not per_sample
        self.leaks = tuple(leaks.get(name, 0.0) for name in self.tasks)

    def combine(self, rows_TN: Tensor, losses: TaskLosses, where: Coordinates) -> Tensor:
        T = len(rows_TN)
        first = where.first
        rows_TBF = signal_TF = rows_TN
        if self.sums_features:
            assert where.features_BF is not None
            rows_TBF = rows_TN.view(T, *where.features_BF.shape)
            signs_BF = where.features_BF.sign().to(rows_TN)
            signal_TF = where.sum_over_ranks((rows_TBF * signs_BF).sum(1, dtype=torch.float64))

            # where samples cancel out, the sum is 0 or rounding: neither has a sign that counts
            magnitude_TF = signal_TF.abs()
            signal_TF = signal_TF.where(magnitude_TF > 1e-6 * magnitude_TF.amax(1, keepdim=True), 0)
            first = 0

        # the probability of the positive sign is its share of the total pull
        total_F, size_F = signal_TF.sum(0), signal_TF.abs().sum(0)
        P = (1 + total_F / size_F.clamp(min=torch.finfo(size_F.dtype).tiny)) / 2
        positive = draw_uniform(losses.key, first, len(P), P.device) < P
        kept_TF = torch.where(positive, signal_TF > 0, signal_TF < 0)

        # features of all samples share a draw, which broadcasts over the batch
        leak_T1 = rows_TN.new_tensor(self.leaks)[:, None]
        share_TF = leak_T1 + (1 - leak_T1) * kept_TF
        if self.sums_features:
            share_TF = share_TF[:, None]
        return (rows_TBF * share_TF).sum(0).flatten()
