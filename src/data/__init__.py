"""Data modules: the data sets of tasks, and the stream of global batches."""

from src.data.adult import Adult
from src.data.celeba import CelebA
from src.data.cityscapes import Cityscapes
from src.data.datamodule import MultiTaskDataModule, Rows, Split
from src.data.dense import Dense
from src.data.digits import Digits
from src.data.image_table import ImageTable
from src.data.molecules import Molecules
from src.data.multi_mnist import MultiMNIST
from src.data.nuclei import Nuclei
from src.data.nyuv2 import NYUv2
from src.data.qm9 import QM9
from src.data.sources import Sources
from src.data.synthetic import Synthetic
from src.data.table import Table
from src.data.tox21 import Tox21
from src.data.treebank import Treebank
from src.data.utkface import UTKFace

__all__ = [
    "QM9",
    "Adult",
    "CelebA",
    "Cityscapes",
    "Dense",
    "Digits",
    "ImageTable",
    "Molecules",
    "MultiMNIST",
    "MultiTaskDataModule",
    "NYUv2",
    "Nuclei",
    "Rows",
    "Sources",
    "Split",
    "Synthetic",
    "Table",
    "Tox21",
    "Treebank",
    "UTKFace",
]
