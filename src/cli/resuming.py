"""Refuses flags that would make a resumed run another one, before anything is written."""

from collections.abc import Mapping
from typing import Any

from src.checkpoint import load_checkpoint
from src.cli.flags import Flags
from src.cli.layers import ConfigError
from src.errors import UserError
from src.monitoring import Watch
from src.run import Run

RATE = "model.optimizer.lr"
# where the files of the run are now; their content must be the same
PLACES = ("data.path", "data.val_path", "data.test_path", "data.root")
# sections that make a run what it is
OF_THE_RUN = ("data", "model", "seed_everything", "config", "name", "logs", "init_from")


def refuse_other_run(pairs: Flags) -> None:
    """Looks at the flags of a resumed run.

    Raises:
        ConfigError: One of them would make it another run.
    """
    for key, value in pairs:
        ends_schedule = key == "model.scheduler" and value in ("null", "~")
        if key == RATE or key in PLACES or ends_schedule:
            continue
        if key.split(".")[0] in OF_THE_RUN:
            but = ""
            if key.startswith("model."):
                but = "; of the model --lr RATE and --model.scheduler null alone can change"
            raise ConfigError(
                f"--{key} cannot go with --resume: a resumed run keeps its own; start a new run "
                f"instead{but}"
            )


def refuse_other_selection(run: Run, watch: Watch) -> None:
    """Looks at what selects the best weights of a resumed run.

    Raises:
        UserError: Validations to come could not be compared with the best so far.
    """
    kept = run.read_config().get("watch") or {}
    if watch.score != kept.get("score"):
        raise UserError(
            f"watch.score is {kept.get('score') or 'null'} in the run, and a resumed run keeps it: "
            "its best checkpoint was selected by that"
        )
    patience = kept.get("patience_by_task")
    if (watch.patience_by_task is None) != (patience is None):
        shown = "null" if patience is None else patience
        raise UserError(
            f"watch.patience_by_task is {shown} in the run: a resumed run may have another number, "
            "but goes on to select tasks as it began to"
        )


def refuse_too_short(run: Run, settings: Mapping[str, Any]) -> None:
    """Looks at the limits of a resumed run.

    Args:
        run: The run.
        settings: The Trainer's settings.

    Raises:
        UserError: The run is longer already, or is to be resumed in a mode that keeps nothing.
    """
    if settings["fast_dev_run"]:
        raise UserError(
            "--fast_dev_run cannot go with --resume: it keeps nothing, and the run would not go on"
        )
    if not run.last.exists():  # an earlier attempt has not come as far
        return
    checkpoint = load_checkpoint(run.last, mmap=True)
    if not checkpoint.get("optimizer_states"):
        raise UserError(
            f"run {run.path} has no training to go on with, as a merged run has none: start a new "
            f"run from it, --init_from {run.path}"
        )
    epochs = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]
    for key, done, word in (
        ("max_epochs", epochs, "epochs"),
        ("max_steps", checkpoint["global_step"], "steps"),
    ):
        if settings[key] is not None and -1 < settings[key] < done:
            raise UserError(
                f"trainer.{key} is {settings[key]}, but the run has trained {done} {word} already: "
                "ask for more"
            )


def refuse_standstill(run: Run) -> None:
    """Looks at the rate at which a run would go on without a schedule.

    Raises:
        UserError: It is 0.
    """
    if not run.last.exists():
        return
    checkpoint = load_checkpoint(run.last, mmap=True, whole=False)
    groups = checkpoint["optimizer_states"][0]["param_groups"]
    if not any(float(group["lr"]) for group in groups):
        raise UserError(
            "the learning rate had come down to 0, and without a schedule it stays there: add "
            "--lr RATE"
        )


def count_steps(run: Run) -> int | None:
    """Returns the optimizer steps of the last checkpoint; None where there is none."""
    if not run.last.exists():
        return None
    steps: int = load_checkpoint(run.last, mmap=True, whole=False)["global_step"]
    return steps
