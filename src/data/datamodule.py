"""What every data module has in common: the splits, the loaders, the global batch."""

import warnings
from abc import ABC, abstractmethod
from itertools import islice
from typing import Any, Literal, cast

import lightning as L
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.utils.data import Dataset

from src.batch import PADDING, Batch, InputShape
from src.data.stream import Batches, GlobalBatches
from src.errors import UserError
from src.tasks import MISSING, Task

# the stream resumes exactly, by the data module's state, where Lightning looks for the loader's
warnings.filterwarnings("ignore", message=".*your dataloader is not resumable.*")

Split = Literal["train", "val", "test", "predict"]
MOST_WORKERS = 256  # processes that prepare batches: more would be a slip, or a stranger's joke


class Rows(Dataset[Batch]):
    """A split in memory: row numbers (B,) -> Batch, by one indexing operation per tensor.

    Args:
        inputs: The dense input (N, *shape), or a dict of tensors.
        targets: {task: (N,) or (N, L)}.
        extras: What rides along, by name.
        beside: What stands beside predictions of the rows: 'id', their names, and 'split', where
            they are of several.
    """

    def __init__(
        self,
        inputs: Tensor | dict[str, Tensor],
        targets: dict[str, Tensor] | None = None,
        extras: dict[str, Tensor] | None = None,
        beside: dict[str, list[Any]] | None = None,
    ) -> None:
        self.inputs, self.targets, self.extras = inputs, targets or {}, extras or {}
        self.beside = beside or {}

    def followed_by(self, other: "Rows") -> "Rows":
        """Returns these rows and those of another split behind them, where inputs are dicts."""
        assert isinstance(self.inputs, dict) and isinstance(other.inputs, dict)
        inputs = {
            key: torch.cat([values, other.inputs[key]]) for key, values in self.inputs.items()
        }
        targets = {
            name: torch.cat([values, other.targets[name]]) for name, values in self.targets.items()
        }
        beside = {key: [*values, *other.beside[key]] for key, values in self.beside.items()}
        return Rows(inputs, targets, beside=beside)

    def __len__(self) -> int:
        return len(
            self.inputs if isinstance(self.inputs, Tensor) else next(iter(self.inputs.values()))
        )

    def __getitem__(self, ids: Tensor) -> Batch:
        """Returns the rows ``ids``; for ``PADDING``, which stands at the end, it repeats row 0 with all labels missing."""
        padded = len(ids) > 0 and int(ids[-1]) == PADDING
        rows = ids.clamp(min=0) if padded else ids

        def take(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
            return {
                name: tensor.index_select(0, rows) for name, tensor in tensors.items()
            }  # twice as fast as tensor[rows]

        inputs = (
            self.inputs.index_select(0, rows)
            if isinstance(self.inputs, Tensor)
            else take(self.inputs)
        )
        targets = take(self.targets)
        if padded:
            for target in targets.values():
                target[ids == PADDING] = float("nan") if target.is_floating_point() else MISSING
        return Batch(inputs, targets, ids, take(self.extras))


class MultiTaskDataModule(L.LightningDataModule, ABC):
    """Base of all data modules: a subclass declares its tasks and gives its splits.

    Args:
        batch_size: Rows per step over all devices together, so that a run does not depend on their
            number.
        eval_batch_size: Rows per validation, test or prediction step, over all devices.
        num_workers: Processes that prepare batches; 0 is fastest for data in memory. A batch of
            theirs is waited for 600 s, or 0.9 times the strategy's timeout, and then the run ends.
        seed: Seed of the order of training batches; the command line links it to --seed_everything.
    """

    def __init__(
        self, batch_size: int = 64, eval_batch_size: int = 1024, num_workers: int = 0, seed: int = 0
    ) -> None:
        super().__init__()
        for name, value in (("batch_size", batch_size), ("eval_batch_size", eval_batch_size)):
            if value < 1:
                raise UserError(f"data.{name} is {value}; it must be at least 1")
        if not 0 <= num_workers <= MOST_WORKERS:
            raise UserError(
                f"data.num_workers is {num_workers}; it must be from 0 to {MOST_WORKERS}"
            )
        self.batch_size, self.eval_batch_size, self.num_workers, self.seed = (
            batch_size,
            eval_batch_size,
            num_workers,
            seed,
        )
        self.test_split: Split = "test"
        self.predict_split: Split = "predict"
        # what a command that opens a run may say of its rows; only tables have columns that may be
        # missing, or other rows
        self.new_rows = self.allow_missing = False
        self.remarks: list[str] = []  # what was noticed while rows were read, a line each
        self._stream: GlobalBatches | None = None  # of training batches
        self._restored: tuple[L.Trainer, dict[str, int]] | None = (
            None  # whose position in it was restored
        )
        self._others: dict[Split, tuple[Dataset[Batch], GlobalBatches]] = {}

    @property
    @abstractmethod
    def tasks(self) -> dict[str, Task]:
        """The tasks with their label spaces. It may read the data: it is asked for once, before the model is built."""

    @property
    @abstractmethod
    def input_shape(self) -> InputShape:
        """What one sample looks like."""

    @abstractmethod
    def split(self, name: Split) -> Dataset[Batch]:
        """Returns a split, a data set that maps row numbers (B,) to a Batch."""

    def schema(self) -> dict[str, Any] | None:
        """What must be known of the training data to read new rows, as plain values; None where nothing must."""
        return None

    @property
    def is_new(self) -> bool:
        """Whether the rows are others than those of the run whose schema is given."""
        return False

    def check_files(self, all_there: bool = True) -> None:
        """Looks whether the data are still those that the run of a schema was trained on.

        Args:
            all_there: Whether each file must be there; otherwise one that nobody reads may be gone.

        Raises:
            UserError: They are not.
        """

    def fingerprint(self) -> dict[str, Any] | None:
        """Returns what identifies the data in a run's record: files with their hashes; None where there are none."""
        return None

    def files(self) -> list[str]:
        """Returns the files that the data are read from, which no result may overwrite."""
        return []

    def notes(self) -> list[str]:
        """What a person should know of how the data was read, a line each."""
        return [f"task {name}: {type(task).__name__}" for name, task in self.tasks.items()]

    def beside(self, name: Split) -> dict[str, list[Any]]:
        """Returns what stands beside predictions of a split, in the order of its rows; 'id' are their names."""
        return getattr(self.split(name), "beside", {})

    def truth(self, name: Split) -> dict[str, dict[str, list[Any]]]:
        """Returns the labels of a split for people, to stand beside predictions: {task: {suffix of the column's name: values}}."""
        rows = self.split(name)
        targets = rows[torch.arange(len(rows))].targets  # type: ignore[arg-type]
        return {task: self.tasks[task].decode_targets(target) for task, target in targets.items()}

    def describe(self, name: Split) -> str:
        """Says which rows a split has, for the line above its results."""
        return f"{len(self.split(name))} rows of the {name} split"  # type: ignore[arg-type]

    def train_dataloader(self) -> Batches:
        """Returns the shuffled stream of global batches."""
        overfit = self.trainer is not None and bool(self.trainer.overfit_batches)  # type: ignore[attr-defined]
        rows = self.split("train")
        self._stream = self.training_batches(rows, shuffle=not overfit)
        self._move_stream()
        return self._loader(rows, self._stream)

    def training_batches(self, rows: Dataset[Batch], shuffle: bool) -> GlobalBatches:
        """Says which rows make up each training step.

        Args:
            rows: The training split.
            shuffle: Whether every epoch has an order of its own.
        """
        return GlobalBatches(len(rows), self.batch_size, shuffle, self.seed)  # type: ignore[arg-type]

    def other_batch(self, name: Split, step: int) -> Batch:
        """Returns this rank's share of a batch of training size that is a function of (seed, step), for methods that look ahead."""
        if name not in self._others:
            rows = self.split(name)
            count = len(rows)  # type: ignore[arg-type]
            sampler = GlobalBatches(count, self.batch_size, shuffle=True, seed=self.seed + 1)
            self._others[name] = rows, sampler
        rows, sampler = self._others[name]
        sampler.epoch, batch = divmod(step, len(sampler))
        return rows[next(islice(sampler, batch, None))]

    def val_dataloader(self) -> Batches:
        """Returns the validation rows in order."""
        return self._in_order("val")

    def test_dataloader(self) -> Batches:
        """Returns the rows of ``test_split`` in order: the test rows, unless another split is to be evaluated."""
        return self._in_order(self.test_split)

    def predict_dataloader(self) -> Batches:
        """Returns the rows of ``predict_split`` in order: those that the data module has for it, unless it is another."""
        return self._in_order(self.predict_split)

    def transfer_batch_to_device(
        self, batch: Batch, device: torch.device, dataloader_idx: int
    ) -> Batch:
        """Moves a batch to where the model is."""
        return batch if device.type == "cpu" else batch.to(device)

    def __str__(self) -> str:
        """The class alone: Lightning's would read every split to count its rows."""
        return f"{type(self).__name__}(batch_size={self.batch_size})"

    def _in_order(self, name: Split) -> Batches:
        rows = self.split(name)
        return self._loader(rows, GlobalBatches(len(rows), self.eval_batch_size, shuffle=False))  # type: ignore[arg-type]

    def _loader(self, rows: Dataset[Batch], sampler: GlobalBatches) -> Batches:
        if self.trainer is not None and self.trainer.world_size > 1:
            connector = self.trainer._accelerator_connector
            if connector.use_distributed_sampler:
                raise UserError(
                    "global batches are dealt to the devices already: set Trainer(use_distributed_sampler=False)"
                )
        strategy = None if self.trainer is None else self.trainer.strategy
        on_gpu = strategy is not None and strategy.root_device.type == "cuda"
        return Batches(
            rows,
            sampler,
            self.num_workers,
            pin_memory=on_gpu,
            timeout=getattr(strategy, "worker_timeout", 600.0),
        )

    # The position in the stream is the data module's state, not the loader's, which Lightning
    # forgets when a schedule has asked for the number of steps. It comes from the trainer's
    # progress: with workers the sampler runs ahead of what was trained.
    def state_dict(self) -> dict[str, int]:
        """Returns the position in the stream of training batches; the end of an epoch, however early, is the next one's start."""
        assert self.trainer is not None
        epochs = cast(Any, self.trainer.fit_loop.epoch_progress.current)
        over = epochs.processed > epochs.completed
        step = 0 if over else self.trainer.fit_loop.epoch_loop.batch_progress.current.ready
        return {"epoch": epochs.processed, "step": step}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Continues training from a saved position; an evaluation of the checkpoint starts at the first row."""
        if self.trainer is not None and self.trainer.state.fn == TrainerFn.FITTING:
            self._restored = self.trainer, state_dict
            self._move_stream()

    def _move_stream(self) -> None:
        """Lets the stream begin at the restored position.

        Lightning may ask for the loader before it restores the position or after it, and several
        times before the first
        batch: a schedule that wants the number of steps asks, too. Another trainer begins at the
        first row.
        """
        if self._stream is None or self._restored is None:
            return
        trainer, position = self._restored
        if trainer is self.trainer:
            self._stream.resume(**position)


def standard_split(rows: int, seed: int, val: float = 0.2, test: float = 0.2) -> dict[str, Tensor]:
    """Cuts 0 ... rows - 1 at random: {split: row numbers in order}."""
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(seed))
    n_test, n_val = round(rows * test), round(rows * val)
    parts = order.split([n_test, n_val, rows - n_test - n_val])
    return {
        name: part.sort().values for name, part in zip(("test", "val", "train"), parts, strict=True)
    }
