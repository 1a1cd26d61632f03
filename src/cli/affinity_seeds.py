"""Affinities over several seeds: a training for each, as a process of its own."""

from collections.abc import Sequence
from pathlib import Path

from src.analysis.affinities import (
    NAME,
    average_samples,
    read_affinities,
    read_mean,
)
from src.analysis.trials import Work
from src.cli.affinity import finish, limit_networks, make_record, read_run, refuse_unfit
from src.cli.affinity_call import Call
from src.cli.app import CLI
from src.cli.flags import split_flags
from src.cli.runs import drop_flags
from src.cli.seed_trials import SeedTrials
from src.cli.training import OWN, name_group
from src.cli.trial_keys import NOT_OF_A_TRIAL, make_hash
from src.errors import UserError
from src.files.yaml12 import load
from src.launch.executors import LocalExecutor
from src.launch.job import name_job

MODULE = "src.affinity"


class AffinitySeeds:
    """Trainings with seeds 0 to N - 1; called again, it keeps the ones that have finished.

    Run folders lie below <logs>/<name>/trials/, and the affinities over all seeds in
    <logs>/<name>/affinity-<hash of the configuration>.json.

    Args:
        call: The command line.

    Raises:
        UserError: A setting is wrong, or these tasks have no affinities.
    """

    def __init__(self, call: Call) -> None:
        assert call.seeds is not None
        if name_job() is not None:
            raise UserError("--seeds starts processes of its own: call it without srun or torchrun")
        self.call = call
        base = read_run(call) if call.run is not None else None
        # as a plan: whatever is wrong comes up before the first training
        self.cli = CLI([*call.words, "--plan"], base=base, own=OWN, trains=True)
        refuse_unfit(self.cli)
        self.networks = limit_networks(call, self.cli)

        config = self.cli.config
        given = {key for key, _ in split_flags(call.words)}
        self.name = name_group(self.cli) if "name" in given else f"{name_group(self.cli)}-affinity"
        self.root = Path(config["logs"]) / self.name
        self.works = [self.make_work(seed) for seed in range(call.seeds)]
        self.key = make_hash([work.key for work in self.works])

    def make_work(self, seed: int) -> Work:
        """Returns the training of a seed."""
        tree = load(self.cli.yaml)
        for key in NOT_OF_A_TRIAL:
            tree.pop(key, None)
        every = self.call.every or 10
        content = {
            "module": MODULE,
            "config": tree | {"seed_everything": seed},
            "every": every,
            "data": self.cli.datamodule.fingerprint(),
        }
        # the place of a run folder follows from its key
        words = drop_flags(self.call.words, "name", "logs")
        words += ["--every", str(every), "--seed_everything", str(seed)]
        if self.call.run is not None:
            words += ["--run", self.call.run]
        return Work(make_hash(content), MODULE, tuple(words), False, f"seed {seed}")

    def run(self) -> None:
        """Trains with each seed, and shows the affinities over them.

        Raises:
            UserError: A training has failed.
        """
        runs = SeedTrials(self.root, self.works).train(LocalExecutor())
        self.report_affinities(runs)

    def report_affinities(self, runs: Sequence[Path]) -> None:
        """Prints the affinities over all seeds, and writes them down."""
        records = [read_affinities(run / NAME) for run in runs]
        seeds = [record["seeds"][0] for record in records]
        whole = make_record(
            self.cli.model,
            average_samples([read_mean(record["lookahead"]) for record in records]),
            average_samples([read_mean(record["first_order"]) for record in records]),
            self.networks,
            intervals=f"95 % t-intervals over the means of {len(seeds)} seeds",
        )
        whole["seeds"] = seeds
        whole["runs"] = [str(run) for run in runs]
        whole["measured_steps"] = [record["measured_steps"][0] for record in records]
        out = self.call.out or self.root / f"affinity-{self.key}.json"
        finish(whole, out, self.call)
