"""The results of a run: which weights count, what they score, and why the training has ended."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from math import nan
from typing import Any

from lightning.fabric.utilities.rank_zero import rank_zero_only
from rich.console import Console

from src.analysis.reference_tasks import find_worse
from src.analysis.references import METHODS, Constant
from src.checkpoint import load_checkpoint
from src.cli.app import CLI
from src.cli.forgetting import BEFORE, describe_change
from src.cli.reference_rows import (
    Measured,
    find_limit,
    has_rows_in_memory,
    measure_references,
)
from src.cli.resuming import count_steps
from src.cli.terminal import remark
from src.errors import UserError, attempt, in_one_line
from src.monitoring import (
    Selection,
    describe_weights,
    explain_end,
    log_results,
    say,
    tabulate_results,
)
from src.monitoring.selection import ALL
from src.run import Run


@dataclass
class Trained:
    """The checkpoints that a training has left in the run folder.

    Attributes:
        best: The best checkpoint; None where there was no validation.
        last: The last checkpoint, if it holds the weights of the end.
        was_done: Whether a resumed run has trained no further than when its results were taken.
    """

    best: str | None = None
    last: str | None = None
    was_done: bool = False


class Results:
    """The results of a run.

    Args:
        cli: Data, model and trainer.
        run: The run folder; None for a run that keeps nothing.
    """

    def __init__(self, cli: CLI, run: Run | None) -> None:
        self.cli = cli
        self.run = run

    def look(self, before: int | None) -> Trained:
        """Looks at what the training has left in the run folder.

        Args:
            before: Optimizer steps that a resumed run had taken.

        Raises:
            UserError: The best checkpoint is gone.
        """
        run = self.run
        if run is None:
            return Trained()
        if run.has_lost_best():
            raise UserError(
                f"{run.best} is gone, which held the weights of the best validation: nothing is "
                "tested in their place"
            )
        steps = count_steps(run)
        results = run.read_results()
        wanted = "validation" if self.cli.config["no_test"] else "test"
        has_results = bool(results and results.get(wanted))
        return Trained(
            best=str(run.best) if run.best.exists() else None,
            last=str(run.last) if steps == self.cli.trainer.global_step else None,
            was_done=before is not None and steps == before and has_results,
        )

    @rank_zero_only
    def report(
        self,
        best: str | None,
        test: dict[str, float] | None,
        lines: list[str],
        before: dict[str, Any] | None = None,
    ) -> None:
        """Prints validation and test side by side, and writes them down.

        Args:
            best: The best checkpoint.
            test: Metrics of the test; None where it is left out.
            lines: What the test has shown besides.
            before: Results of the network that the run has started from.
        """
        trainer = self.cli.trainer
        tasks = self.cli.model.tasks
        kept: dict[str, Any] = {"metrics": {}, "global_step": trainer.global_step}
        if best:
            kept = load_checkpoint(best, mmap=True, whole=False)

        epochs = {}
        results: dict[str, Any] = {"validation": kept["metrics"]}
        if test is not None:
            results["test"] = test
        if before is not None:
            results["references"] = {BEFORE: before}
            lines = [*lines, *describe_change(tasks, join_stages(before), join_stages(results))]
        if self.run:
            log_results(trainer, tasks, kept["metrics"], test or {}, step=kept["global_step"])
            # last of all: where it stands nothing is tested again
            self.run.write(self.run.metrics, results)
            selection = self.read_selection()
            patience = self.cli.config_init["watch"].patience_by_task
            whole = patience is not None and self.cli.model.own_weights() is None
            ended = (
                f"training ended after epoch {trainer.current_epoch} (step {trainer.global_step}): "
                f"{self.say_why_ended()}"
            )
            lines = [
                ended,
                *describe_weights(trainer, selection, best is not None, whole),
                *lines,
            ]
            if best and ALL not in selection["best"]:
                for name in tasks:
                    at = selection["best"].get(name)
                    # a task that no validation has judged goes with the latest weights
                    epochs[name] = at["epoch"] if at else kept["epoch"] + 1
            say("\n".join(lines))
            self.compare(results)
        self.show(results, epochs)

    def show(self, results: Mapping[str, Any], epochs: Mapping[str, int]) -> None:
        """Prints a table of results, and of the references among them.

        Args:
            results: As in metrics.json.
            epochs: {task: epoch of its weights}, where tasks have epochs of their own.
        """
        shown = join_stages(results)
        # neither with --trainer.limit_val_batches 0 and --trainer.limit_test_batches 0
        stages = [stage for stage in ("val", "test") if f"{stage}/score" in shown]
        if not stages:
            return
        beside = {}
        for name, found in results.get("references", {}).items():
            beside[name] = join_stages(found)
        tasks = self.cli.model.tasks
        table = tabulate_results(tasks, shown, *stages, epochs=epochs, references=beside)
        Console().print(table, crop=False)

    # -- references --------------------------------------------------------------------------------
    def compare(self, results: dict[str, Any]) -> None:
        """Adds the references that were asked for, and says where a constant would do as well.

        Args:
            results: The metrics of the run; those of references are added, in the run folder, too.
        """
        assert self.run is not None
        cli = self.cli
        names = list_references(cli)
        data = cli.datamodule
        measure = partial(
            measure_references,
            data=data,
            seed=cli.config["seed_everything"],
            test="test" in results,
            score_weights=cli.model.score_weights,
        )
        if names:
            measured = measure([METHODS[name] for name in names])
            results["references"] = results.get("references", {}) | measured.results
            self.run.write(self.run.metrics, results)
            if measured.lines:
                say("\n".join(measured.lines))

        # a constant costs no more than a validation, and needs no package
        references = results.get("references", {})
        if "constant" not in references:
            if find_limit(cli.config_init["trainer"]) is not None or not has_rows_in_memory(data):
                return
            found: list[Measured] = []
            error = attempt(lambda: found.append(measure([Constant])), Exception)
            if error is not None:
                # a kind of task of somebody's own must not end a run that is done
                remark(f"there is no constant to compare with: {in_one_line(error)}")
                return
            references = found[0].results
        constant = join_stages(references["constant"])
        worse = find_worse(cli.model.tasks, join_stages(results), constant)
        if worse:
            say(f"no better than the best constant: {'; '.join(worse)}")

    @rank_zero_only
    def add_references(self) -> None:
        """Adds references to the results of a run that is done, where it lacks some."""
        assert self.run is not None
        results: dict[str, Any] = {**(self.run.read_results() or {})}
        if set(list_references(self.cli)) <= set(results.get("references", {})):
            return
        self.compare(results)
        self.show(results, {})

    def read_selection(self) -> dict[str, Any]:
        """Returns the state of the selection of the best weights.

        It is that of the last checkpoint, since another process may have trained.
        """
        if self.run and self.run.last.exists():
            callbacks = load_checkpoint(self.run.last, mmap=True, whole=False)["callbacks"]
            if Selection.state_key in callbacks:
                return callbacks[Selection.state_key]
        callbacks = self.cli.trainer.callbacks  # type: ignore[attr-defined]
        return next(c for c in callbacks if isinstance(c, Selection)).state_dict()

    def say_why_ended(self) -> str:
        """Returns what has ended the training."""
        return explain_end(self.cli.trainer, self.cli.config_init["watch"], self.read_selection())


def list_references(cli: CLI) -> list[str]:
    """Returns the names of the references that stand beside the network."""
    asked = cli.config["reference"]
    if asked is None:
        return []
    return [asked] if isinstance(asked, str) else list(asked)


def join_stages(results: Mapping[str, Any]) -> dict[str, float]:
    """Returns {stage/task/metric: value} of validation and test; NaN where one is not defined."""
    joined = {**results["validation"], **results.get("test", {})}
    return {key: nan if value is None else value for key, value in joined.items()}
