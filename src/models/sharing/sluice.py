"""Sluice networks: tasks share subspaces of their features, and read several stages."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from src.errors import UserError
from src.models.encoders.encoder import Layout
from src.models.sharing.feature_exchange import FeatureExchange, mostly_own
from src.models.sharing.gates import make_table
from src.models.sharing.sharing import EncoderFactory, Owned

if TYPE_CHECKING:
    from pandas import DataFrame


class Alphas(nn.Module):
    """One exchange: x_ta <- sum_sb alpha_ta,sb x_sb, with subspace a of the channels of task t.

    Args:
        layout: The layout of the stage's output.
        tasks: T.
        subspaces: S.
        own: Initial weight of a subspace itself.
    """

    def __init__(self, layout: Layout, tasks: int, subspaces: int, own: float) -> None:
        super().__init__()
        if subspaces < 1 or layout.channels % subspaces:
            raise UserError(
                f"Sluice: subspaces {subspaces} must divide the {layout.channels} channels of a "
                "stage"
            )
        self.weight = nn.Parameter(
            mostly_own(own, tasks * subspaces).view(tasks, subspaces, tasks, subspaces)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(T, B, ..., C) -> the same."""
        parts = x.unflatten(-1, (self.weight.shape[1], -1))
        return torch.einsum("tasb,s...bc->t...ac", self.weight, parts).flatten(-2)


class Sluice(FeatureExchange):
    """Sluice networks: x_ta <- sum_sb alpha_ta,sb x_sb behind stage k, z_t = sum_k beta_tk x_tk.

    The C channels of every stage are cut into S subspaces a of C / S channels, and each is mixed
    from the subspaces of all tasks. z_t mixes the stages whose output has the shape of the last
    one's, channels last (Ruder et al., "Latent multi-task architecture learning", AAAI 2019).

    The penalty is ``orthogonality`` times the sum over tasks, stages and pairs of subspaces of |W_a
    W_b'|^2 (Frobenius). W_a are the rows for subspace a of the stage's last parameter that has two
    dimensions or more and C as its first; a stage without one has no penalty.

    Args:
        encoder: Makes an encoder.
        tasks: The tasks' names.
        subspaces: S, which must divide the channels of every stage.
        own: Initial weight of a subspace itself in alpha, and of the last stage in beta, in [0, 1];
            the others have equal parts of the rest.
        orthogonality: Strength of the penalty; 0: there is none.
    """

    def __init__(
        self,
        encoder: EncoderFactory,
        tasks: Sequence[str],
        subspaces: int = 2,
        own: float = 0.9,
        orthogonality: float = 0.01,
    ) -> None:
        super().__init__(
            encoder, tasks, own, lambda layout: Alphas(layout, len(tasks), subspaces, own)
        )
        if not orthogonality >= 0:
            raise UserError(f"Sluice: orthogonality {orthogonality} must be at least 0")
        self.subspaces = subspaces
        self.orthogonality = orthogonality

        # the stages that z_t can mix
        self.eval()
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            shapes = [x.shape for x in self.outputs(self.encoders.shape.example())]
        self.train()
        self.read = [k for k, shape in enumerate(shapes) if shape == shapes[-1]]
        self.betas = nn.Parameter(mostly_own(own, len(self.read))[-1].repeat(len(tasks), 1))

        # the matrix of each stage that the penalty acts on: the last one wins
        self.matrices: dict[int, str] = {}
        for k, layout in enumerate(
            self.encoders.layouts if orthogonality and subspaces > 1 else []
        ):
            for name, p in self.encoders.stack_parameters(k).items():
                # the first dimension is that of the encoders
                if p.ndim > 2 and p.shape[1] == layout.channels:
                    self.matrices[k] = name
        self.reads_weights = bool(self.matrices)
        if orthogonality and subspaces > 1 and not self.matrices:
            warnings.warn(
                f"Sluice: orthogonality {orthogonality} has no matrix of any stage to act on",
                stacklevel=2,
            )

    def forward(self, inputs: Tensor | dict[str, Tensor]) -> Mapping[str, Tensor]:
        """Returns each task's mixture of stages."""
        mixed = self.outputs(inputs)
        z = torch.einsum("tk,kt...->t...", self.betas, torch.stack([mixed[k] for k in self.read]))
        return dict(zip(self.tasks, z.unbind(), strict=True))

    def owners(self) -> Iterator[Owned]:
        """Yields what tasks exchange, and each task's weights of stages."""
        yield from super().owners()
        yield Owned(self.tasks, [self.betas], slices=True)

    def penalty(self) -> Tensor | None:
        """Returns the penalty for subspaces that are not orthogonal to each other."""
        overlaps = []
        for k, name in self.matrices.items():
            W = self.encoders.stack_parameters(k)[name].flatten(2)  # (T, C, inputs)
            within = W.unflatten(1, (self.subspaces, -1))
            # all pairs of rows, without those of one subspace, each pair of subspaces once
            overlaps.append((W @ W.mT).square().sum() / 2 - (within @ within.mT).square().sum() / 2)
        return self.orthogonality * torch.stack(overlaps).sum() if overlaps else None

    def figures(self, means: Mapping[str, Tensor]) -> "dict[str, DataFrame]":
        """Returns the alphas behind each stage (row t.a reads column s.b), and the betas."""
        names = [f"{task}.{a + 1}" for task in self.tasks for a in range(self.subspaces)]
        alphas = {
            f"alphas of stage {k + 1}": make_table(weight.flatten(2).flatten(0, 1), names, names)
            for k, weight in enumerate(self.exchanges.parameters())
        }
        return alphas | {
            "betas": make_table(self.betas, self.tasks, [f"stage {k + 1}" for k in self.read])
        }
