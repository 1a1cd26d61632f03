"""Data modules: the data sets of tasks, and the stream of global batches."""

from src.data.datamodule import MultiTaskDataModule, Rows, Split
from src.data.digits import Digits
from src.data.episodes import Episodes
from src.data.images.celeba import CelebA
from src.data.images.image_table import ImageTable
from src.data.images.multi_mnist import MultiMNIST
from src.data.images.omniglot import Omniglot
from src.data.images.utkface import UTKFace
from src.data.molecules.molecules import Molecules
from src.data.molecules.qm9 import QM9
from src.data.molecules.tox21 import Tox21
from src.data.pixels.cityscapes import Cityscapes
from src.data.pixels.dense import Dense
from src.data.pixels.nuclei import Nuclei
from src.data.pixels.nyuv2 import NYUv2
from src.data.sinusoids import Sinusoids
from src.data.sources import Sources
from src.data.synthetic import Synthetic
from src.data.tables.adult import Adult
from src.data.tables.table import Table
from src.data.treebanks.treebank import Treebank

__all__ = [
    "QM9",
    "Adult",
    "CelebA",
    "Cityscapes",
    "Dense",
    "Digits",
    "Episodes",
    "ImageTable",
    "Molecules",
    "MultiMNIST",
    "MultiTaskDataModule",
    "NYUv2",
    "Nuclei",
    "Omniglot",
    "Rows",
    "Sinusoids",
    "Sources",
    "Split",
    "Synthetic",
    "Table",
    "Tox21",
    "Treebank",
    "UTKFace",
]
