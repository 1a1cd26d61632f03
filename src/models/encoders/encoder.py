"""The contract of every encoder: a sequence of stages and the size of what comes out."""

from abc import ABC, abstractmethod

from torch import Tensor, nn

from src.batch import InputShape


class Encoder(nn.Module, ABC):
    """Inputs -> features (B, D), through a stem and a sequence of stages.

    Stages are the one seam that everything uses: architectures that share between layers act between stages, placement and FSDP
    cut at stages, activation checkpointing wraps stages. An encoder draws its initial weights from torch's global generator and
    from nothing else.

    Attributes:
        stages: nn.Sequential; the first one reads the inputs as the batch holds them.
        features: Size D of the last stage's output.
    """

    stages: nn.Sequential
    features: int

    @abstractmethod
    def __init__(self, shape: InputShape) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, inputs: Tensor | dict[str, Tensor]) -> Tensor:
        """Returns the features of the last stage."""
        return self.stages(inputs)
