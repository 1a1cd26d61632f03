"""Random changes of training images that move their label maps along.

A change is a function of (seed, epoch, row): the same on any number of processes, in any worker,
and after a resume.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from src.data.stream import GlobalBatches
from src.rng import make_generator
from src.tasks import Task
from src.tasks.pixels import PixelLabels


class EpochBatches(GlobalBatches):
    """Yields row numbers with the epoch beside them: (B, 2)."""

    def __iter__(self) -> Iterator[Tensor]:  # type: ignore[override]  # whole batches, not rows
        for ids in super().__iter__():
            yield torch.stack([ids, torch.full_like(ids, self.epoch)], -1)


@dataclass(frozen=True)
class DenseAugmentation:
    """Random changes of a training image; by default there are none.

    Attributes:
        flip: Whether half of the images are mirrored, left to right.
        turn: Whether images are turned by 0, 90, 180 or 270 degrees, and mirrored or not, for
            pictures without an up and down. Images must be square, or are turned by 180 only.
        crop: (height, width) of a section at a random place; None takes the whole image.
        seed: Seed of all draws.
    """

    flip: bool = False
    turn: bool = False
    crop: tuple[int, int] | None = None
    seed: int = 0

    @property
    def does_nothing(self) -> bool:
        """Whether images stay as they are."""
        return not (self.flip or self.turn or self.crop)

    def apply(
        self,
        image: Tensor,
        targets: dict[str, Tensor],
        tasks: dict[str, Task],
        key: tuple[int, int],
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns a changed image and its changed targets.

        Args:
            image: (C, H, W).
            targets: {task: (H, W) or (H, W, L)}; labels of a whole image stay as they are.
            tasks: The tasks, which know how their labels are mirrored.
            key: (epoch, row).
        """
        generator = make_generator(self.seed, *key)

        def draw(below: int) -> int:
            return int(torch.randint(below, (), generator=generator))

        height, width = image.shape[1:]
        maps = {name: y for name, y in targets.items() if isinstance(tasks[name], PixelLabels)}
        # all draws are made in any case: another setting leaves the others as they are
        mirrors, quarters = draw(2), draw(4)
        top = left = 0
        if self.crop is not None:
            top, left = draw(height - self.crop[0] + 1), draw(width - self.crop[1] + 1)
            height, width = self.crop
        image = image[:, top : top + height, left : left + width]
        maps = {name: y[top : top + height, left : left + width] for name, y in maps.items()}

        if mirrors and (self.flip or self.turn):
            image = image.flip(2)
            maps = {name: mirror(tasks[name], y) for name, y in maps.items()}
        if self.turn:
            if height != width:
                quarters -= quarters % 2
            image = image.rot90(quarters, (1, 2))
            maps = {name: y.rot90(quarters, (0, 1)) for name, y in maps.items()}
        return image, targets | maps


def mirror(task: Task, targets: Tensor) -> Tensor:
    """Returns the targets of a mirrored image."""
    assert isinstance(task, PixelLabels)
    return task.mirror(targets)
