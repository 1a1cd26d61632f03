"""Corruptions of inputs, each in five severities.

The severities follow the corrupted benchmarks of images (Hendrycks and Dietterich, "Benchmarking
neural network robustness to common corruptions and perturbations", ICLR 2019).
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from src.analysis.robustness.draws import RowDraws
from src.analysis.robustness.parts import Inputs, Part

Tensors = dict[str, Tensor]
UNKNOWN = 1  # the code of a word that training did not have, and of such a character
SIDE = 64  # pixels; the blur of larger images is in proportion
CHARACTERS = 4  # codes below are no characters: padding, unknown, the begin and end of a word


class Corruption(ABC):
    """A way to corrupt inputs.

    Attributes:
        name: Its name in tables and flags.
        amounts: How much of it the severities 1 to 5 are.
        meaning: The unit of the amounts.
        reads: The parts of a sample that it corrupts, for people.
    """

    name: ClassVar[str]
    amounts: ClassVar[tuple[float, ...]]
    meaning: ClassVar[str]
    reads: ClassVar[str]

    @abstractmethod
    def suits(self, part: Part) -> bool:
        """Returns whether a part of the inputs can be corrupted in this way."""

    @abstractmethod
    def change(self, part: Part, own: Tensors, amount: float, draws: RowDraws) -> Tensors:
        """Returns the tensors of a part that have changed.

        Args:
            part: The part.
            own: Its tensors, with B rows.
            amount: How much.
            draws: Random numbers of the rows.
        """

    def corrupt(
        self, parts: Sequence[Part], inputs: Inputs, ids: Tensor, severity: int, seed: int
    ) -> Inputs:
        """Returns inputs with each part corrupted that can be.

        Args:
            parts: The parts of a sample.
            inputs: Inputs of B rows.
            ids: (B,) The numbers of the rows.
            severity: From 1 to 5.
            seed: The seed.
        """
        draws = RowDraws(seed, self.name, severity, ids)
        amount = self.amounts[severity - 1]
        for part in parts:
            if self.suits(part):
                own = part.read(inputs)
                inputs = part.write(inputs, self.change(part, own, amount, draws))
        return inputs


class Noise(Corruption):
    """Adds normal noise to numbers and pixels, in standard deviations of the training rows."""

    name = "noise"
    amounts = (0.1, 0.25, 0.5, 1.0, 2.0)
    meaning = "standard deviations of the training rows that normal noise has"
    reads = "numbers and pixels"

    def suits(self, part: Part) -> bool:
        return bool(part.number_places) or part.kind in ("image", "sequence")

    def change(self, part: Part, own: Tensors, amount: float, draws: RowDraws) -> Tensors:
        dense = own["dense"]
        noise = draws.draw_normal(part.name, *dense.shape[1:]) * part.learnt.std * amount
        if part.kind == "table":
            # a value that is missing stays so, and its indicator is no number
            is_number = torch.zeros(dense.shape[1], dtype=torch.bool)
            is_number[part.number_places] = True
            noise = noise.masked_fill(~is_number | part.find_missing(dense), 0)
        noisy = (dense + noise).to(dense.dtype)
        return {"dense": keep_pixels(part, noisy) if part.kind == "image" else noisy}


class Missing(Corruption):
    """Takes the values of some columns of each row away, as the data read a missing value."""

    name = "missing"
    amounts = (1, 2, 3, 4, 5)
    meaning = "columns that each row lacks, or as many tenths of them where that is more"
    reads = "columns of tables"

    def suits(self, part: Part) -> bool:
        return part.kind == "table" and len(part.columns) > 1

    def change(self, part: Part, own: Tensors, amount: float, draws: RowDraws) -> Tensors:
        columns = part.columns
        lacking = max(amount, round(amount * len(columns) / 10))
        order = draws.draw_uniform(part.name, len(columns)).argsort(1).argsort(1)
        changed = {key: values.clone() for key, values in own.items()}
        for number, column in enumerate(columns):
            rows = order[:, number] < lacking
            for place in column.numbers:
                mean = float(part.learnt.mean[place])
                changed["dense"][rows, place] = 0.0 if part.has_missing else mean
            for place in column.indicators:
                changed["dense"][rows, place] = 1
            if column.category is not None:
                changed["categorical"][rows, column.category] = column.missing_code
        return changed


class Swapped(Corruption):
    """Replaces some categories by those of training rows that are drawn at random."""

    name = "swapped"
    amounts = (0.05, 0.1, 0.2, 0.35, 0.5)
    meaning = "share of the categories that are drawn anew from the training rows"
    reads = "categories"

    def suits(self, part: Part) -> bool:
        return bool(part.shape.categories)

    def change(self, part: Part, own: Tensors, amount: float, draws: RowDraws) -> Tensors:
        codes = own["categorical"]
        count = codes.shape[1]
        swaps = draws.draw_uniform(f"{part.name} swaps", count) < amount
        training = part.learnt.codes
        rows = (draws.draw_uniform(f"{part.name} rows", count) * len(training)).long()
        return {"categorical": torch.where(swaps, training.gather(0, rows), codes)}


class ImageCorruption(Corruption):
    """Base of the corruptions that change images alone."""

    reads = "images"

    def suits(self, part: Part) -> bool:
        return part.kind == "image"


class Blur(ImageCorruption):
    """Blurs images with a normal kernel."""

    name = "blur"
    amounts = (0.4, 0.6, 0.8, 1.0, 1.5)
    meaning = "standard deviation of the blur in pixels, for 64 pixels of the longer side or fewer"

    def change(self, part: Part, own: Tensors, amount: float, draws: RowDraws) -> Tensors:
        dense = own["dense"]
        sigma = amount * max(1.0, max(dense.shape[-2:]) / SIDE)
        return {"dense": blur_images(dense, sigma)}


class Brightness(ImageCorruption):
    """Makes images brighter, in standard deviations of the pixels of the training rows."""

    name = "brightness"
    amounts = (0.25, 0.5, 1.0, 1.5, 2.0)
    meaning = "standard deviations of the pixels of training rows that are added to each pixel"

    def change(self, part: Part, own: Tensors, amount: float, draws: RowDraws) -> Tensors:
        dense = own["dense"]
        brighter = dense + (amount * part.learnt.std).to(dense.dtype)
        return {"dense": keep_pixels(part, brighter)}


class Contrast(ImageCorruption):
    """Moves the pixels of an image towards the mean of the image."""

    name = "contrast"
    amounts = (0.25, 0.5, 0.6, 0.7, 0.85)
    meaning = "share of its contrast that an image loses"

    def change(self, part: Part, own: Tensors, amount: float, draws: RowDraws) -> Tensors:
        dense = own["dense"]
        mean = dense.mean((-2, -1), keepdim=True)
        return {"dense": mean + (1 - amount) * (dense - mean)}


class Tokens(Corruption):
    """Drops some tokens of texts and sequences.

    Args:
        by_token: Whether tokens have labels of their own. A dropped token then becomes an unknown
            word of unknown characters; otherwise the text is shorter without it.
    """

    name = "tokens"
    amounts = (0.05, 0.1, 0.2, 0.35, 0.5)
    meaning = "share of the tokens that are dropped"
    reads = "texts"

    def __init__(self, by_token: bool = False) -> None:
        self.by_token = by_token

    def suits(self, part: Part) -> bool:
        return part.kind == "text"

    def change(self, part: Part, own: Tensors, amount: float, draws: RowDraws) -> Tensors:
        tokens = own["tokens"]
        drops = (draws.draw_uniform(part.name, tokens.shape[1]) < amount) & (tokens > 0)
        if self.by_token:
            changed = {"tokens": tokens.masked_fill(drops, UNKNOWN)}
            if "parts" in own:
                parts = own["parts"]
                characters = drops[..., None] & (parts >= CHARACTERS)
                changed["parts"] = parts.masked_fill(characters, UNKNOWN)
            return changed

        if part.special:
            # [CLS] and [SEP] are of the tokenizer
            last = (tokens > 0).sum(1) - 1
            drops[:, 0] = False
            drops.scatter_(1, last.clamp(min=0)[:, None], False)
        # a text that would lose all of its tokens keeps the first
        drops[(~drops & (tokens > 0)).sum(1) == 0, 0] = False
        return {key: close_gaps(values, drops) for key, values in own.items()}


CORRUPTIONS: Mapping[str, type[Corruption]] = {
    kind.name: kind for kind in (Noise, Missing, Swapped, Blur, Brightness, Contrast, Tokens)
}


def keep_pixels(part: Part, dense: Tensor) -> Tensor:
    """Returns images whose pixels are no darker or brighter than all of training."""
    return dense.clamp(part.learnt.low.to(dense.dtype), part.learnt.high.to(dense.dtype))


def blur_images(images: Tensor, sigma: float) -> Tensor:
    """Convolves images (B, C, H, W) with a normal kernel of ``sigma`` pixels; edges repeat."""
    reach = max(1, round(3 * sigma))
    steps = torch.arange(-reach, reach + 1, dtype=torch.float64)
    kernel = torch.exp(-0.5 * (steps / sigma) ** 2)
    kernel = (kernel / kernel.sum()).to(images.dtype)

    channels = images.shape[1]
    padded = F.pad(images, (reach, reach, reach, reach), mode="replicate")
    across = kernel.view(1, 1, 1, -1).expand(channels, 1, 1, -1)
    down = kernel.view(1, 1, -1, 1).expand(channels, 1, -1, 1)
    return F.conv2d(F.conv2d(padded, across, groups=channels), down, groups=channels)


def close_gaps(values: Tensor, drops: Tensor) -> Tensor:
    """Returns sequences (B, S, ...) without the places to drop; zeros fill them up at the end."""
    # kept places come first, in their order
    order = drops.long().argsort(dim=1, stable=True)
    index = order.view(*order.shape, *[1] * (values.ndim - 2)).expand_as(values)
    kept = (~drops).gather(1, order)
    moved = values.gather(1, index)
    return moved * kept.view(*kept.shape, *[1] * (values.ndim - 2)).to(moved.dtype)
