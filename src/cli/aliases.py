"""The everyday flags: short spellings of keys, and what help says of them."""

from typing import NamedTuple


class Alias(NamedTuple):
    """A short spelling of a key.

    Attributes:
        key: The key.
        meaning: What help says of it, with its default in brackets.
        trains: Whether only training knows it; other commands keep what the run has settled.
    """

    key: str
    meaning: str
    trains: bool = True


EVERYDAY = {
    "devices": Alias(
        "trainer.devices", "processes on CPUs, or GPUs; auto takes all GPUs [1]", False
    ),
    "strategy": Alias(
        "trainer.strategy",
        "how they work together [auto: ddp while the model fits on each, else fsdp]",
        False,
    ),
    "accelerator": Alias("trainer.accelerator", "cpu or gpu [auto]", False),
    "num_nodes": Alias("trainer.num_nodes", "machines [1]", False),
    "precision": Alias(
        "trainer.precision", "32-true, bf16-mixed, 16-mixed, 64-true [32-true]", False
    ),
    "max_epochs": Alias("trainer.max_epochs", "passes over the training rows"),
    "max_steps": Alias("trainer.max_steps", "optimizer steps; 0 trains nothing"),
    "fast_dev_run": Alias("trainer.fast_dev_run", "one batch of everything, nothing is kept"),
    "overfit_batches": Alias(
        "trainer.overfit_batches", "train and validate on these few batches alone"
    ),
    "batch_size": Alias("data.batch_size", "rows per step over all devices together"),
    "lr": Alias("model.optimizer.lr", "peak learning rate"),
    "seed": Alias("seed_everything", "initial weights, order of batches, dropout [0]"),
}
ALIASES = {name: alias.key for name, alias in EVERYDAY.items()}
