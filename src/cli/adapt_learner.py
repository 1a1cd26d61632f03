"""A task learnt from few examples, by one of several methods, and measured on other rows.

probe       The encoder z = f(x) of the run stays as it is, in evaluation mode, and a linear head is
            fitted to the features of the examples in float64: ridge regression for squared errors,
            and the task's own loss with an L2 penalty for all others (logistic regression). The
            penalty is chosen by a cross-validation on the examples, see ``models/few_shot/probe``.
head        The encoder stays, and the head learns from a random start by the optimizer and the
            schedule of the run, in ``--steps`` steps.
anil        The encoder stays, and the head takes ANIL's inner loop: a few steps of plain gradient
            descent on all examples (Raghu et al., ICLR 2020). After a run that was meta-trained
            with MAML, ANIL or Reptile it begins at the meta-learnt head, where shapes agree, with
            that run's steps and rate; after any other run it is 10 steps from zeros at the largest
            rate that is safe, see ``models/few_shot/anil``.
finetune    All weights learn from those of the run, the head from a random start, by the optimizer
            and the schedule of the run, in ``--steps`` steps.
scratch     The same without the run's weights: each starts from the seed alone.

head, finetune and scratch of one draw have the same random head, and read batches of the run's
size, or all examples where they are fewer.
"""

import copy
import time
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cached_property
from math import isfinite
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from src.analysis.few_shot import Fit
from src.batch import Batch
from src.cli.adapt_call import FROZEN
from src.cli.app import CLI
from src.data import Rows, Split
from src.data.dependent_labels import resolve_rows
from src.data.examples import ExampleRows
from src.data.rows import BatchDataset
from src.data.stream import Batches, GlobalBatches
from src.models import MultiTaskModel
from src.models.few_shot.anil import InnerLoop, adapt_head
from src.models.few_shot.examples import Examples, sum_losses
from src.models.few_shot.features import FeatureRunner, FrozenRows, read_features
from src.models.few_shot.probe import can_probe, fit_probe
from src.overhead import NoProfiler
from src.rng import make_generator
from src.tasks.evaluation import TaskEvaluation
from src.tasks.head import Head

# outputs of the task, and the rows that they are of
Outputs = Iterator[tuple[Tensor, Examples]]


class SplitBatches:
    """The batches of a split in order, on a device."""

    def __init__(self, rows: BatchDataset, sampler: Iterable[Tensor], device: torch.device) -> None:
        self.rows = rows
        self.sampler = sampler
        self.device = device

    def __iter__(self) -> Iterator[Batch]:
        for ids in self.sampler:
            yield self.rows[ids].to(self.device)


class Learner:
    """Learns a task by one method after another.

    Args:
        cli: Data and Trainer.
        template: The model, not built.
        task: The task.
        steps: Optimizer steps of methods that train.
        tests: Whether test rows are measured.

    Attributes:
        inner: How ANIL's inner loop runs.
        groups: (N, G) The classes of each training row, so that folds have all of them.
    """

    def __init__(
        self,
        cli: CLI,
        template: MultiTaskModel,
        task: str,
        steps: int,
        tests: bool,
    ) -> None:
        self.cli = cli
        self.template = template
        self.name = task
        self.task = template.tasks[task]
        self.steps = steps
        self.inner = InnerLoop()
        self.groups = torch.zeros(0, 0, dtype=torch.bool)
        self.splits: tuple[Split, ...] = ("val", "test") if tests else ("val",)
        self.seed: int = cli.config["seed_everything"]
        self.device = cli.trainer.strategy.root_device
        self.metrics = self.task.assemble_metrics().to(self.device)
        self._rows: dict[Split, BatchDataset] = {}

    # -- rows --------------------------------------------------------------------------------------
    def rows(self, split: Split) -> BatchDataset:
        """Returns a split, with the labels that count."""
        if split not in self._rows:
            data = self.cli.datamodule
            self._rows[split] = resolve_rows(data.split(split), data.tasks)
        return self._rows[split]

    def batches(self, split: Split) -> SplitBatches:
        """Returns the batches of a split."""
        sampler = self.cli.datamodule.evaluation_batches(self.rows(split))
        return SplitBatches(self.rows(split), sampler, self.device)

    # -- models ------------------------------------------------------------------------------------
    def build(self, draw: int, starts: bool, freezes: bool = False) -> MultiTaskModel:
        """Builds a model; what is fresh in it is a function of (seed, draw).

        Args:
            draw: The draw of the examples.
            starts: Whether it starts from the run.
            freezes: Whether its heads alone train.
        """
        model = copy.deepcopy(self.template)
        drawn = torch.randint(2**31, (), generator=make_generator(self.seed, draw))
        model.seed = int(drawn)
        trained = replace(model.finetune, freeze=None, thaw_at=None, bias_only=False)
        model.finetune = replace(trained, freeze="sharing") if freezes else trained
        model.configure_model()
        if starts:
            assert self.cli.start is not None
            self.cli.start.fill(model, self.cli.datamodule)
        return model

    @cached_property
    def frozen(self) -> MultiTaskModel:
        """The model as the run leaves it, in evaluation mode."""
        return self.build(0, starts=True).to(self.device).eval()

    @cached_property
    def frozen_rows(self) -> dict[Split, FrozenRows]:
        """The rows that are measured, behind the frozen encoder."""
        return {
            split: FrozenRows(self.frozen, self.name, self.batches(split)) for split in self.splits
        }

    @property
    def can_probe(self) -> bool:
        """Whether the task's head is linear."""
        return can_probe(self.frozen.heads[self.name])

    # -- learning ----------------------------------------------------------------------------------
    def fit(self, method: str, ids: Tensor, draw: int) -> Fit:
        """Learns from examples by a method, and measures what was learnt.

        Args:
            method: The method.
            ids: (k,) The training rows that are the examples.
            draw: The draw that they are of.
        """
        began = time.monotonic()
        learnt, chosen = self.learn(method, ids, draw)
        measured = self.measure(learnt)
        fit: Fit = {
            "method": method,
            "shots": len(ids),
            "draw": draw,
            "val": measured["val"],
            "seconds": round(time.monotonic() - began, 3),
            "chosen": chosen,
        }
        if "test" in measured:
            fit["test"] = measured["test"]
        return fit

    def learn(self, method: str, ids: Tensor, draw: int) -> tuple[nn.Module, dict[str, float]]:
        """Returns a head on frozen features, or a whole model, and what the method has chosen."""
        if method in FROZEN:
            return self.learn_head(method, ids, draw)
        model = self.build(draw, starts=method == "finetune")
        self.train(model, ExampleRows(self.rows("train"), ids, self.name))
        return model, {}

    def learn_head(self, method: str, ids: Tensor, draw: int) -> tuple[Head, dict[str, float]]:
        """Returns a head on frozen features, and what the method has chosen."""
        batch = self.rows("train")[ids].to(self.device)
        examples = read_features(self.frozen, self.name, batch)
        if method == "head":
            model = self.build(draw, starts=True, freezes=True)
            model.runner = FeatureRunner()
            self.train(model, self.to_rows(examples))
            return model.heads[self.name], {}

        head = copy.deepcopy(self.frozen.heads[self.name])
        if method == "probe":
            penalty = fit_probe(self.task, head, examples, self.groups[ids], self.seed)
            return head, {"penalty": penalty}
        rate = adapt_head(self.task, head, examples, self.inner)
        return head, {"inner_steps": self.inner.steps, "inner_lr": rate}

    def to_rows(self, examples: Examples) -> Rows:
        """Returns examples as rows of a split, with no label of another task."""
        targets = {self.name: examples.targets.cpu()}
        first = self.rows("train")[torch.arange(1)].targets
        for name, target in first.items():
            if name != self.name:
                missing = target.new_full((len(examples), *target.shape[1:]), -100)
                is_float = target.is_floating_point()
                targets[name] = missing.fill_(torch.nan) if is_float else missing
        weights = {}
        if examples.weights is not None:
            weights[self.name] = examples.weights.cpu()
        return Rows(examples.features.cpu(), targets, weights=weights)

    def train(self, model: MultiTaskModel, rows: BatchDataset) -> None:
        """Trains a model as a run would, with the run's optimizer and schedule, in place."""
        data = self.cli.datamodule
        sampler = GlobalBatches(
            len(rows), min(data.batch_size, len(rows)), shuffle=True, seed=model.seed
        )
        trainer = L.Trainer(**self.trainer_settings())
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*have no `val_dataloader`.*")
            trainer.fit(model, train_dataloaders=Batches(rows, sampler))
        # of an optimizer that averages, the averages count
        model.evaluation_weights.put_in(trainer)
        model.to(self.device).eval()

    def trainer_settings(self) -> dict[str, Any]:
        """Returns the settings of a Trainer that only steps."""
        settings = self.cli.config_init["trainer"]
        kept = ("accelerator", "devices", "precision", "deterministic", "detect_anomaly")
        clipping = ("gradient_clip_val", "gradient_clip_algorithm")
        return {
            **{key: settings[key] for key in (*kept, *clipping)},
            "max_steps": self.steps,
            "max_epochs": -1,
            "limit_val_batches": 0,
            "num_sanity_val_steps": 0,
            "logger": False,
            "profiler": NoProfiler(),
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "use_distributed_sampler": False,
        }

    # -- measuring ---------------------------------------------------------------------------------
    def predict(self, learnt: nn.Module, split: Split) -> Outputs:
        """Yields the outputs of what was learnt for the rows of a split."""
        if isinstance(learnt, Head):
            for examples in self.frozen_rows[split]:
                outputs = learnt(examples.features)
                yield outputs, examples
            return
        for batch in self.batches(split):
            outputs = learnt(batch.inputs)[self.name].float()
            weights = batch.weights.get(self.name)
            yield outputs, Examples(outputs, batch.targets[self.name], weights)

    @torch.no_grad()
    def measure(self, learnt: nn.Module) -> dict[Split, dict[str, float | None]]:
        """Returns {split: {metric: value}}, with the score that selects models and the mean loss.

        As in every run, thresholds are chosen on validation rows.
        """
        found: dict[Split, dict[str, float | None]] = {}
        tasks = {self.name: self.task}
        chosen = dict(tasks)
        for split in self.splits:
            evaluation = TaskEvaluation(tasks, {self.name: self.metrics}, chosen)
            total = count = 0.0
            for outputs, examples in self.predict(learnt, split):
                loss, labels = sum_losses(self.task, outputs, examples)
                total += float(loss)
                count += float(labels)
                weights = {} if examples.weights is None else {self.name: examples.weights}
                evaluation.add({self.name: outputs}, {self.name: examples.targets}, weights)
            values = evaluation.finish(split, {self.name: (total, count)}, choose=split == "val")
            prefix = f"{split}/{self.name}/"
            metrics = {"score": evaluation.scores[self.name]}
            for key, value in values.items():
                if key.startswith(prefix):
                    metrics[key.removeprefix(prefix)] = value
            found[split] = {
                key: value if isfinite(value) else None for key, value in metrics.items()
            }
        return found
