"""What is learnt from."""

from src.data.datamodule import MultiTaskDataModule, Rows, Split
from src.data.digits import Digits

__all__ = ["Digits", "MultiTaskDataModule", "Rows", "Split"]
