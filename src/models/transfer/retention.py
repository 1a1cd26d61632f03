"""How a run that starts from another keeps what that one had learnt."""

from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from src.batch import Batch
from src.models.transfer.anchor import Anchor
from src.models.transfer.report import PartReport
from src.models.transfer.sharing import name_part
from src.models.transfer.teacher import Teacher

if TYPE_CHECKING:
    from src.models.module import MultiTaskModel


class Retention:
    """Keeps weights near those of the start, or teaches old tasks on rows without their labels.

    Args:
        anchor: The penalty on the distance to the start; None for none.
        teacher: The network of the start, if it teaches.
        names: The parameters that came from the source.
        start: The state that the run started from, whole tensors.
        fisher: The Fisher information that the anchor reads.
    """

    def __init__(
        self,
        anchor: Anchor | None,
        teacher: Teacher | None,
        names: Collection[str],
        start: Mapping[str, Tensor],
        fisher: Mapping[str, Tensor],
    ) -> None:
        self.anchor = anchor
        self.teacher = teacher
        self.names = names
        self.start = start
        self.fisher = fisher

    def prepare(self, model: "MultiTaskModel") -> None:
        """Takes its part in the steps of a fit, once the strategy has laid out the parameters."""
        if self.anchor is not None:
            self.anchor.hold(model, self.names, self.start, self.fisher)
        if self.teacher is not None:
            self.teacher.prepare(model)

    def teach(self, batch: Batch) -> None:
        """Adds the teacher's outputs to a batch."""
        if self.teacher is not None:
            self.teacher.teach(batch)


def list_started(model: "MultiTaskModel", reports: Iterable[PartReport]) -> list[str]:
    """Returns the names of the parameters in parts that came from the source, whole or in part."""
    parts = {report.part for report in reports if report.status in ("kept", "grown")}
    tasks = {path: name for name, path in model.heads.paths.items()}
    found = []
    for name, _ in model.named_parameters():
        room, *key = name.split(".")
        part = ""
        if room == "heads":
            part = f"heads.{tasks[key[0]]}"
        elif room == "sharing":
            # what selects inputs stands around the architecture
            inner = key[1:] if key[0] == "architecture" else key
            part = name_part(tuple(inner))
        if part in parts:
            found.append(name)
    return found
