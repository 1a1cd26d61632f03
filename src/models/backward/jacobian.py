"""The gradients of all tasks in the parameters of the sharing architecture.

Shapes: T tasks, P numbers in the shared parameters together. Sums over ranks are sums over the
global batch.
"""

from collections.abc import Sequence

import torch
import torch._functorch.config
from torch import Tensor, nn

from src.collectives import global_sum, replica
from src.models.backward.head_gradients import inner_products
from src.runner import Shards


class ParameterJacobian:
    """The gradients of all tasks in the shared parameters, from one backward pass per task.

    Parameters that do not train yet have columns of zeros, which are neither computed nor sent.

    Attributes:
        shared: The trained parameters that several tasks share.
        private: The trained parameters of the sharing architecture that belong to one task; they
            follow their task's own gradient.
    """

    def __init__(self, shared: Sequence[nn.Parameter], private: Sequence[nn.Parameter]) -> None:
        self.shared = shared
        self.private = private
        self.sizes = [p.numel() for p in shared]

    def rows(
        self,
        features: Sequence[Tensor],
        gradients: Sequence[Tensor],
        totals_2T: Tensor,
        full_rows: bool,
    ) -> Tensor:
        """Returns the gradients (T, P) of the sums of losses over the global batch.

        Takes one backward pass per task; the graph stays.

        Args:
            features: Each task's features, in the encoder's graph.
            gradients: The gradient of each task's sum of losses at its features.
            totals_2T: Sums of losses and counts of labels of this rank. They become those of all
                ranks, in the same collective.
            full_rows: Whether the caller needs whole rows, and not only their inner products; this
                class always gives whole rows.
        """
        dtype = self.shared[0].dtype if self.shared else totals_2T.dtype
        trained = [p for p in self.shared if p.requires_grad]
        width = sum(p.numel() for p in trained) + 2
        rows = torch.empty(len(features), width, device=totals_2T.device, dtype=dtype)
        if trained:
            for row, z, dz in zip(rows, features, gradients, strict=True):
                self._fill(row[:-2], z, dz, trained)

        # the totals travel in the last two columns
        rows[:, -2:] = totals_2T.T
        totals_2T.copy_(global_sum(rows)[:, -2:].T)
        return self._widen(rows[:, :-2], trained)

    def _widen(self, rows: Tensor, trained: Sequence[nn.Parameter]) -> Tensor:
        """Returns rows (T, P), given the columns of the parameters that train."""
        if len(trained) == len(self.shared):
            return rows
        wide = rows.new_zeros(len(rows), sum(self.sizes))
        blocks = iter(rows.split([p.numel() for p in trained], 1))
        for place, p in zip(wide.split(self.sizes, 1), self.shared, strict=True):
            if p.requires_grad:
                place.copy_(next(blocks))
        return wide

    def _fill(self, row: Tensor, z: Tensor, dz: Tensor, trained: Sequence[nn.Parameter]) -> None:
        """Writes one task's gradient in the parameters that train into its row."""
        if not z.requires_grad:
            row.zero_()
            return
        # small gradients would drown in 16 bits on their way through the encoder
        scale = scale_for_half(dz) if z.dtype == torch.float16 else 1.0
        found = torch.autograd.grad(
            z, trained, (dz * scale).to(z.dtype), retain_graph=True, allow_unused=True
        )
        sizes = [p.numel() for p in trained]
        for place, gradient in zip(row.split(sizes), found, strict=True):
            if gradient is None:
                place.zero_()
                continue
            place.copy_(gradient.flatten())
            if scale != 1.0:
                place.div_(scale)

    def gramian(self, rows_TP: Tensor) -> Tensor:
        """Returns the inner products (T, T) of the rows, in float64."""
        return inner_products(rows_TP)

    def split(self, direction_P: Tensor) -> list[Tensor]:
        """Splits a direction into a tensor for each shared parameter."""
        pairs = zip(direction_P.split(self.sizes), self.shared, strict=True)
        return [piece.view_as(p) for piece, p in pairs]

    def of_private(self, features: Sequence[Tensor], gradients: Sequence[Tensor]) -> list[Tensor]:
        """Returns the gradients in the private parameters, from gradients at the features."""
        trained = [p for p in self.private if p.requires_grad]
        found: dict[int, Tensor | None] = {}
        if trained:
            tops, at_tops = select_graph(features, gradients)
            taken = torch.autograd.grad(tops, trained, at_tops, allow_unused=True)
            found = {id(p): gradient for p, gradient in zip(trained, taken, strict=True)}
        pairs = [(p, found.get(id(p))) for p in self.private]
        return [torch.zeros_like(p) if gradient is None else gradient for p, gradient in pairs]


class ShardedJacobian(ParameterJacobian):
    """The Jacobian of parameters that are spread over processes.

    Each process holds the columns of its own shards, P' of them, side by side.

    Args:
        shared: The trained parameters that several tasks share.
        private: The trained parameters that belong to one task.
        shards: The layout of the parameters.
    """

    def __init__(
        self,
        shared: Sequence[nn.Parameter],
        private: Sequence[nn.Parameter],
        shards: Shards,
    ) -> None:
        super().__init__(shared, private)
        self.shards = shards
        self.full_rows = False
        self.local_sizes = [shards.local(p).numel() for p in shared]

    def rows(
        self,
        features: Sequence[Tensor],
        gradients: Sequence[Tensor],
        totals_2T: Tensor,
        full_rows: bool,
    ) -> Tensor:
        """Returns the gradients of this process's shards (T, P'), or whole rows (T, P)."""
        passes = []
        for z, dz in zip(features, gradients, strict=True):
            passes.append(([z], [dz.to(z.dtype)]))

        # a backward pass leaves the mean over replicas in each shard
        rows = self._run(passes, self.shared).mul_(replica()[1])
        global_sum(totals_2T)

        self.full_rows = full_rows
        if not full_rows or not self.shared:
            return rows
        blocks = []
        for block, p in zip(rows.split(self.local_sizes, 1), self.shared, strict=True):
            if not p.requires_grad:
                blocks.append(block.new_zeros(len(block), p.numel()))
                continue
            local = self.shards.local(p)
            of_tasks = [
                self.shards.full_tensor(self.shards.as_shard(row.view_as(local), p))
                for row in block
            ]
            blocks.append(torch.stack(of_tasks).flatten(1))
        return torch.cat(blocks, 1)

    def _run(
        self,
        passes: Sequence[tuple[Sequence[Tensor], Sequence[Tensor]]],
        wanted: Sequence[nn.Parameter],
    ) -> Tensor:
        """Returns the gradients that each backward pass leaves in the shards of some parameters.

        Gradients that were there before the passes are there afterwards.
        """
        everything = [*self.shared, *self.private]
        kept = [p.grad for p in everything]
        sizes = [self.shards.local(p).numel() for p in wanted]
        rows = self.shards.local(everything[0]).new_zeros(len(passes), sum(sizes))
        for row, (features, gradients) in zip(rows, passes, strict=True):
            for p in everything:
                p.grad = None
            tops, at_tops = select_graph(features, gradients)
            if tops:
                torch.autograd.backward(tops, at_tops, retain_graph=True)
            for place, p in zip(row.split(sizes), wanted, strict=True):
                if p.grad is not None:
                    place.copy_(self.shards.local(p.grad).flatten())
        for p, gradient in zip(everything, kept, strict=True):
            p.grad = gradient
        return rows

    def gramian(self, rows_TP: Tensor) -> Tensor:
        """Returns the inner products (T, T) of the rows, summed over processes, in float64."""
        if self.full_rows or not self.shared:
            return super().gramian(rows_TP)

        # shards that several processes hold would count several times
        by_holders: dict[int, list[Tensor]] = {}
        for block, p in zip(rows_TP.split(self.local_sizes, 1), self.shared, strict=True):
            by_holders.setdefault(self.shards.holders(p), []).append(block)
        shares = [
            inner_products(torch.cat(blocks, 1)) / holders for holders, blocks in by_holders.items()
        ]
        return self.shards.sum_over_processes(torch.stack(shares).sum(0))

    def split(self, direction_P: Tensor) -> list[Tensor]:
        """Splits a direction into a tensor for each shared parameter, laid out like it."""
        if self.full_rows:
            pairs = zip(super().split(direction_P), self.shared, strict=True)
            return [self.shards.shard_like(piece, p) for piece, p in pairs]
        return self._lay_out(direction_P, self.shared)

    def of_private(self, features: Sequence[Tensor], gradients: Sequence[Tensor]) -> list[Tensor]:
        """Returns the gradients in the private parameters, laid out like them."""
        (row,) = self._run([(features, gradients)], self.private)
        return self._lay_out(row, self.private)

    def _lay_out(self, row: Tensor, parameters: Sequence[nn.Parameter]) -> list[Tensor]:
        locals_ = [self.shards.local(p) for p in parameters]
        pieces = row.split([local.numel() for local in locals_])
        found = []
        for piece, local, p in zip(pieces, locals_, parameters, strict=True):
            found.append(self.shards.as_shard(piece.view_as(local), p))
        return found


def select_graph(
    features: Sequence[Tensor], gradients: Sequence[Tensor]
) -> tuple[list[Tensor], list[Tensor]]:
    """Returns the features that something below them trains for, and the gradients there."""
    places = [k for k, z in enumerate(features) if z.requires_grad]
    return [features[k] for k in places], [gradients[k] for k in places]


def scale_for_half(x: Tensor) -> float:
    """Returns the power of two that brings the largest entry to about 1024, the middle of fp16."""
    largest = float(x.abs().max())
    if not 0 < largest < float("inf"):
        return 1.0
    return 2.0 ** round(10 - torch.tensor(largest).log2().item())


def keep_graph_buffers() -> None:
    """Lets compiled encoders keep their buffers for several backward passes over one graph."""
    torch._functorch.config.donated_buffer = False
