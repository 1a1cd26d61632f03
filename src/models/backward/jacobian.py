"""What the tasks' gradients are taken with respect to: the parameters that features come from."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from src.collectives import global_sum, replica
from src.models.heads import inner_products
from src.parallel.dtensor import copies, dealt, like, local, sum_of_all, whole


class ParameterJacobian:
    """The parameters that features come from, and what a backward pass along the features leaves there.

    Attributes:
        shared: Those that tasks share.
        private: Those of the sharing architecture that belong to one task; they follow their task's
            own gradient.
    """

    def __init__(self, shared: Sequence[nn.Parameter], private: Sequence[nn.Parameter]) -> None:
        self.shared, self.private = shared, private
        self.sizes = [p.numel() for p in shared]

    def rows(
        self, tops: Sequence[Tensor], along: Sequence[Tensor], totals_2T: Tensor, whole_rows: bool
    ) -> Tensor:
        """The gradients (T, P) of the sums of losses over the global batch, one backward pass each; the graph stays.

        Args:
            tops: Each task's features.
            along: Its gradient with respect to them.
            totals_2T: Sums and counts of this rank; they become those of all ranks in the same
                collective.
            whole_rows: Whether each process needs whole rows, and not only what it can take inner
                products of.
        """
        dtype = self.shared[0].dtype if self.shared else totals_2T.dtype
        rows = torch.empty(len(tops), sum(self.sizes) + 2, device=totals_2T.device, dtype=dtype)
        for row, z, dz in zip(rows if self.shared else (), tops, along, strict=bool(self.shared)):
            up = power_of_two(dz) if z.dtype == torch.float16 else 1.0
            gradients = torch.autograd.grad(
                z, self.shared, (dz * up).to(z.dtype), retain_graph=True, allow_unused=True
            )
            for place, gradient in zip(row[:-2].split(self.sizes), gradients, strict=True):
                if gradient is None:
                    place.zero_()
                elif up == 1.0:
                    place.copy_(gradient.flatten())
                else:
                    place.copy_(gradient.flatten()).div_(up)
        rows[:, -2:] = totals_2T.T
        totals_2T.copy_(global_sum(rows)[:, -2:].T)
        return rows[:, :-2]

    def gram(self, rows_TP: Tensor) -> Tensor:
        """Inner products (T, T) of whole rows, in float64."""
        return inner_products(rows_TP)

    def parts(self, direction_P: Tensor) -> list[Tensor]:
        """A direction as the shared parameters lie."""
        return [
            part.view_as(p)
            for part, p in zip(direction_P.split(self.sizes), self.shared, strict=True)
        ]

    def own(self, tops: Sequence[Tensor], ups: Sequence[Tensor]) -> list[Tensor]:
        """What this rank's features leave in the private parameters."""
        gradients = torch.autograd.grad(tops, self.private, ups, allow_unused=True)
        return [
            torch.zeros_like(p) if g is None else g
            for p, g in zip(self.private, gradients, strict=True)
        ]


class ShardedJacobian(ParameterJacobian):
    """The same for parameters of which every process holds a part: its rows are those of its parts, side by side."""

    whole_rows = False

    def rows(
        self, tops: Sequence[Tensor], along: Sequence[Tensor], totals_2T: Tensor, whole_rows: bool
    ) -> Tensor:
        """As above, or of this process's parts (T, P'): a backward pass leaves there the mean over processes."""
        passes = [((z,), (dz.to(z.dtype),)) for z, dz in zip(tops, along, strict=True)]
        rows = self._left_by(passes, self.shared).mul_(replica()[1])
        global_sum(totals_2T)
        self.whole_rows, blocks = whole_rows, rows.split([local(p).numel() for p in self.shared], 1)
        if not whole_rows:
            return rows
        each = [
            torch.stack([whole(like(g.view_as(local(p)), p)) for g in block])
            for block, p in zip(blocks, self.shared, strict=True)
        ]
        return torch.cat([block.flatten(1) for block in each], 1) if each else rows

    def _left_by(
        self,
        passes: Sequence[tuple[Sequence[Tensor], Sequence[Tensor]]],
        wanted: Sequence[nn.Parameter],
    ) -> Tensor:
        """What each backward pass leaves in the parts of some parameters; gradients that lie there already stay."""
        everything = [*self.shared, *self.private]
        kept = [p.grad for p in everything]
        sizes = [local(p).numel() for p in wanted]
        rows = local(everything[0]).new_zeros(len(passes), sum(sizes))
        for row, (tops, along) in zip(rows, passes, strict=True):
            for p in everything:
                p.grad = None
            torch.autograd.backward(tops, along, retain_graph=True)
            for place, p in zip(row.split(sizes), wanted, strict=True):
                if p.grad is not None:
                    place.copy_(local(p.grad).flatten())
        for p, gradient in zip(everything, kept, strict=True):
            p.grad = gradient
        return rows

    def gram(self, rows_TP: Tensor) -> Tensor:
        """As above; of parts they are summed over processes."""
        if self.whole_rows or not self.shared:
            return super().gram(rows_TP)
        blocks = zip(
            rows_TP.split([local(p).numel() for p in self.shared], 1), self.shared, strict=True
        )
        held: dict[int, list[Tensor]] = {}  # by how many processes hold the same
        for block, p in blocks:
            held.setdefault(copies(p), []).append(block)
        parts = [inner_products(torch.cat(same, 1)) / count for count, same in held.items()]
        return sum_of_all(torch.stack(parts).sum(0))

    def parts(self, direction_P: Tensor) -> list[Tensor]:
        """As above."""
        if self.whole_rows:
            return [
                dealt(part, p)
                for part, p in zip(super().parts(direction_P), self.shared, strict=True)
            ]
        parts = direction_P.split([local(p).numel() for p in self.shared])
        return [like(part.view_as(local(p)), p) for part, p in zip(parts, self.shared, strict=True)]

    def own(self, tops: Sequence[Tensor], ups: Sequence[Tensor]) -> list[Tensor]:
        """As above."""
        (row,) = self._left_by([(tops, ups)], self.private)
        parts = row.split([local(p).numel() for p in self.private])
        return [
            like(part.view_as(local(p)), p) for part, p in zip(parts, self.private, strict=True)
        ]


def power_of_two(x: Tensor) -> float:
    """What brings the largest entry to about 1024, far from both ends of fp16."""
    largest = float(x.abs().max())
    return (
        2.0 ** round(10 - torch.tensor(largest).log2().item())
        if 0 < largest < float("inf")
        else 1.0
    )
