"""The results of a run: which weights count, what they score, and why the training has ended."""

from dataclasses import dataclass
from typing import Any

from lightning.fabric.utilities.rank_zero import rank_zero_only
from rich.console import Console

from src.checkpoint import load_checkpoint
from src.cli.app import CLI
from src.cli.resuming import count_steps
from src.errors import UserError
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
    def report(self, best: str | None, test: dict[str, float] | None, lines: list[str]) -> None:
        """Prints validation and test side by side, and writes them down.

        Args:
            best: The best checkpoint.
            test: Metrics of the test; None where it is left out.
            lines: What the test has shown besides.
        """
        trainer = self.cli.trainer
        tasks = self.cli.model.tasks
        kept: dict[str, Any] = {"metrics": {}, "global_step": trainer.global_step}
        if best:
            kept = load_checkpoint(best, mmap=True, whole=False)

        epochs = {}
        if self.run:
            log_results(trainer, tasks, kept["metrics"], test or {}, step=kept["global_step"])
            results = {"validation": kept["metrics"]}
            if test is not None:
                results["test"] = test
            # last of all: where it stands nothing is tested again
            self.run.write(self.run.metrics, results)
            selection = self.read_selection()
            by_task = self.cli.config_init["watch"].patience_by_task is not None
            ended = (
                f"training ended after epoch {trainer.current_epoch} (step {trainer.global_step}): "
                f"{self.say_why_ended()}"
            )
            lines = [
                ended,
                *describe_weights(trainer, selection, best is not None, by_task),
                *lines,
            ]
            if best and ALL not in selection["best"]:
                for name in tasks:
                    at = selection["best"].get(name)
                    # a task that no validation has judged goes with the latest weights
                    epochs[name] = at["epoch"] if at else kept["epoch"] + 1
            say("\n".join(lines))

        # neither with --trainer.limit_val_batches 0 and --trainer.limit_test_batches 0
        shown = kept["metrics"] | (test or {})
        stages = [stage for stage in ("val", "test") if f"{stage}/score" in shown]
        if stages:
            Console().print(tabulate_results(tasks, shown, *stages, epochs=epochs), crop=False)

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
