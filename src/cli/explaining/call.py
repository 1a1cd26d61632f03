"""A call of ``python -m src.explain``: its flags, and what they ask for."""

from dataclasses import dataclass
from typing import Any, cast, get_args

from src.analysis.explanations.methods import METHODS, Method
from src.analysis.explanations.outputs import Choice
from src.cli.flags import Flag
from src.data import Split
from src.errors import UserError, suggest_or_list

OWN = (
    Flag("task", str | None, None, "The task that is explained; else each that can be."),
    Flag(
        "method",
        str,
        "IntegratedGradients",
        f"One of {', '.join(METHODS)}; counterfactuals are out of scope.",
    ),
    Flag("rows", int, 500, "Rows that are explained, spread evenly over the split."),
    Flag("split", str, "test", "train, val or test: where the rows come from."),
    Flag(
        "baseline",
        str | None,
        None,
        "mean (the default): training means, commonest words; zero: 0 as the network reads "
        "numbers, such as black pixels. Of texts: no word at each token. GradientShap draws "
        "training rows.",
    ),
    Flag("classes", str, "predicted", "Of several classes, explain the one predicted, or each."),
    Flag("steps", int, 50, "Points on the way from the baseline, for methods with gradients."),
    Flag("sharing", bool, False, "Show how the tasks share, in place of attributions."),
    Flag("out", str | None, None, "A folder for the results in place of explain/ in the run."),
)


@dataclass(frozen=True)
class ExplainCall:
    """The settings of a call of the command.

    Attributes:
        task: The task; None for all that can be explained.
        method: The method.
        rows: The number of rows.
        split: Their split.
        baseline: mean or zero.
        classes: Whether the class predicted is explained, or each.
        steps: Points on the path of a row.
        seed: Seed of what is drawn.
    """

    task: str | None
    method: Method
    rows: int
    split: Split
    baseline: str
    classes: Choice
    steps: int
    seed: int


def check_settings(config: Any) -> ExplainCall:
    """Checks the command's own flags.

    Raises:
        UserError: One of them is wrong.
    """
    allowed = {
        "method": METHODS,
        "split": ("train", "val", "test"),
        "baseline": (None, "mean", "zero"),
        "classes": get_args(Choice),
    }
    for key, known in allowed.items():
        if config[key] not in known:
            words = [word for word in known if word is not None]
            raise UserError(f"--{key} is '{config[key]}'; {suggest_or_list(config[key], words)}")
    for key, least in (("rows", 2), ("steps", 2)):
        if config[key] < least:
            raise UserError(f"--{key} is {config[key]}; it must be at least {least}")
    if config["method"] == "GradientShap" and config["baseline"] is not None:
        raise UserError("--baseline has no effect with GradientShap, which draws training rows")
    return ExplainCall(
        config["task"],
        config["method"],
        config["rows"],
        cast(Split, config["split"]),
        config["baseline"] or "mean",
        config["classes"],
        config["steps"],
        config["seed_everything"],
    )
