"""A run as a server: flags, the network in memory, and what is said at the start and the end."""

from __future__ import annotations

import importlib
import json
import shlex
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from src.cli.calibrated import describe_calibration
from src.cli.coverage import COVERAGE
from src.cli.flags import Flag
from src.cli.loaded_run import LoadedRun, open_one_run
from src.cli.preference import PREFERENCE, set_preference
from src.cli.serving.additions import (
    ClassesByGroup,
    SetsAndIntervals,
    describe_groups,
    open_additions,
)
from src.cli.terminal import remark
from src.data.tables.row_reader import InputDescription
from src.errors import UserError
from src.files.typed import read_json
from src.models.feature_selection import list_columns
from src.run.contents import Record

if TYPE_CHECKING:
    from src.deployment.serving.limits import Limits
    from src.deployment.serving.monitor import ShiftMonitor
    from src.deployment.serving.service import Addition

OWN = (
    Flag("port", int, 8000, "The port; 0 for any that is free."),
    Flag("host", str, "127.0.0.1", "The address; 0.0.0.0 lets other machines in."),
    Flag("max_body", int, 1_000_000, "Most bytes of a request."),
    Flag("max_rows", int, 1000, "Most rows of a request."),
    Flag("max_waiting", int, 64, "Most requests that wait; others are answered 503."),
    Flag("max_batch", int, 256, "Most rows that the network takes at once."),
    Flag("batch_wait", float, 2.0, "Milliseconds that a request waits for others to run with it."),
    Flag("time_limit", float, 10.0, "Seconds in which a client must have sent its request."),
    Flag("monitor", bool, False, "Write the shift of inputs and predictions to RUN/serve."),
    Flag("monitor_every", int, 500, "Rows that the monitor compares at once."),
    PREFERENCE,
    *COVERAGE,
)
REFERENCE = 2000  # training rows that the monitor compares with
PACKAGES = ("starlette", "uvicorn")


def serve_run(args: list[str]) -> None:
    """Serves the run that --run names until SIGINT or SIGTERM comes.

    Args:
        args: The command line after the command.

    Raises:
        UserError: A setting is wrong, or the run takes no rows from clients.
    """
    member = open_one_run(args, OWN, "src.serve", reads_files=False)
    config = member.cli.config
    check_packages()
    # they need these packages
    from src.deployment.serving.app import make_app
    from src.deployment.serving.openapi import describe_server
    from src.deployment.serving.server import open_port, run_server
    from src.deployment.serving.service import PredictionService

    limits = read_limits(config)
    if config["monitor_every"] < 1:
        raise UserError(f"--monitor_every is {config['monitor_every']}; it must be at least 1")
    set_preference([member.cli.model], config["preference"])
    reader = member.cli.datamodule.row_reader()
    additions = open_additions(member)
    run = LoadedRun(member)
    # the port before the network has run: a mistake is said at once
    listener = open_port(config["host"], config["port"])
    with listener:
        example = predict_example(run, additions)
        monitor = (
            open_monitor(run, additions, config["monitor_every"]) if config["monitor"] else None
        )

        inputs = reader.describe()
        inputs += describe_groups(additions, inputs)
        info = describe_run(run, inputs, list(example))
        title = f"Predictions of {', '.join(run.tasks)}"
        openapi = describe_server(title, inputs, example, limits, reader.allow_missing)
        service = PredictionService(run.model, run.predict, reader, limits, additions, monitor)
        app = make_app(service, info, openapi)
        for line in describe_calibration([run.model]):
            remark(line)
        address = f"http://{config['host']}:{listener.getsockname()[1]}"
        try:
            run_server(app, listener, limits, partial(greet, address, inputs))
        finally:
            service.close()
            if monitor is not None:
                monitor.close()
    print("the server has ended", flush=True)


def check_packages() -> None:
    """Checks that the packages of the server are there.

    Raises:
        UserError: One is not.
    """
    for name in PACKAGES:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError:
            raise UserError(
                f"src.serve needs the package {name}: pip install {' '.join(PACKAGES)}"
            ) from None


def read_limits(config: Any) -> Limits:
    """Returns the limits that flags name.

    Raises:
        UserError: One is out of range.
    """
    from src.deployment.serving.limits import Limits

    if not 0 <= config["batch_wait"] <= 1000:
        raise UserError(f"--batch_wait is {config['batch_wait']}; it must be from 0 to 1000 ms")
    return Limits(
        config["max_body"],
        config["max_rows"],
        config["time_limit"],
        config["max_waiting"],
        config["max_batch"],
        config["batch_wait"] / 1000,
    )


def predict_example(run: LoadedRun, additions: Sequence[Addition]) -> dict[str, object]:
    """Returns {column: value} of a row's predictions, for descriptions."""
    from src.deployment.serving.service import decode_columns

    outputs = run.predict(run.data.input_shape.example(rows=1))
    # its row is of no group: only columns are added, and no class is decided by group
    added = [each for each in additions if isinstance(each, SetsAndIntervals)]
    words = {name: [None] for each in added for name in each.columns}
    columns = decode_columns(run.model, outputs, added, words)
    return {name: values[0] for name, values in columns.items()}


def open_monitor(run: LoadedRun, additions: Sequence[Addition], every: int) -> ShiftMonitor:
    """Opens the monitor, with training rows and their predictions to compare with.

    Raises:
        UserError: The training rows are gone.
    """
    from src.deployment.serving.monitor import ReferenceRows, ShiftMonitor
    from src.deployment.serving.service import decode_columns

    rows = run.load_rows("train", REFERENCE)
    predictions = decode_columns(run.model, run.predict(rows.inputs))
    # training rows are decided by one threshold here: their classes are nothing to compare with
    for each in additions:
        for name in each.found if isinstance(each, ClassesByGroup) else ():
            del predictions[name]
    columns = list_columns(run.data.input_shape)
    whole = [column.name for column in columns if column.whole]
    if whole:
        remark(f"--monitor compares predictions, but not the input {', '.join(whole)}")
    folder = run.run.path / "serve"
    return ShiftMonitor(columns, ReferenceRows(rows.inputs, predictions), every, folder)


def describe_run(
    run: LoadedRun, inputs: Sequence[InputDescription], outputs: Sequence[str]
) -> dict[str, object]:
    """Returns what /info tells: tasks, inputs, data, versions; no path of this machine."""
    record = read_json(run.run.record, Record) if run.run.record.is_file() else {}
    tasks = {}
    for name, task in run.tasks.items():
        tasks[name] = {"kind": type(task).__name__}
    columns = [{"name": each.name, "kind": each.kind, "values": each.details} for each in inputs]
    info = {
        "tasks": tasks,
        "inputs": columns,
        "predictions": list(outputs),
        "data": remove_paths(record.get("data")),
        "versions": record.get("versions"),
        "commit": (record.get("git") or {}).get("commit"),
        "weights": "best" if run.member.checkpoint == str(run.run.best) else "last",
    }
    plain: dict[str, object] = json.loads(json.dumps(info, default=str))
    return plain


def remove_paths(record: Any) -> Any:
    """Returns a record of data without the places of its files."""
    if isinstance(record, dict):
        kept = {key: value for key, value in record.items() if key not in ("path", "given")}
        return {key: remove_paths(value) for key, value in kept.items()}
    return record


def greet(address: str, inputs: Sequence[InputDescription]) -> None:
    """Prints the address, and a line to try."""
    row = {each.name: each.example for each in inputs}
    body = shlex.quote(json.dumps({"rows": [row]}))
    print(f"serving at {address} (its page: {address}/docs); Ctrl-C ends it. Try:")
    print(
        f"curl {address}/predict -H 'Content-Type: application/json' -d {body}",
        flush=True,
    )
