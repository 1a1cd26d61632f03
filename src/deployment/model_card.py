"""The model card of a run: Markdown for whoever must decide whether to use the model.

After Mitchell 2019 (Model Cards for Model Reporting, doi 10.1145/3287560.3287596). Everything in it
comes from the files of the run folder; what nobody has measured is said, with the command that
would measure it.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

from src.deployment.card_audits import describe_calibration, describe_groups, describe_robustness
from src.deployment.card_markdown import count, draw_table, escape
from src.deployment.card_results import describe_results, list_limits
from src.files.typed import read_json
from src.files.yaml12 import Bool
from src.run import Run
from src.run.contents import Record

SHOWN = 12  # classes or labels of a task that are listed
SECTIONS = ("encoder", "sharing", "balancer", "optimizer", "scheduler", "select", "meta")


def write_card(run: Run, licence: str | None = None) -> str:
    """Writes the model card of a run.

    Args:
        run: The run folder.
        licence: The terms of use, as text; None where nobody has stated any.

    Returns:
        Markdown.

    Raises:
        UserError: The run has no weights, or a file of it is damaged.
    """
    record = read_json(run.record, Record) if run.record.is_file() else {}
    config = run.read_config()
    tasks = run.read_tasks()
    schema = read_json(run.schema, dict[str, Any]) if run.schema.is_file() else {}
    name = config.get("name") or name_class(config["data"])

    sections = {
        "Tasks": describe_tasks(tasks),
        "Inputs": describe_inputs(schema, config),
        "Data": describe_data(record.get("data"), config),
        "Training": describe_training(record, config),
        "Results": describe_results(run, list(tasks)),
        "Results by group": describe_groups(run),
        "Calibration": describe_calibration(run),
        "Robustness": describe_robustness(run),
        "Limits": list_limits(run),
        "How to use it": describe_use(run),
        "Licence": [escape(licence) if licence else "Not stated. Ask the authors before use."],
    }
    lines = [f"# Model card: {escape(name)}", "", introduce(run, tasks)]
    for title, content in sections.items():
        lines += ["", f"## {title}", "", *content]
    return "\n".join(lines) + "\n"


def introduce(run: Run, tasks: Mapping[str, Any]) -> str:
    """Returns the first paragraph."""
    place = "/".join(run.path.resolve().parts[-2:])
    names = ", ".join(escape(name) for name in tasks)
    return (
        f"One network with {count(len(tasks), 'task')}: {names}. This card is made from the files "
        f"of the run `{place}`, and its figures are those of that run."
    )


# -- tasks and inputs ------------------------------------------------------------------------------
def describe_tasks(tasks: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Returns a table with the kind and the labels of each task."""
    rows = []
    for name, task in tasks.items():
        kind = str(task["kind"]).rpartition(".")[2]
        rows.append([name, kind, describe_labels(task), str(task.get("monitor", "-"))])
    return draw_table(["task", "kind", "labels", "selected by"], rows)


def describe_labels(task: Mapping[str, Any]) -> str:
    """Returns the label space of a task, and the thresholds of its decisions, in words."""
    words = []
    for key in ("classes", "labels", "names"):
        values = list(task.get(key) or ())
        if values:
            more = f" and {len(values) - SHOWN} more" if len(values) > SHOWN else ""
            words.append(", ".join(str(value) for value in values[:SHOWN]) + more)
    if task.get("mean") and task.get("std"):
        means = ", ".join(f"{value:.4g}" for value in list(task["mean"])[:SHOWN])
        spreads = ", ".join(f"{value:.4g}" for value in list(task["std"])[:SHOWN])
        words.append(f"numbers, mean {means}, standard deviation {spreads} in training")

    # a threshold for one class, or one for each label
    thresholds = task.get("threshold", task.get("thresholds"))
    if thresholds is not None:
        each = [thresholds] if isinstance(thresholds, float) else list(thresholds)
        words.append("threshold " + ", ".join(f"{value:.4f}" for value in each[:SHOWN]))
    return "; ".join(words) or "-"


class InputDescription(NamedTuple):
    """An input column for a reader: its name, its kind, and its values in training."""

    name: str
    kind: str
    values: str


def describe_inputs(schema: Mapping[str, Any], config: Mapping[str, Any]) -> list[str]:
    """Returns a table of the input columns of each source, or the shape of other inputs."""
    tables = list(find_tables(schema))
    if not tables:
        kind = name_class(config["data"])
        return [f"Not columns: the inputs of the data class `{kind}`, as its docstring says."]
    lines: list[str] = []
    for source, table in tables:
        if source:
            lines += [f"### {escape(source)}", ""]
        described = [describe_input(column) for column in table["inputs"]]
        lines += [*draw_table(["column", "kind", "in training"], described), ""]
        if table.get("dropped"):
            dropped = [f"{name} ({why})" for name, why in table["dropped"].items()]
            lines += [f"Columns that are no inputs: {escape('; '.join(dropped))}.", ""]
    return lines[:-1]


def find_tables(schema: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yields the schemas of tables, with the name of their source where there are several."""
    if "inputs" in schema:
        yield "", schema
    for name, one in schema.get("sources", {}).items():
        if "inputs" in one:
            yield name, one


def describe_input(column: Mapping[str, Any]) -> InputDescription:
    """Returns an input column for a reader."""
    if "vocabulary" in column and column["kind"] == "categorical":
        words = ["missing" if word is None else str(word) for word in column["vocabulary"]]
        more = f" and {len(words) - SHOWN} more" if len(words) > SHOWN else ""
        return InputDescription(column["column"], "category", ", ".join(words[:SHOWN]) + more)
    if column["kind"] == "numeric":
        values = f"mean {column['mean']:.4g}, standard deviation {column['std']:.4g}"
        return InputDescription(column["column"], "number", values)
    return InputDescription(column["column"], column["kind"], "-")


# -- data and training -----------------------------------------------------------------------------
def describe_data(data: Mapping[str, Any] | None, config: Mapping[str, Any]) -> list[str]:
    """Returns the data class, its files with their hashes, and the rows of each split."""
    kind = name_class(config["data"])
    if not data:
        return [f"`{kind}`. The run has no record of files: these data come with the code."]
    # of several sources each has its own record
    sources = {"": data} if "files" in data else data
    lines = [f"`{kind}`."]
    for source, one in sources.items():
        if not isinstance(one, Mapping) or "files" not in one:
            continue
        files = []
        for role, entry in one["files"].items():
            shown = Path(str(entry.get("given", entry.get("path", role)))).name
            rows = f"{entry['rows']:,}" if "rows" in entry else "-"
            size = f"{entry.get('bytes', 0):,}"
            files.append([shown, str(entry.get("sha256", "-")), size, rows])
        heading = [f"### {escape(source)}", ""] if source else []
        lines += ["", *heading, *draw_table(["file", "SHA-256", "bytes", "rows"], files, 2)]
        rows_by_side = count_rows(one)
        if rows_by_side:
            counts = ", ".join(f"{number:,} {side}" for side, number in rows_by_side.items())
            fold = one.get("fold")
            of_folds = f" (fold {fold['fold']} of {fold['folds']})" if fold else ""
            lines += ["", f"Rows: {counts}{of_folds}."]
    return lines


def count_rows(data: Mapping[str, Any]) -> dict[str, int]:
    """Returns the rows of each split, with the rows of files that are a split of their own."""
    counts = {side: int(number) for side, number in (data.get("rows") or {}).items()}
    for side in ("val", "test"):
        if side in counts and side in data["files"]:
            counts[side] += int(data["files"][side].get("rows", 0))
    return counts


def describe_training(record: Mapping[str, Any], config: Mapping[str, Any]) -> list[str]:
    """Returns how the network was made: parts, devices, versions, time."""
    rows = []
    for key in SECTIONS:
        choice = config["model"].get(key)
        if choice:
            rows.append([key, describe_choice(choice)])

    trainer = config["trainer"]
    devices = f"{trainer.get('devices')} of accelerator {trainer.get('accelerator')}"
    devices += f" on {count(int(trainer.get('num_nodes') or 1), 'node')}"
    rows.append(["devices", f"{devices}, strategy {name_class(trainer.get('strategy'))}"])
    rows.append(["precision", str(trainer.get("precision"))])
    rows.append(["seed", str(config.get("seed_everything", "-"))])
    rows += describe_sessions(record)

    source = record.get("init_from")
    if source:
        rows.append(["weights start from", str(source.get("source", source.get("run", "a run")))])
    return draw_table(["", ""], rows)


def describe_sessions(record: Mapping[str, Any]) -> list[list[str]]:
    """Returns rows on the processes that trained: time, memory, end, versions, code."""
    rows = []
    sessions: Sequence[Mapping[str, Any]] = cast(Any, record.get("sessions") or [])
    if sessions:
        last = sessions[-1]
        seconds = sum(float(session.get("seconds", 0)) for session in sessions)
        took = f"{seconds:,.0f} s in {count(len(sessions), 'session')}"
        peak = last.get("peak_memory_bytes", {})
        if peak:
            held = [f"{bytes_ / 1e9:.2f} GB on {place}" for place, bytes_ in peak.items()]
            took += f", at most {', '.join(held)}"
        rows.append(["time", took])
        rows.append(["begun", str(sessions[0].get("started", "-"))])
        ended = str(last.get("ended") or last["status"])
        steps = f", {last['steps']:,} steps" if "steps" in last else ""
        rows.append(["ended", f"{ended}{steps}"])
        rows.append(["command", hide_folders(str(last["command"]))])
    versions = record.get("versions", {})
    if versions:
        named = ", ".join(f"{name} {version}" for name, version in versions.items())
        rows.append(["versions", f"Python {record.get('python', '-')}, {named}"])
        rows.append(["system", str(record.get("platform", "-"))])
    git = record.get("git") or {}
    if git.get("commit"):
        changed = ", with changes that no commit holds" if git.get("dirty") else ""
        rows.append(["code", f"commit {git['commit'][:12]}{changed}"])
    return rows


def hide_folders(command: str) -> str:
    """Returns a command without the folders of absolute paths, which say nothing elsewhere."""
    return re.sub(r"(?<![\w.])/(?:[^\s/'\"]+/)+", ".../", command)


def describe_choice(choice: Any) -> str:
    """Returns a class of the configuration with its plain settings."""
    settings = choice.get("init_args") or {} if isinstance(choice, Mapping) else {}
    shown = []
    for key, value in settings.items():
        if isinstance(value, Bool):
            shown += [key] if value else []
        elif isinstance(value, str | int | float):
            shown.append(f"{key} {value}")
    name = name_class(choice)
    return f"{name} ({', '.join(shown)})" if shown else name


def name_class(choice: Any) -> str:
    """Returns the name of the class that a part of a configuration chooses."""
    path = choice.get("class_path", "-") if isinstance(choice, Mapping) else choice
    return str(path).rpartition(".")[2]


# -- use -------------------------------------------------------------------------------------------
def describe_use(run: Run) -> list[str]:
    """Returns the commands that open the run."""
    return [
        "```bash",
        "python -m src.predict --run RUN --out predictions.csv   # rows of the run's files",
        "python -m src.evaluate --run RUN                        # its test metrics again",
        "python -m src.audit --run RUN                           # how far it can be trusted",
        "```",
        "",
        "RUN is the run folder. Where this card lies beside an exported model, `handler.py` there "
        "answers rows without this project. A decision about people needs a person who answers "
        "for it: scores are averages over rows, and say little about one of them.",
    ]
