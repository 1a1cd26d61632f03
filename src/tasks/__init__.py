"""What is learnt."""

from src.tasks.binary import BinaryClassification
from src.tasks.classification import Classification
from src.tasks.multilabel import MultilabelClassification
from src.tasks.regression import Regression
from src.tasks.task import MISSING, BadLabel, Task, labelled

__all__ = [
    "MISSING",
    "BadLabel",
    "BinaryClassification",
    "Classification",
    "MultilabelClassification",
    "Regression",
    "Task",
    "labelled",
]
