"""The command line of ``python -m src.adapt``: its own flags, and those of data and model."""

from collections.abc import Mapping
from dataclasses import dataclass

from src.cli.flags import Flag, Flags, split_flags
from src.cli.layers import ConfigError
from src.cli.runs import TRUST, drop_flags
from src.cli.terminal import remark
from src.errors import suggest_or_list

# each method and what it does, in the order of tables
METHODS = {
    "probe": "a linear head on frozen features, its L2 penalty chosen on the examples",
    "head": "the head alone, by the run's optimizer and schedule",
    "anil": "the head alone, by a few steps of gradient descent, as ANIL's inner loop",
    "finetune": "all weights, from the run's",
    "scratch": "all weights, from a random start",
}
FROZEN = ("probe", "head", "anil")  # the encoder stays as it is
MOST_DRAWS = 1000
# settings of models for how several tasks are learnt together, or for how long
OF_TASKS = ("model.balancer", "model.meta", "trainer.max_epochs", "trainer.max_steps")

OWN = (
    Flag("run", str, None, "Run folder to start from."),
    Flag("checkpoint", str | None, None, "best or last; the best where there is one."),
    Flag("shots", str, "5,10,20,50", "Numbers of examples to learn from [5,10,20,50]."),
    Flag("draws", int, 10, "Random draws of the examples, the same for all methods [10]."),
    Flag("methods", str, ",".join(METHODS), f"Some of {', '.join(METHODS)} [all]."),
    Flag("method", str | None, None, "The method of the run folder [the best on validation rows]."),
    Flag("steps", int, 100, "Optimizer steps of head, finetune and scratch [100]."),
    Flag("task", str | None, None, "The task to learn, where the data have several new ones."),
    Flag("no_test", bool, False, "Leave the test rows out: scores are those of validation rows."),
    TRUST,
)


@dataclass(frozen=True)
class Call:
    """A command line of adapt.

    Attributes:
        run: The run to start from.
        checkpoint: best or last; None for the best where there is one.
        shots: The numbers k of examples, ascending.
        draws: Draws of the examples.
        methods: The methods, in the order of tables.
        method: The method of the run folder; None for the best.
        steps: Optimizer steps of methods that train.
        task: The task; None for the only new one.
        tests: Whether test rows are measured.
        words: The flags of data, model and trainer.
    """

    run: str
    checkpoint: str | None
    shots: list[int]
    draws: int
    methods: list[str]
    method: str | None
    steps: int
    task: str | None
    tests: bool
    words: list[str]


def read_call(args: list[str]) -> Call:
    """Reads the command line.

    Raises:
        ConfigError: A flag of the command's own has a value that it cannot have.
    """
    own = {flag.name for flag in OWN}
    given = take_own(split_flags(args), own)
    words = drop_flags(args, *own)
    run = given.get("run")
    if run is None:
        raise ConfigError(
            "--run is missing: name a run folder, such as logs/digits/2026-01-31_12-00-00"
        )
    refuse_others(split_flags(words))
    methods = read_methods(given.get("methods") or ",".join(METHODS))
    method = given.get("method")
    if method is not None and method not in METHODS:
        raise ConfigError(f"--method {method} is unknown; {suggest_or_list(method, METHODS)}")
    if method is not None and method not in methods:
        raise ConfigError(f"--method {method} is none of --methods {','.join(methods)}: add it")
    no_test = given.get("no_test", "false")
    if no_test not in ("true", "false"):
        raise ConfigError(f"--no_test is '{no_test}'; it must be true or false")
    return Call(
        run=run,
        checkpoint=given.get("checkpoint"),
        shots=read_shots(given.get("shots") or "5,10,20,50"),
        draws=read_number(given, "draws", 10, most=MOST_DRAWS),
        methods=methods,
        method=method,
        steps=read_number(given, "steps", 100),
        task=given.get("task"),
        tests=no_test == "false",
        words=words,
    )


def refuse_others(pairs: Flags) -> None:
    """Refuses flags of a training that an adaptation sets itself, and names those without effect.

    Raises:
        ConfigError: One says where weights come from.
    """
    ignored = []
    for key, _ in pairs:
        section = key.partition(".")[0]
        if section == "init_from":
            raise ConfigError(f"--{key} cannot go with adapt, which starts from the run of --run")
        if section in ("watch", "budget", "finetune") or key.startswith(OF_TASKS):
            ignored.append(f"--{key}")
    if ignored:
        remark(f"{', '.join(ignored)} has no effect here: adapt learns one task, by its own rules")


def take_own(pairs: Flags, own: set[str]) -> dict[str, str]:
    """Returns the command's own flags with their values.

    Raises:
        ConfigError: One has no value.
    """
    given: dict[str, str] = {}
    for key, value in pairs:
        if key in own:
            if value is None:
                raise ConfigError(f"--{key} needs a value")
            given[key] = str(value)
    return given


def read_number(given: Mapping[str, str], key: str, usual: int, most: int | None = None) -> int:
    """Returns a flag that is a whole number from 1.

    Raises:
        ConfigError: It is none, or too large.
    """
    text = given.get(key)
    if text is None:
        return usual
    if not text.isdecimal() or int(text) < 1 or (most is not None and int(text) > most):
        limits = "from 1" if most is None else f"from 1 to {most}"
        raise ConfigError(f"--{key} is '{text}'; it must be a whole number {limits}")
    return int(text)


def read_shots(text: str) -> list[int]:
    """Returns the numbers of examples, each once and in order.

    Raises:
        ConfigError: One is no whole number from 1, or there is none.
    """
    words = split_list(text)
    wrong = [word for word in words if not word.isdecimal() or int(word) < 1]
    if wrong or not words:
        raise ConfigError(
            f"--shots has '{wrong[0] if wrong else text}'; it is a list of whole numbers from 1, "
            "such as 5,10,20,50"
        )
    return sorted({int(word) for word in words})


def read_methods(text: str) -> list[str]:
    """Returns the methods, in the order of tables.

    Raises:
        ConfigError: One is unknown, or there is none.
    """
    names = split_list(text)
    for name in names:
        if name not in METHODS:
            hint = suggest_or_list(name, METHODS)
            raise ConfigError(f"--methods has '{name}', which is unknown; {hint}")
    if not names:
        raise ConfigError(f"--methods is empty; there are {', '.join(METHODS)}")
    return [name for name in METHODS if name in names]


def split_list(text: str) -> list[str]:
    """Returns the entries of a list, with brackets or without."""
    words = text.strip().removeprefix("[").removesuffix("]").split(",")
    return [word.strip() for word in words if word.strip()]
