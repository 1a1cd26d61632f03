"""The toy with people's groups: three uneven ones, of which the smallest is absent from batches."""

import torch

from src.batch import SENSITIVE
from src.data import Rows, Split
from tests.toy import Toy


class GroupedToy(Toy):
    """The toy, each row of which belongs to one of three groups; one row in 31 to the smallest."""

    @property
    def sensitive_groups(self) -> tuple[str, ...]:
        return ("a", "b", "(missing)")

    def split(self, name: Split) -> Rows:
        rows = super().split(name)
        numbers = torch.arange(len(rows))
        codes = ((numbers * 7) % 5 < 2).long()
        codes[numbers % 31 == 3] = 2
        return Rows(rows.inputs, rows.targets, {SENSITIVE: codes})
