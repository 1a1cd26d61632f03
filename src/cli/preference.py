"""How much each task counts: --preference of commands that run a trained network."""

from collections.abc import Mapping, Sequence
from math import inf

from src.cli.flags import Flag
from src.cli.terminal import remark
from src.errors import UserError, suggest_or_list
from src.models import MultiTaskModel

PREFERENCE = Flag(
    "preference",
    dict[str, float] | None,
    None,
    "How much each task counts, {task: a number}, where the network is one for all preferences.",
)


def set_preference(models: Sequence[MultiTaskModel], given: Mapping[str, float] | None) -> None:
    """Lets networks of the same tasks run by a preference, where one is given.

    Args:
        models: The models.
        given: {task: how much it counts}; a task that is not named does not count.

    Raises:
        UserError: A network takes no preference, or the preference is none of its tasks.
    """
    if given is None:
        return
    for model in models:
        refuse_no_front(model, "--preference")
    preference = read_preference(given, list(models[0].tasks))
    for model in models:
        model.sharing.prefer(preference)
        # a calibration is of the preference that the run was calibrated with
        model.calibrate({})


def refuse_no_front(model: MultiTaskModel, flag: str) -> None:
    """Refuses a flag where the network takes no preference.

    Raises:
        UserError: It takes none.
    """
    model.configure_model()
    if not model.sharing.takes_preference:
        raise UserError(
            f"{flag} goes with a run whose network is one for all preferences, which "
            f"{type(model.sharing).__name__} is not: train with --model.sharing PaLoRA"
        )


def read_preference(given: Mapping[str, float], tasks: list[str]) -> dict[str, float]:
    """Returns {task: how much it counts}, of sum 1, for all tasks.

    Args:
        given: {task: a number}; those of tasks that are not there are 0.
        tasks: The names of the tasks.

    Raises:
        UserError: A number is of no task, or below 0, or all are 0.
    """
    for name, value in given.items():
        if name not in tasks:
            raise UserError(
                f"--preference names '{name}', which is no task: {suggest_or_list(name, tasks)}"
            )
        if not 0 <= value < inf:
            raise UserError(
                f"--preference gives '{name}' {value}; it must be a finite number of at least 0"
            )
    total = sum(given.values())
    if not 0 < total < inf:
        raise UserError("--preference gives no task a share; one of them must be above 0")
    shares = {name: given.get(name, 0.0) / total for name in tasks}
    if abs(total - 1) > 1e-6:
        words = ", ".join(f"{name} {share:.4g}" for name, share in shares.items())
        remark(f"--preference sums to {total:.4g}, not to 1; it is taken as {words}")
    return shares
