"""Task kinds: a task knows its head, its loss, its metrics, and how to decode an output."""

from src.tasks.binary import BinaryClassification
from src.tasks.classification import Classification
from src.tasks.labels import MISSING, BadLabel, is_labelled
from src.tasks.multilabel import MultilabelClassification
from src.tasks.regression import Regression
from src.tasks.sequence_labelling import SequenceLabelling
from src.tasks.task import Task

__all__ = [
    "MISSING",
    "BadLabel",
    "BinaryClassification",
    "Classification",
    "MultilabelClassification",
    "Regression",
    "SequenceLabelling",
    "Task",
    "is_labelled",
]
