"""Data modules: the data sets of tasks, and the stream of global batches."""

from src.data.adult import Adult
from src.data.datamodule import MultiTaskDataModule, Rows, Split
from src.data.digits import Digits
from src.data.image_table import ImageTable
from src.data.multi_mnist import MultiMNIST
from src.data.sources import Sources
from src.data.synthetic import Synthetic
from src.data.table import Table
from src.data.treebank import Treebank

__all__ = [
    "Adult",
    "Digits",
    "ImageTable",
    "MultiMNIST",
    "MultiTaskDataModule",
    "Rows",
    "Sources",
    "Split",
    "Synthetic",
    "Table",
    "Treebank",
]
