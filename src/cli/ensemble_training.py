"""An ensemble that is trained by one command: members that differ in their seed, then their mean.

Each member is a process of its own, so that any architecture, balancer and strategy serves, and
members train side by side on cores or GPUs (deep ensembles, Lakshminarayanan et al., NeurIPS 2017).
"""

from pathlib import Path

from src.analysis.trials import Work
from src.cli.ensemble_run import make_ensemble
from src.cli.flags import spell_flag, split_flags
from src.cli.help import asks_for_help
from src.cli.layers import ConfigError
from src.cli.places import choose_executor
from src.cli.runs import drop_flags
from src.cli.seed_trials import SeedTrials
from src.cli.training import name_group
from src.cli.trial_keys import TrialKeys
from src.errors import UserError
from src.launch.job import name_job
from src.monitoring import say

MODULE = "src.train"
# flags of the whole, which each member has in another form, or not at all
OF_THE_WHOLE = ("ensemble", "parallel", "name", "logs", "seed_everything", "no_test")


def asks_for_ensemble(args: list[str]) -> bool:
    """Returns whether a command line of train asks for several members, and not for a page.

    Raises:
        ConfigError: It says how many train side by side, and there is one.
    """
    keys = [key for key, _ in split_flags(args)]
    if any(asks_for_help(key) or key == "print_config" for key in keys):
        return False
    if "parallel" in keys and "ensemble" not in keys:
        raise ConfigError("--parallel is of --ensemble: one run trains alone")
    return "ensemble" in keys


def train_ensemble(args: list[str]) -> dict[str, float]:
    """Trains members with seeds from --seed_everything on, and leaves an ensemble's run folder.

    Called again, it keeps the members that have finished. Members are not tested: the test rows
    are met once, by their mean.

    Args:
        args: The command line after the command.

    Returns:
        The value of each metric of the mean, and of validation alone with --no_test.

    Raises:
        UserError: A setting is wrong, or a member has failed.
    """
    pairs = split_flags(args)
    refuse_unfit({key for key, _ in pairs})
    words = drop_flags(args, *OF_THE_WHOLE)
    own = []
    for key, value in pairs:
        if key in OF_THE_WHOLE:
            own += spell_flag(key, value)

    # as a plan: whatever is wrong comes up before the first member
    keys = TrialKeys(words)
    cli = keys.check(own)
    config = cli.config
    count = config["ensemble"]
    if count < 2:
        raise UserError(f"--ensemble is {count}; a mean takes at least 2 members")
    if config["trainer"]["fast_dev_run"]:
        raise UserError("--ensemble averages checkpoints, and fast_dev_run leaves none")

    group = name_group(cli)
    root = Path(config["logs"]) / group
    works = []
    for member in range(count):
        seed = config["seed_everything"] + member
        key = keys.make_key(MODULE, own, seed, None)
        flags = (*words, "--seed_everything", str(seed))
        works.append(Work(key, MODULE, flags, tests=False, label=f"seed {seed}"))
    executor = choose_executor("local", config["parallel"], root, None, cli.devices.count)
    say(f"{count} members below {root / 'trials'}, then the mean of their predictions")
    runs = SeedTrials(root, works).train(executor)

    call = ["--run", ",".join(map(str, runs)), "--logs", config["logs"], "--name", group]
    return make_ensemble(call + (["--no_test"] if config["no_test"] else []))


def refuse_unfit(given: set[str]) -> None:
    """Refuses flags that do not go with an ensemble.

    Args:
        given: The keys on the command line.

    Raises:
        UserError: One of them does not.
    """
    if name_job() is not None:
        raise UserError("--ensemble starts processes of its own: call it without srun or torchrun")
    if "resume" in given:
        raise ConfigError(
            "--resume cannot go with --ensemble: the command that was stopped goes on by itself"
        )
    if "plan" in given:
        raise ConfigError("--plan is of one run: leave --ensemble out, each member is as it says")
    if "reference" in given:
        raise ConfigError(
            "--reference cannot go with --ensemble: python -m src.reference --run RUN adds it to "
            "a member"
        )
