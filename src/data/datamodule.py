"""The base of all data modules: splits, loaders, and the stream of global batches."""

import warnings
from abc import ABC, abstractmethod
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar, cast

import lightning as L
import torch
from lightning.pytorch.trainer.states import TrainerFn

from src.batch import Batch, InputShape
from src.data.audit.finding import Finding
from src.data.audit.rows_audit import audit_rows
from src.data.dependent_labels import resolve_rows
from src.data.rows import BatchDataset, Rows, Split, standard_split
from src.data.stream import Batches, GlobalBatches
from src.errors import UserError
from src.tasks import Task

if TYPE_CHECKING:
    from src.data.tables.row_reader import RowReader

__all__ = ["MultiTaskDataModule", "Rows", "Split", "standard_split"]

# the state of the data module, not of the loader, resumes the stream exactly
warnings.filterwarnings("ignore", message=".*your dataloader is not resumable.*")

MOST_WORKERS = 256  # more of them can only be a slip
WORKER_TIMEOUT = 600.0  # seconds, where the strategy does not say


class MultiTaskDataModule(L.LightningDataModule, ABC):
    """A data module for several tasks: a subclass declares its tasks and provides its splits.

    Args:
        batch_size: Rows per step over all devices together, so that a run does not depend on the
            number of devices.
        eval_batch_size: Rows per validation, test or prediction step, over all devices.
        num_workers: Processes that prepare batches; 0 is fastest for data in memory. A run ends if
            it waits for a batch of theirs for 600 s, or for 0.9 times the strategy's timeout.
        seed: Seed of the order of training batches; the command line sets it to --seed_everything.

    Attributes:
        can_fold: Whether the class has ``folds``, a number of folds, and ``fold``, the one that
            tests, from 0, among its settings.
        test_split: The split that ``test`` evaluates.
        predict_split: The split that ``predict`` predicts.
        new_rows: Whether a command that opens a run says that the file holds other rows. Only
            tables read this and the next attribute.
        allow_missing: Whether a command that opens a run allows input columns to be missing.
        remarks: What was noticed while rows were read, one line each.
    """

    can_fold: ClassVar[bool] = False

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
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.test_split: Split = "test"
        self.predict_split: Split = "predict"
        self.new_rows = False
        self.allow_missing = False
        self.remarks: list[str] = []

        # the stream of training batches, and the position in it that a trainer has restored
        self._stream: GlobalBatches | None = None
        self._restored: tuple[L.Trainer, dict[str, int]] | None = None
        self._lookahead: dict[Split, tuple[BatchDataset, GlobalBatches]] = {}

    # -- what a subclass provides ------------------------------------------------------------------
    @property
    @abstractmethod
    def tasks(self) -> dict[str, Task]:
        """The tasks with their label spaces.

        It may read the data: it is asked for before the model is built.
        """

    @property
    @abstractmethod
    def input_shape(self) -> InputShape:
        """The shape of one sample."""

    @abstractmethod
    def split(self, name: Split) -> BatchDataset:
        """Returns a split."""

    # -- what a subclass may provide ---------------------------------------------------------------
    def schema(self) -> dict[str, Any] | None:
        """Returns what reading new rows takes to know of the training data, as plain values.

        None means that it takes nothing.
        """
        return None

    def start_from(self, schema: str, source: str, of: str | None = None) -> None:
        """Reads data as the run did that the model starts from, before anything is read.

        A subclass that learns from its training rows how to read inputs or labels, such as a mean
        or a vocabulary, takes it over for the inputs and tasks that the run has, too.

        Args:
            schema: The schema.json of the run.
            source: The run, for messages.
            of: The one whose schema is taken, of a run on several sources; None where there is
                one, or where it is for the subclass to choose.

        Raises:
            UserError: The schema is damaged, or of other data.
        """

    def column_words(self, split: Split, column: str) -> list[str | None]:
        """Returns a column of the rows of a split as words, in their order; None where missing.

        The column need be no input: people's groups are read so.

        Raises:
            UserError: The data have no such column.
        """
        raise UserError(
            f"{type(self).__name__} has no columns to tell groups of rows by; a table has"
        )

    @property
    def sensitive_groups(self) -> tuple[str, ...]:
        """The names of the groups of people that training compares; mostly none.

        Where there are some, the extra ``SENSITIVE`` of a batch has the number of each row's group.
        """
        return ()

    def row_reader(self) -> "RowReader":
        """Returns what reads rows that are given in memory.

        Raises:
            UserError: The data have no such rows, or none without files beside them.
        """
        raise UserError(
            f"{type(self).__name__} reads no rows that are given in memory; a table does"
        )

    @property
    def is_new(self) -> bool:
        """Whether the rows are others than those of the run whose schema is given."""
        return False

    def check_files(self, all_there: bool = True) -> None:
        """Checks that the data have not changed since the run of a schema was trained.

        Args:
            all_there: Whether each file must exist; otherwise one that nobody reads may be gone.

        Raises:
            UserError: They have.
        """

    def fingerprint(self) -> dict[str, Any] | None:
        """Returns what identifies the data in a run's record, such as files with their hashes."""
        return None

    def files(self) -> list[str]:
        """Returns the files that the data are read from, which no result may overwrite."""
        return []

    def notes(self) -> list[str]:
        """Returns what a person should know of how the data were read, one line each."""
        return [f"task {name}: {type(task).__name__}" for name, task in self.tasks.items()]

    def audit(self, thorough: bool = False) -> list[Finding]:
        """Returns what may make scores look better than they are, the weightiest first.

        Args:
            thorough: Whether to take seconds, and not only what a training can wait for.
        """
        if not thorough:
            return []
        sides: tuple[Split, ...] = ("train", "val", "test")
        return audit_rows(self.tasks, {side: self.split(side) for side in sides})

    def row_info(self, name: Split) -> dict[str, list[Any]]:
        """Returns the columns that identify the rows of a split in files of predictions.

        They are in the order of the rows: 'id' has their names, and 'split' their splits.
        """
        return getattr(self.split(name), "row_info", {})

    def truth(self, name: Split) -> dict[str, dict[str, list[Any]]]:
        """Returns the labels of a split as people write them, for files of predictions.

        Returns:
            {task: {suffix of the column's name: values}}.
        """
        rows = self.split(name)
        found: dict[str, dict[str, list[Any]]] = {task: {} for task in self.tasks}
        # not all rows at once: each may be an image with its labels
        for ids in torch.arange(len(rows)).split(self.eval_batch_size):
            for task, target in rows[ids].targets.items():
                for suffix, values in self.tasks[task].decode_targets(target).items():
                    found[task].setdefault(suffix, []).extend(values)
        return found

    def describe(self, name: Split) -> str:
        """Describes the rows of a split, for the line above its results."""
        return f"{len(self.split(name))} rows of the {name} split"

    def training_batches(self, rows: BatchDataset, shuffle: bool) -> GlobalBatches:
        """Returns the sampler that says which rows make up each training step.

        Args:
            rows: The training split.
            shuffle: Whether each epoch has an order of its own.
        """
        return GlobalBatches(len(rows), self.batch_size, shuffle, self.seed)

    def evaluation_batches(self, rows: BatchDataset) -> GlobalBatches:
        """Returns the sampler that says which rows make up each evaluation step, each row once."""
        return GlobalBatches(len(rows), self.eval_batch_size, shuffle=False)

    # -- loaders -----------------------------------------------------------------------------------
    def train_dataloader(self) -> Batches:
        """Returns the shuffled stream of global batches."""
        overfit = self.trainer is not None and bool(self.trainer.overfit_batches)  # type: ignore[attr-defined]
        rows = self.split("train")
        self._stream = self.training_batches(rows, shuffle=not overfit)
        self._move_stream()
        return self._loader(rows, self._stream)

    def val_dataloader(self) -> Batches:
        """Returns the validation rows in order."""
        return self._in_order("val")

    def test_dataloader(self) -> Batches:
        """Returns the rows of ``test_split`` in order."""
        return self._in_order(self.test_split)

    def predict_dataloader(self) -> Batches:
        """Returns the rows of ``predict_split`` in order."""
        return self._in_order(self.predict_split)

    def other_batch(self, name: Split, step: int) -> Batch:
        """Returns this rank's share of a further batch, for methods that look ahead.

        It is as large as a training batch, and a function of (seed, step).

        Args:
            name: The split that it comes from.
            step: The step of the optimizer.
        """
        if name not in self._lookahead:
            rows = resolve_rows(self.split(name), self.tasks)

            # another seed than that of training, whose batches would come again
            sampler = GlobalBatches(len(rows), self.batch_size, shuffle=True, seed=self.seed + 1)
            self._lookahead[name] = rows, sampler
        rows, sampler = self._lookahead[name]
        sampler.epoch, batch = divmod(step, len(sampler))
        return rows[next(islice(sampler, batch, None))]

    def transfer_batch_to_device(
        self, batch: Batch, device: torch.device, dataloader_idx: int
    ) -> Batch:
        """Moves a batch to the device of the model."""
        # on the CPU a batch is there already: not one call per tensor
        return batch if device.type == "cpu" else batch.to(device)

    def __str__(self) -> str:
        """Returns the class alone: Lightning's would read every split to count its rows."""
        return f"{type(self).__name__}(batch_size={self.batch_size})"

    def _in_order(self, name: Split) -> Batches:
        rows = self.split(name)
        return self._loader(rows, self.evaluation_batches(rows))

    def _loader(self, rows: BatchDataset, sampler: GlobalBatches) -> Batches:
        on_gpu = False
        timeout = WORKER_TIMEOUT
        if self.trainer is not None:
            if self.trainer.world_size > 1:
                refuse_second_sampler(self.trainer)
            strategy = self.trainer.strategy
            on_gpu = strategy.root_device.type == "cuda"
            timeout = getattr(strategy, "worker_timeout", WORKER_TIMEOUT)
        counted = resolve_rows(rows, self.tasks)
        return Batches(counted, sampler, self.num_workers, on_gpu, timeout)

    # -- resuming ----------------------------------------------------------------------------------
    # The position in the stream is the state of the data module. As the loader's state, Lightning
    # would lose it when a schedule asks for the number of steps. It comes from the progress of the
    # trainer, since with workers the sampler runs ahead of training.
    def state_dict(self) -> dict[str, int]:
        """Returns the position in the stream of training batches.

        The end of an epoch, however early, is the start of the next one.
        """
        assert self.trainer is not None
        epochs = cast(Any, self.trainer.fit_loop.epoch_progress.current)
        over = epochs.processed > epochs.completed
        step = 0 if over else self.trainer.fit_loop.epoch_loop.batch_progress.current.ready
        return {"epoch": epochs.processed, "step": step}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Continues training from a saved position; evaluation starts at the first row."""
        if self.trainer is not None and self.trainer.state.fn == TrainerFn.FITTING:
            self._restored = self.trainer, state_dict
            self._move_stream()

    def _move_stream(self) -> None:
        """Moves the stream to the restored position.

        Lightning asks for the loader before it restores the position or after it, and several times
        before the first batch if a schedule asks for the number of steps. Another trainer begins at
        the first row.
        """
        if self._stream is None or self._restored is None:
            return
        trainer, position = self._restored
        if trainer is self.trainer:
            self._stream.resume(**position)


def refuse_second_sampler(trainer: L.Trainer) -> None:
    """Checks that Lightning leaves the distribution of rows to the data module.

    Raises:
        UserError: It would deal the rows of each share to the devices once more.
    """
    if trainer._accelerator_connector.use_distributed_sampler:
        raise UserError(
            "the data module already deals global batches to the devices: "
            "set Trainer(use_distributed_sampler=False)"
        )
