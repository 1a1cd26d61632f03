"""The LightningModule: hooks of a few lines, which call the step, the evaluation or a check."""

import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal

from torch import Tensor
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from src.balancing import Balancer, StaticWeights
from src.batch import Batch, InputShape
from src.checkpoint import choose_weights
from src.models.encoders import MLP, Encoder
from src.models.evaluation import Evaluation
from src.models.fairness import Fairness
from src.models.feature_selection import Selection, StepSizes
from src.models.meta import Meta
from src.models.network import MultiTaskNetwork
from src.models.optimisation import (
    AT_VALIDATION,
    EvaluationWeights,
    WarmupCosine,
    choose_training_weights,
    optimizer_and_schedule,
    parameter_groups,
    show_scores,
    try_settings,
)
from src.models.padding import hide_padding
from src.models.settings import check_network, check_same_tasks, check_settings, fixed_weights
from src.models.sharing import EncoderFactory, HardSharing, Sharing
from src.models.step import TrainingStep
from src.models.stopped import drop_gradients
from src.models.transfer.retention import Retention
from src.tasks import Task

# sums over all ranks are taken before anything is logged at the end of an epoch
warnings.filterwarnings("ignore", message=".*sync_dist=True.*")


class MultiTaskModel(MultiTaskNetwork):
    """A shared encoder, one head per task, and a balancer.

    Args:
        tasks: {name: task}, as the data module declares them.
        input_shape: What one sample looks like, as the data module says.
        encoder: Makes an encoder from the input shape.
        sharing: Makes the sharing architecture from an encoder factory and the task names.
        balancer: Makes the balancer from {task: likelihood of its loss}.
        optimizer: Makes the optimizer from parameter groups; any torch optimizer.
        scheduler: Makes the learning-rate schedule from the optimizer; any torch scheduler, or None
            for a constant rate.
        scheduler_interval: When the schedule moves; None: what the class says, else every epoch.
        lr_multipliers: {'encoder', 'balancer' or a task's name: factor on the learning rate of
            those parameters}.
        stage_decay: Factor on the learning rate from each of the encoder's stages to the one below
            it, for fine-tuning.
        checkpoint_activations: Keep of each stage its inputs alone, and compute it once more in the
            backward pass: less memory.
        weights: {task: fixed weight}, in place of what the task says.
        select: Makes what learns which inputs each task needs, such as StochasticGates; None for
            none.
        meta: Learns from episodes of a few rows each, as the data Episodes gives them: MAML, ANIL,
            Reptile or Prototypes; None learns from rows.
        fairness: What training does for groups of people, whose columns data.sensitive names:
            GroupDRO, Reweighting, DemographicParity, EqualizedOdds, or GroupObjectives, which gives
            the balancer an objective for each task and group; None does nothing.
        groups: The names of the groups, as the data say.
        seed: Seed of the initial weights and of dropout; the command line links it to
            --seed_everything.
    """

    def __init__(
        self,
        tasks: dict[str, Task],
        input_shape: InputShape,
        encoder: Callable[[InputShape], Encoder] = MLP,
        sharing: Callable[[EncoderFactory, Sequence[str]], Sharing] = HardSharing,
        balancer: Callable[[Mapping[str, str]], Balancer] = StaticWeights,
        optimizer: Callable[[Iterable[Any]], Optimizer] = AdamW,
        scheduler: Callable[[Optimizer], LRScheduler | ReduceLROnPlateau] | None = WarmupCosine,
        scheduler_interval: Literal["step", "epoch"] | None = None,
        lr_multipliers: dict[str, float] | None = None,
        stage_decay: float = 1.0,
        checkpoint_activations: bool = False,
        weights: dict[str, float] | None = None,
        select: Callable[[Sharing, InputShape], Selection] | None = None,
        meta: Callable[[Mapping[str, Task]], Meta] | None = None,
        fairness: Callable[[Mapping[str, Task], Sequence[str]], Fairness] | None = None,
        groups: Sequence[str] = (),
        seed: int = 0,
    ) -> None:
        multipliers = lr_multipliers or {}
        check_settings(tasks, multipliers, stage_decay)
        grouping = try_settings(optimizer, scheduler, multipliers, stage_decay, tasks)
        super().__init__(
            tasks,
            input_shape,
            encoder,
            sharing,
            balancer,
            select,
            checkpoint_activations,
            seed,
            meta,
            fairness,
            groups,
        )
        self.lr_multipliers = multipliers
        self.stage_decay = stage_decay
        self.scheduler_interval = scheduler_interval
        self.weights = fixed_weights(tasks, weights or {})
        self.make_optimizer = optimizer
        self.make_scheduler = scheduler
        self.grouping = grouping
        self.evaluation_weights = EvaluationWeights()
        # of the Trainer; empty before there is one
        self.stage = ""

        # what keeps a run that starts from another from forgetting
        self.retention: Retention | None = None
        # tasks that train no longer
        self.stopped: tuple[str, ...] = ()
        # the optimizer step whose weights are taken of a checkpoint that holds several sets
        self.step_of_weights: int | None = None

    # -- training ----------------------------------------------------------------------------------
    def configure_model(self) -> None:
        """Builds the network and its step once, from the seed alone."""
        if hasattr(self, "step"):
            return
        super().configure_model()
        self.step = TrainingStep(self)

    def forward(self, inputs: Tensor | dict[str, Tensor]) -> dict[str, Tensor]:
        """Returns {task: outputs (B, ..., O)}: logits, or standardised numbers.

        ``Task.decode`` makes them readable. In evaluation they are calibrated, where the run is.
        """
        self.configure_model()
        features = self.runner.features(self, inputs)
        return self.heads.split(self.calibrate_outputs(self.runner.outputs(self, features)))

    def run(self, batch: Batch) -> list[Tensor]:
        """Returns the outputs of each group of heads, (B, ..., K, O), for the rows of a batch.

        With ``meta``, an episode's query rows are predicted from its support rows.
        """
        if self.meta is not None:
            return self.meta.run(self, batch)
        features = self.runner.features(self, batch.inputs)
        return self.calibrate_outputs(self.runner.outputs(self, features))

    def check(self, micro_batches: int) -> None:
        """Builds the network, and checks what can be known before it trains.

        Args:
            micro_batches: The number of batches per optimizer step.

        Raises:
            UserError: The settings cannot train, see ``check_network``.
        """
        self.configure_model()
        check_network(self, micro_batches)

    def setup(self, stage: str) -> None:
        """Notes what the Trainer is about to do, before it loads a checkpoint."""
        self.stage = stage

    def on_fit_start(self) -> None:
        """Prepares the step, and checks the settings against the Trainer's."""
        self.check(self.trainer.accumulate_grad_batches)
        self.freezing.check(self.trainer)
        self.step.start()
        if self.retention is not None:
            self.retention.prepare(self)
        if self.fairness is not None:
            self.fairness.prepare(self)

    def on_train_start(self) -> None:
        """Begins with the weights that train."""
        self.evaluation_weights.start(self.trainer)

    def on_train_end(self) -> None:
        """Ends with the weights that count."""
        self.evaluation_weights.put_in(self.trainer)
        if self.selection is not None:
            with self.runner.gather_weights(self.sharing):
                self.selection.finish()

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Lets a teacher see the batch, and makes the step's randomness one of (seed, step)."""
        self.freezing.enter(self, self.current_epoch)
        if self.retention is not None:
            self.retention.teach(batch)
        if self.fairness is not None:
            self.fairness.weigh_rows(batch)
        self.step.seed_randomness(batch)
        if self.selection is not None:
            batches = self.trainer.num_training_batches
            progress = self.current_epoch + batch_idx / batches
            self.selection.begin_step(progress, self.runner.shards)

    def retain(self, retention: Retention) -> None:
        """Keeps from now on what the run started from, see ``Retention``."""
        self.retention = retention
        if retention.anchor is not None:
            self.penalties.append(retention.anchor.penalty)

    def stop_tasks(self, names: Collection[str]) -> None:
        """Trains these tasks no longer: their heads stay, and their losses do not count."""
        self.stopped = tuple(names)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Returns the scalar that the step minimises, see ``TrainingStep``."""
        return self.step(batch, batch_idx)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Keeps the heads of stopped tasks as they are."""
        drop_gradients(self.heads[name] for name in self.stopped)

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None
    ) -> None:
        """Steps; a balancer that asks for it then sees the losses of the same batch once more."""
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        if self.selection is not None:
            self.selection.finish_step(StepSizes(optimizer, self.runner.shards))
        self.step.finish()

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clips gradients, in the runner's way where parameters are spread over processes."""
        clip = self.runner.clip_gradients
        if clip is None or not gradient_clip_val:
            super().configure_gradient_clipping(
                optimizer, gradient_clip_val, gradient_clip_algorithm
            )
            return
        parameters = (p for group in optimizer.param_groups for p in group["params"])
        clip(parameters, gradient_clip_val, gradient_clip_algorithm)

    def on_train_epoch_end(self) -> None:
        """Tells the sharing architecture and the balancer."""
        self.sharing.on_epoch_end()
        self.balancer.on_epoch_end()

    def task_gramian(self, batch: Batch) -> Tensor:
        """Returns the inner products (T, T) of the tasks' gradients over the global batch."""
        return self.step.task_gramian(batch)

    # -- evaluation --------------------------------------------------------------------------------
    @property
    def scores(self) -> dict[str, float]:
        """{task: score} of the latest evaluation; NaN where no label defines it."""
        return self.evaluation.scores if self.evaluation is not None else {}

    def on_validation_start(self) -> None:
        """Puts the weights that count in place, where these are not the ones that train."""
        self.evaluation_weights.put_in(self.trainer)

    def on_validation_end(self) -> None:
        """Puts the weights that train back, once callbacks have saved the others."""
        self.evaluation_weights.take_out(self.trainer)

    def on_validation_epoch_start(self) -> None:
        """Begins an evaluation."""
        self.evaluation = Evaluation(self)

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Returns {task: outputs}."""
        assert self.evaluation is not None
        return self.evaluation.add(batch)

    def on_validation_epoch_end(self) -> None:
        """Logs val/<task>/loss, val/<task>/<metric> and val/score, a mean of the tasks' scores.

        Thresholds of tasks are chosen here, from the rows of all ranks; accuracy and F1 are taken
        at those thresholds, and flattered by the choice. Plateau schedules see the scores.
        """
        assert self.evaluation is not None
        checking = self.trainer.sanity_checking
        values = self.evaluation.finish("val", choose=not checking)

        if self.selection is not None:
            with self.runner.gather_weights(self.sharing):
                values |= self.selection.measure_tasks()

        # Lightning draws them at 'step': beside the losses of the same weights
        self.log_dict({**values, "step": self.trainer.global_step}, rank_zero_only=False)
        if not checking:
            show_scores(self.trainer, self.scores, values["val/score"])

    def on_test_epoch_start(self) -> None:
        """Begins an evaluation."""
        self.evaluation = Evaluation(self)

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Returns {task: outputs}."""
        assert self.evaluation is not None
        return self.evaluation.add(batch)

    def on_test_epoch_end(self) -> None:
        """Logs test/<task>/..., at the thresholds of the latest validation or of the checkpoint."""
        assert self.evaluation is not None
        self.log_dict(self.evaluation.finish("test"), rank_zero_only=False)

    def predict_step(self, batch: Batch, batch_idx: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the row numbers (B,) and {task: outputs}, NaN at the padding of sequences."""
        outputs = hide_padding(self.heads.split(self.run(batch)), batch.inputs)
        if self.meta is None:
            return batch.ids, outputs
        queries = ~batch.extras["support"]
        return batch.ids[queries], {name: output[queries] for name, output in outputs.items()}

    # -- optimisation ------------------------------------------------------------------------------
    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """Returns the optimizer's groups by name, for a learning rate."""
        found = self.freezing.drop_frozen(self, parameter_groups(self, lr, self.grouping))
        return found if self.meta is None else [*found, *self.meta.parameter_groups(lr)]

    def configure_optimizers(self) -> Any:
        """Builds the optimizer on named groups, and the schedule."""
        return optimizer_and_schedule(self)

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Moves the schedule; one that waits for a plateau moves when a validation ends."""
        if not isinstance(scheduler, AT_VALIDATION):
            super().lr_scheduler_step(scheduler, metric)

    # -- checkpoints -------------------------------------------------------------------------------
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what identifies the tasks, and the latest validation metrics."""
        metrics = self.trainer.callback_metrics
        latest = {key: float(value) for key, value in metrics.items() if key.startswith("val/")}
        described = {name: task.describe() for name, task in self.chosen_tasks.items()}

        # of a task whose best epoch came earlier, a callback has put in the values of that epoch
        checkpoint["metrics"] = latest | checkpoint.get("metrics", {})
        checkpoint["tasks"] = described | checkpoint.get("tasks", {})
        names = (name for name, _ in self.named_parameters())
        if self.finetune.lora is not None:
            checkpoint["lora"] = asdict(self.finetune.lora)
        self.evaluation_weights.add_to(checkpoint, self.trainer, names)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes over the thresholds that validation chose; refuses a checkpoint of other tasks.

        Of several sets of weights the one of ``step_of_weights`` is loaded.
        """
        theirs = checkpoint.get("tasks", {})
        check_same_tasks(theirs, self.tasks)
        self.restored_tasks = {
            name: task.restore_choice(theirs[name]) for name, task in self.tasks.items()
        }
        self.calibrate(self.calibration)
        if self.step_of_weights is not None:
            checkpoint["state_dict"] = choose_weights(checkpoint, self.step_of_weights)
        if self.stage == "fit":
            choose_training_weights(checkpoint)
