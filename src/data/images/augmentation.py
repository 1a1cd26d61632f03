"""Random changes of training images, the same on any number of devices and after a resume."""

import torch
from torch import Tensor

from src.errors import UserError
from src.rng import draw_uniform_at, make_generator

DRAWS = 5  # random numbers for each image


class Augmentation:
    """Mirrors and shifts training images, and changes their brightness and contrast.

    A change is a function of (seed, epoch, row), so that it depends neither on the number of
    devices nor on workers, and it is computed where the model is. A subclass may do otherwise.

    Args:
        flip: Whether half of the images are mirrored, left to right.
        shift: Most pixels that an image moves by, up or down and to either side; its border is
            repeated where it leaves room.
        brightness: Most that is added to all pixels of an image, or taken away, in units of the
            inputs: standard deviations of the training pixels, unless data.std says otherwise.
        contrast: Most by which the distances of pixels from their image's mean grow or shrink: 0.2
            for factors from 0.8 to 1.2.
    """

    def __init__(
        self,
        flip: bool = False,
        shift: int = 0,
        brightness: float = 0.0,
        contrast: float = 0.0,
    ) -> None:
        for name, value in (("shift", shift), ("brightness", brightness), ("contrast", contrast)):
            if value < 0:
                raise UserError(f"data.augment.{name} is {value}; it must be at least 0")
        if contrast > 1:
            raise UserError(f"data.augment.contrast is {contrast}; it lies in [0, 1]")
        self.flip = flip
        self.shift = shift
        self.brightness = brightness
        self.contrast = contrast

    def __call__(self, images: Tensor, ids: Tensor, seed: int, epoch: int) -> Tensor:
        """Returns changed images.

        Args:
            images: (B, C, H, W).
            ids: (B,) The rows that they belong to.
            seed: Seed of the run.
            epoch: The epoch.
        """
        drawn = self.draw(ids, seed, epoch)
        if self.flip or self.shift:
            images = self._move(images, drawn)
        if self.contrast or self.brightness:
            factor = 1 + self.contrast * (2 * drawn[:, 3] - 1)
            added = self.brightness * (2 * drawn[:, 4] - 1)
            factor, added = (x.to(images.dtype)[:, None, None, None] for x in (factor, added))
            mean = images.mean((1, 2, 3), keepdim=True)
            images = (images - mean) * factor + (mean + added)
        return images

    def draw(self, ids: Tensor, seed: int, epoch: int) -> Tensor:
        """Draws uniform numbers for each row: (B, 5) float64."""
        generator = make_generator(seed, epoch)
        key = int(torch.randint(2**63 - 1, (), generator=generator))
        places = ids[:, None] * DRAWS + torch.arange(DRAWS, device=ids.device)
        return draw_uniform_at(key, places)

    def _move(self, images: Tensor, drawn: Tensor) -> Tensor:
        """Mirrors and shifts images by whole pixels, which is exact."""
        count, channels, height, width = images.shape
        device = images.device
        rows = torch.arange(height, device=device).expand(count, -1)
        columns = torch.arange(width, device=device).expand(count, -1)
        if self.shift:
            steps = (drawn[:, :2] * (2 * self.shift + 1)).long() - self.shift
            rows = (rows + steps[:, :1]).clamp(0, height - 1)
            columns = (columns + steps[:, 1:2]).clamp(0, width - 1)
        if self.flip:
            columns = torch.where(drawn[:, 2:3] < 0.5, columns.flip(1), columns)

        # one indexing operation for both
        image = torch.arange(count, device=device)[:, None, None, None]
        channel = torch.arange(channels, device=device)[None, :, None, None]
        return images[image, channel, rows[:, None, :, None], columns[:, None, None, :]]
