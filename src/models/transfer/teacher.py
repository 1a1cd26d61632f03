"""An earlier network that teaches its tasks on rows which have no label for them."""

import copy
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from src.batch import PADDING, Batch
from src.errors import UserError
from src.models.padding import hide_padding

if TYPE_CHECKING:
    from src.models.module import MultiTaskModel


class Teacher:
    """The network that a run starts from, frozen: its outputs stand for labels that are missing.

    So a run on new rows does not forget the tasks of the old ones (Li and Hoiem, "Learning without
    forgetting", ECCV 2016). Every process holds all of the teacher; it is in evaluation mode, and
    runs forward once in each step.

    Args:
        model: The model, on whole parameters.
        start: The state that the run started from.
        names: The tasks that it teaches.
        temperature: Divides logits before they become probabilities.

    Raises:
        UserError: There is no such task, or the temperature is not above 0.
    """

    def __init__(
        self,
        model: "MultiTaskModel",
        start: Mapping[str, Tensor],
        names: Collection[str],
        temperature: float,
    ) -> None:
        if not 0 < temperature < float("inf"):
            raise UserError(
                f"init_from.distillation is {temperature}, a temperature: it must be above 0"
            )
        if not names:
            raise UserError(
                "init_from.distillation has no effect: no task of the source is kept with its "
                "encoder, so that nobody could teach it; keep its data with --init_from.replay 0"
            )
        self.names = tuple(names)
        self.temperature = temperature
        self.sharing = copy.deepcopy(model.sharing).requires_grad_(False)
        self.heads = copy.deepcopy(model.heads).requires_grad_(False)
        for room, module in (("sharing.", self.sharing), ("heads.", self.heads)):
            own = {n.removeprefix(room): t for n, t in start.items() if n.startswith(room)}
            module.load_state_dict(own)

    def prepare(self, model: "MultiTaskModel") -> None:
        """Moves to the model's device and precision, and tells the heads the temperature."""
        dtype = next(p.dtype for p in model.parameters() if p.is_floating_point())
        self.sharing.to(model.device, dtype).eval()
        self.heads.to(model.device, dtype).eval()
        model.heads.temperature = self.temperature

    @torch.no_grad()
    def teach(self, batch: Batch) -> None:
        """Adds its outputs to a batch, NaN at padding and in rows that only fill up the batch."""
        found = self.heads.split(self.heads(self.sharing(batch.inputs)))
        outputs = hide_padding({name: found[name] for name in self.names}, batch.inputs)
        is_padding = batch.ids == PADDING
        for name, taught in outputs.items():
            gone = is_padding.view(-1, *[1] * (taught.ndim - 1)).to(taught.device)
            batch.taught[name] = taught.masked_fill(gone, torch.nan)
