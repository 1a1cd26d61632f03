"""Parts of samples for tests of robustness."""

from dataclasses import replace

import torch

from src.analysis.robustness.parts import Part, PartColumn, measure_training
from src.batch import InputShape

# age with an indicator, hours, and two categories; a missing job has code 3
COLUMNS = (
    PartColumn("age", (0,), (1,)),
    PartColumn("hours", (2,)),
    PartColumn("job", category=0, missing_code=3, words=("cook", "nurse", None)),
    PartColumn("sex", category=1, words=("f", "m")),
)


def make_table(rows: int = 400) -> tuple[Part, dict[str, torch.Tensor]]:
    """A table and its rows, of which every tenth lacks its age."""
    generator = torch.Generator().manual_seed(0)
    dense = torch.randn(rows, 3, generator=generator) * torch.tensor([1.0, 1.0, 4.0])
    dense[:, 1] = 0
    dense[::10, 0] = 0
    dense[::10, 1] = 1
    job = torch.randint(1, 4, (rows, 1), generator=generator)
    sex = torch.randint(1, 3, (rows, 1), generator=generator)
    inputs = {"dense": dense, "categorical": torch.cat([job, sex], 1)}
    part = Part("", "table", InputShape((3,), (4, 3)), COLUMNS, has_missing=True)
    return replace(part, training=measure_training(part, inputs)), inputs


def make_images(rows: int = 6, size: int = 12) -> tuple[Part, torch.Tensor]:
    """Images of two channels, and what they say as training rows."""
    images = torch.rand(rows, 2, size, size, generator=torch.Generator().manual_seed(1))
    part = Part("", "image", InputShape((2, size, size)))
    return replace(part, training=measure_training(part, images)), images
