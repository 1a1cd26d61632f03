"""Checks that data of episodes, a model that learns from them, and a strategy go together."""

from lightning.pytorch.strategies import Strategy

from src.data import MultiTaskDataModule
from src.data.episodic import EpisodicData
from src.errors import UserError
from src.models import MultiTaskModel
from src.parallel import DDP, MultiTaskStrategy


def check_episodes(
    data: MultiTaskDataModule, model: MultiTaskModel, strategy: Strategy | str | None
) -> None:
    """Checks the data, the model and the strategy of a run, before anything starts.

    Args:
        data: The data.
        model: The model.
        strategy: How several devices work together; None for one device.

    Raises:
        UserError: One of them knows episodes and another does not.
    """
    name = type(data).__name__
    if model.meta is None:
        if isinstance(data, EpisodicData):
            raise UserError(
                f"--data {name} gives episodes, but model.meta is null: choose --model.meta MAML, "
                "ANIL, Reptile or Prototypes"
            )
        return
    method = type(model.meta).__name__
    if not isinstance(data, EpisodicData):
        raise UserError(
            f"model.meta {method} learns from episodes, but --data {name} gives rows: use --data "
            f"Episodes --data.source {name}"
        )
    if isinstance(strategy, MultiTaskStrategy) and type(strategy) is not DDP:
        raise UserError(
            f"--strategy {strategy.strategy_name} splits the network, but model.meta {method} runs "
            "it whole, with weights of each episode: use --strategy ddp"
        )
