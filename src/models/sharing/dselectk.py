"""DSelect-k: each task chooses k experts."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from src.errors import UserError
from src.models.sharing.gates import GateInput, Gates
from src.models.sharing.mmoe import Mixture
from src.models.sharing.sharing import EncoderFactory, Owned


class DSelectK(Mixture):
    """DSelect-k: z_t = sum_e g_te f_e(x) with gates g_t that choose at most k experts.

    An expert is chosen by the bits of its number: g_t = sum_i softmax(w_t)_i r(z_ti), i = 1 ... k,
    with r(z)_e = prod_j S(z_j) where bit j of e is 1 and 1 - S(z_j) where it is 0, and the smooth
    step S(z) = 1/2 + 3z / (2 gamma) - 2 z^3 / gamma^3, which is 0 below -gamma / 2 and 1 above
    gamma / 2 (Hazimeh et al., "DSelect-k: Differentiable selection in the mixture of experts with
    applications to multi-task learning", NeurIPS 2021). Once all bits are 0 or 1 a task has k
    experts, and the others no longer influence it.

    w and z are the same for all samples, as in the paper's multi-task experiments, or linear in the
    sample.

    Args:
        encoder: Makes an encoder.
        tasks: The tasks' names.
        experts: E, a power of 2.
        k: Most experts of a task.
        gamma: Width of the smooth step.
        entropy: Strength of the penalty sum_ti H(r(z_ti)), which drives bits to 0 or 1.
        per_example: Whether each sample has gates of its own.
    """

    def __init__(
        self,
        encoder: EncoderFactory,
        tasks: Sequence[str],
        experts: int = 8,
        k: int = 2,
        gamma: float = 1.0,
        entropy: float = 0.0,
        per_example: bool = False,
    ) -> None:
        if experts < 2 or experts & (experts - 1):
            raise UserError(f"DSelectK: experts {experts} must be a power of 2: 2, 4, 8 ...")
        if not 1 <= k <= experts:
            raise UserError(f"DSelectK: k {k} is outside 1 ... {experts}, the number of experts")
        if gamma <= 0 or entropy < 0:
            raise UserError(
                f"DSelectK: gamma {gamma} must be above 0 and entropy {entropy} at least 0"
            )
        if entropy and per_example:
            raise UserError(
                f"DSelectK: entropy {entropy} with per_example would be a mean over rows, which "
                "depends on the number of devices: set entropy 0 or per_example false"
            )
        super().__init__(encoder, tasks, experts)
        self.k = k
        self.gamma = gamma
        self.entropy = entropy
        self.read = GateInput(self.experts.shape) if per_example else None
        features = self.read.features if self.read is not None else 0
        self.bits = Gates(len(tasks), k * (experts.bit_length() - 1), features, scale=gamma / 10)
        self.weights = Gates(len(tasks), k, features)
        # near the middle of the smooth step, where its slope is largest; in the very middle all
        # selectors would be alike
        nn.init.uniform_(self.bits.bias, -gamma / 100, gamma / 100)
        nn.init.uniform_(self.weights.bias, -0.05, 0.05)

    def selectors(self, bits: Tensor) -> Tensor:
        """Computes r(z), (..., k, E), from the bits z (..., k log2(E))."""
        z = (bits / self.gamma).clamp(-0.5, 0.5).unflatten(-1, (self.k, -1))
        steps = 0.5 + 1.5 * z - 2 * z**3
        r = torch.ones_like(steps[..., :1])
        for step in steps.unbind(-1):
            r = (r.unsqueeze(-1) * torch.stack([1 - step, step], -1).unsqueeze(-2)).flatten(-2)
        return r

    def gates(self, inputs: Tensor | dict[str, Tensor]) -> Tensor:
        """Returns (T, E), or (B, T, E) where each sample has its own."""
        x = self.read(inputs) if self.read is not None else None
        return (self.weights(x).softmax(-1).unsqueeze(-1) * self.selectors(self.bits(x))).sum(-2)

    def penalty(self) -> Tensor | None:
        """Returns the sum of the entropies times their strength."""
        if not self.entropy:
            return None
        r = self.selectors(self.bits(None))
        # the slope of the logarithm at 0 must be finite
        return -self.entropy * (r * (r + 1e-6).log()).sum()

    def owners(self) -> Iterator[Owned]:
        """Yields experts and gate inputs for all tasks, a gate for its task."""
        yield from super().owners()
        yield Owned(self.tasks, list(self.read.parameters()) if self.read is not None else [])
        yield Owned(self.tasks, [*self.bits.parameters(), *self.weights.parameters()], slices=True)
