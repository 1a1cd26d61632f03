"""The most networks that a budget allows, in units of what one hard-sharing network takes."""

from typing import Literal

import torch

from src.data import MultiTaskDataModule
from src.errors import UserError
from src.models import MultiTaskModel
from src.planning.measure import Cost, measure_costs

Unit = Literal["parameters", "time"]


def count_networks(
    budget: float, unit: Unit, model: MultiTaskModel, data: MultiTaskDataModule
) -> int:
    """Returns the largest number of networks, each with an encoder of its own, in a budget.

    A network has an encoder and the heads of its tasks. So k networks take k encoders and all
    heads, where the one network of hard sharing takes an encoder and all heads.

    Args:
        budget: What all networks may take together, where the one takes 1.
        unit: Of what: parameters, or time, that of a forward pass of a batch on the CPU.
        model: The model, whose encoder, heads and tasks count.
        data: Where batches come from.

    Raises:
        UserError: Not even one network is within the budget.
    """
    if not budget >= 1:
        raise UserError(
            f"--budget {budget:g}: one network for all tasks takes 1; give 1 or more, such as 2.5"
        )
    hard = MultiTaskModel(model.tasks, model.input_shape, model.make_encoder)
    hard.configure_model()
    encoder, heads = measure_time(hard, data) if unit == "time" else count_parameters(hard)
    if encoder == 0:
        return len(model.tasks)
    # a budget of 2 must allow two encoders and a little, whatever rounding makes of it
    most = int((budget * (encoder + heads) - heads) / encoder + 1e-9)
    return min(most, len(model.tasks))


def count_parameters(hard: MultiTaskModel) -> tuple[float, float]:
    """Returns the numbers of parameters of the encoder, and of all heads."""
    encoder = sum(p.numel() for p in hard.sharing.parameters())
    return encoder, sum(p.numel() for p in hard.heads.parameters())


def measure_time(hard: MultiTaskModel, data: MultiTaskDataModule) -> tuple[float, float]:
    """Returns the seconds that a batch takes in the encoder, and in all heads."""
    rows = data.split("train")
    batch = rows[torch.arange(min(data.batch_size, len(rows)))]
    costs = measure_costs(hard, batch.inputs, batch.targets)

    def add_up(room: str) -> float:
        parts: list[Cost] = [cost for part, cost in costs.items() if part.startswith(room)]
        return sum(cost.seconds for cost in parts)

    return add_up("sharing"), add_up("heads")
