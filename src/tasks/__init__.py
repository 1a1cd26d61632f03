"""Task kinds: a task knows its head, its loss, its metrics, and how to decode an output."""

from src.tasks.binary import BinaryClassification
from src.tasks.censored import CensoredRegression
from src.tasks.classification import Classification
from src.tasks.counts import Counts
from src.tasks.dense_regression import DenseRegression
from src.tasks.labels import MISSING, BadLabel, is_labelled
from src.tasks.multilabel import MultilabelClassification
from src.tasks.ordinal import Ordinal
from src.tasks.quantiles import Quantiles
from src.tasks.regression import Regression
from src.tasks.segmentation import Segmentation
from src.tasks.sequence_labelling import SequenceLabelling
from src.tasks.surface_normals import SurfaceNormals
from src.tasks.survival import Survival
from src.tasks.task import Task

__all__ = [
    "MISSING",
    "BadLabel",
    "BinaryClassification",
    "CensoredRegression",
    "Classification",
    "Counts",
    "DenseRegression",
    "MultilabelClassification",
    "Ordinal",
    "Quantiles",
    "Regression",
    "Segmentation",
    "SequenceLabelling",
    "SurfaceNormals",
    "Survival",
    "Task",
    "is_labelled",
]
