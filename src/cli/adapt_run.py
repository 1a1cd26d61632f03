"""The run folder that an adaptation leaves: its report, and the network that was chosen."""

import sys
from typing import TYPE_CHECKING, Any

from rich.console import Console

from src.analysis.few_shot import FewShots
from src.cli.adapt_report import write_report
from src.cli.passes import evaluate_checkpoint
from src.cli.results import join_stages
from src.cli.training import is_stopped_by_hand
from src.launch.job import name_job
from src.models import MultiTaskModel
from src.monitoring import say, tabulate_results
from src.run import Run
from src.tasks.head import Head

if TYPE_CHECKING:
    from src.cli.adapt import Adaptation


def leave_run(
    adaptation: "Adaptation", found: FewShots, record: dict[str, Any], method: str | None
) -> Run:
    """Writes the run folder.

    Args:
        adaptation: The adaptation.
        found: The scores.
        record: All numbers.
        method: The method whose network it holds, learnt from the examples of the first draw at
            the largest k; None for none.
    """
    cli = adaptation.cli
    data = cli.datamodule
    data.check_files()
    schema = data.schema()
    fingerprint = data.fingerprint()
    if fingerprint is not None and schema is None:
        # a run without schema.json has not lost it
        fingerprint["schema"] = False
    run = Run.create(cli.config["logs"], cli.config["name"])
    run.begin(
        cli.yaml,
        cli.config["seed_everything"],
        resumed=False,
        job=name_job(),
        data=fingerprint,
        start=dict(adaptation.source.record),
    )
    try:
        if schema is not None:
            run.write(run.schema, schema)
        files = write_report(run.path, found, record)
        if method is not None:
            leave_network(adaptation, run, method)
    except BaseException as error:
        if is_stopped_by_hand(error):
            run.end("interrupted")
            say("stopped; all fits are kept, and the same command makes the run folder anew")
            sys.exit(130)
        run.fail(error)
        raise
    run.end("finished", adapted=record["chosen"])
    say(f"report {', '.join(map(str, files))}\nrun folder {run.path}")
    return run


def leave_network(adaptation: "Adaptation", run: Run, method: str) -> None:
    """Learns the network that was chosen once more, and writes its checkpoint and metrics."""
    cli = adaptation.cli
    shots = adaptation.call.shots[-1]
    learnt, _ = adaptation.learner.learn(method, adaptation.draw(0, shots), 0)
    model = adaptation.learner.build(0, starts=True)
    if isinstance(learnt, Head):
        model.heads[adaptation.name].load_state_dict(learnt.state_dict())
    else:
        model.load_state_dict(learnt.state_dict())
    keep_choices(model)

    # as in every run, thresholds are chosen on validation rows
    trainer = cli.trainer
    cli.model = model
    trainer.validate(model, cli.datamodule, verbose=False)
    found = trainer.callback_metrics.items()
    results = {"validation": {k: float(v) for k, v in found if k.startswith("val/")}}
    for path in (run.best, run.last):
        trainer.save_checkpoint(path)
    if adaptation.call.tests:
        results["test"] = evaluate_checkpoint(cli, str(run.best))
    run.write(run.metrics, results)

    kept = [name for name in model.tasks if name != adaptation.name]
    line = f"{method} from {shots} examples (those of draw 0) is the network of the run folder"
    if kept:
        line += f"; {', '.join(kept)} predict as before: the encoder and their heads are the run's"
    say(line)
    joined = join_stages(results)
    stages = [stage for stage in ("val", "test") if f"{stage}/score" in joined]
    Console().print(tabulate_results(model.tasks, joined, *stages), crop=False)


def keep_choices(model: MultiTaskModel) -> None:
    """Keeps the thresholds that the run has chosen for its tasks."""
    model.tasks.update(model.chosen_tasks)
