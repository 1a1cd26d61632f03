"""Tasks in a chain: each task's tower reads the shared encoder and the task before it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.errors import UserError, suggest_or_list
from src.models.sharing.gates import make_table
from src.models.sharing.sharing import EncoderFactory, Owned, Sharing, keep_padding

if TYPE_CHECKING:
    from pandas import DataFrame


class AITM(Sharing):
    """Adaptive information transfer between successive tasks, such as click, cart and purchase.

    With the shared features f(x), the tower q_t = gelu(U_t f(x) + u_t) of the t-th task of the
    chain, and the information p_t = gelu(V_t z_(t-1) + v_t) that the task before hands on,

        z_1 = q_1
        z_t = sum over u in {p_t, q_t} of a(u) h1_t(u)
        a(u) = softmax over u of <h2_t(u), h3_t(u)> / sqrt(D)

    where h1, h2 and h3 are linear (Xi et al., "Modeling the sequential dependence among audience
    multi-step conversions with multi-task learning in targeted advertising", KDD 2021, arXiv
    2105.08489). The paper has ReLU in place of GELU. It adds a calibrator, which punishes
    predictions that rise along the chain. There is none here: where a label cannot be positive
    without that of the task before, ``depends_on`` with ``entire_space`` makes it so exactly.

    Args:
        encoder: Makes an encoder.
        tasks: The tasks' names.
        order: The chain, each task once; None for the order of the tasks.
        width: Width D of towers and features; None for that of the encoder's features.
    """

    def __init__(
        self,
        encoder: EncoderFactory,
        tasks: Sequence[str],
        order: list[str] | None = None,
        width: int | None = None,
    ) -> None:
        super().__init__(encoder, tasks)
        self.order = check_order(order, tasks)
        self.encoder = encoder()
        D = self.encoder.features if width is None else width
        if D < 1:
            raise UserError(f"AITM: width {width} must be at least 1")
        self.towers = nn.ModuleList(nn.Linear(self.encoder.features, D) for _ in tasks)
        self.transfers = nn.ModuleList(Transfer(D) for _ in tasks[1:])
        self.feature_sizes = dict.fromkeys(tasks, D)
        self.latest: dict[str, Tensor] = {}

    def forward(self, inputs: Tensor | dict[str, Tensor]) -> Mapping[str, Tensor]:
        """Returns each task's own features."""
        shared = self.encoder(inputs)
        chain = [F.gelu(self.towers[0](shared))]
        shares = []
        for tower, transfer in zip(self.towers[1:], self.transfers, strict=True):
            z, share = transfer(chain[-1], F.gelu(tower(shared)))
            chain.append(z)
            shares.append(share)

        z_TBD = torch.stack(chain)
        z_TBD = keep_padding(z_TBD, shared.expand(len(chain), *shared.shape))
        # the dashboards show validation rows alone
        self.latest = {}
        if shares and not self.training:
            self.latest = {"transfer": average_shares(torch.stack(shares, 1), shared)}
        found = dict(zip(self.order, z_TBD.unbind(), strict=True))
        return {task: found[task] for task in self.tasks}

    def owners(self) -> Iterator[Owned]:
        """Yields the encoder for all tasks, a tower and a transfer for its task and later ones."""
        yield Owned(self.tasks, list(self.encoder.parameters()))
        for t, tower in enumerate(self.towers):
            yield Owned(self.order[t:], list(tower.parameters()))
        for t, transfer in enumerate(self.transfers):
            yield Owned(self.order[t + 1 :], list(transfer.parameters()))

    def observe(self) -> dict[str, Tensor]:
        """Returns the attention (B, T - 1) to the task before, in the latest evaluation batch."""
        return self.latest

    def figures(self, means: Mapping[str, Tensor]) -> "dict[str, DataFrame]":
        """Returns the mean attention of each task to the one before it."""
        if "transfer" not in means:
            return {}
        names = [f"{before} -> {task}" for before, task in self._list_links()]
        return {"transfer": make_table(means["transfer"][None], ["attention"], names)}

    def summary(self, means: Mapping[str, Tensor]) -> list[str]:
        """Returns a line with the mean attention of each task to the one before it."""
        if "transfer" not in means:
            return []
        links = zip(self._list_links(), means["transfer"].tolist(), strict=True)
        words = [f"{before} -> {task} {share:.2f}" for (before, task), share in links]
        return [f"attention to the task before: {', '.join(words)}"]

    def _list_links(self) -> list[tuple[str, str]]:
        return list(zip(self.order, self.order[1:], strict=False))


class Transfer(nn.Module):
    """Joins a task's tower with the information of the task before it.

    Args:
        width: D.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.information = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.query = nn.Linear(width, width)

    def forward(self, before: Tensor, tower: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the task's features (B, ..., D), and the attention (B, ...) to the one before.

        Args:
            before: (B, ..., D) features of the task before.
            tower: (B, ..., D) output of the task's tower.
        """
        u = torch.stack([F.gelu(self.information(before)), tower], -2)
        scores = (self.query(u) * self.key(u)).sum(-1) / u.shape[-1] ** 0.5
        shares = scores.softmax(-1)
        return (shares.unsqueeze(-1) * self.value(u)).sum(-2), shares[..., 0]


def check_order(order: Sequence[str] | None, tasks: Sequence[str]) -> tuple[str, ...]:
    """Returns the chain of tasks.

    Raises:
        UserError: It names something else than tasks, or not each task once.
    """
    if order is None:
        return tuple(tasks)
    key = "model.sharing.order"
    for name in order:
        if name not in tasks:
            hint = suggest_or_list(name, tasks)
            raise UserError(f"{key} names '{name}', which is no task: {hint}")
    if sorted(order) != sorted(tasks):
        raise UserError(
            f"{key} is {', '.join(order)}, where each task stands once: {', '.join(tasks)}"
        )
    return tuple(order)


def average_shares(shares: Tensor, features: Tensor) -> Tensor:
    """Returns attention as (B, T - 1), averaged over the real places of each sample.

    Args:
        shares: (B, T - 1, ...).
        features: (B, ..., D) Shared features, zero at padding.
    """
    shares = shares.detach().flatten(2) if shares.ndim > 2 else shares.detach().unsqueeze(-1)
    real = features.detach().any(-1).view(features.shape[0], 1, -1)
    return (shares * real).sum(-1) / real.sum(-1).clamp(min=1)
