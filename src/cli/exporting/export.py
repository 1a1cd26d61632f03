"""The export of a run: the work of ``python -m src.export``."""

import shutil
from pathlib import Path
from typing import Any

import torch

from src.checkpoint import choose_weights, group_tasks, load_checkpoint
from src.cli.exporting.comparison import Difference, compare_answers, refuse_differences
from src.cli.exporting.example_rows import MOST, take_example, write_rows
from src.cli.exporting.flags import OWN, check_flags
from src.cli.loaded_run import LoadedRun, open_one_run
from src.cli.preference import set_preference
from src.cli.terminal import remark
from src.deployment.folder import FILES, write_folder
from src.deployment.network import DecodedNetwork, trace_network
from src.deployment.row_inputs import describe_inputs, list_inputs
from src.errors import UserError
from src.files.atomic import put_in_place, remove
from src.models.padding import hide_padding


def export_run(args: list[str]) -> Path:
    """Writes the folder of an exported run, once its answers are those of ``predict``.

    Args:
        args: The command line after the command.

    Returns:
        The folder.

    Raises:
        UserError: A setting is wrong, the run has no form in a graph, or its answers differ.
    """
    member = open_one_run(args, OWN, "src.export")
    config = member.cli.config
    out = check_flags(config, member)
    run = LoadedRun(member)
    if run.model.meta is not None:
        raise UserError(
            "a run that learns from episodes predicts from support rows, which a model file does "
            "not hold: src.export takes runs on rows"
        )
    set_preference([run.model], config["preference"])
    unfinished = out.with_name(f".{out.name}.unfinished")
    remove(unfinished)
    unfinished.mkdir()
    try:
        differences, rows = Exporter(run, config).write(unfinished)
        put_in_place(unfinished, out)
    finally:
        remove(unfinished)
    show(differences, rows, out, config["to"])
    for line in run.data.remarks:
        remark(line)
    return out


class Exporter:
    """Exports one run.

    Args:
        run: The run.
        config: The settings of the command.
    """

    def __init__(self, run: LoadedRun, config: Any) -> None:
        self.run = run
        self.config = config
        self.batch = run.load_rows("val", MOST)
        self.example = take_example(self.batch.inputs)
        self.inputs = list_inputs(run.data, self.batch.inputs)
        self.outputs = hide_padding(run.predict(self.batch.inputs), self.batch.inputs)
        self.network = self._build_network()

    def _build_network(self) -> DecodedNetwork:
        """Returns the network with the weights that count for each task."""
        checkpoint = load_checkpoint(self.run.member.checkpoint)
        groups = group_tasks(checkpoint)
        weights = [(checkpoint["state_dict"], list(self.run.tasks))]
        if len(groups) > 1:
            weights = [(choose_weights(checkpoint, step), names) for step, names in groups.items()]
        return DecodedNetwork(self.run.model, weights, self.example)

    def write(self, folder: Path) -> tuple[list[Difference], int]:
        """Fills a folder, and returns the difference of each task on how many rows.

        Raises:
            UserError: The run has no such form, or its answers differ.
        """
        from src.deployment.handler import predict
        from src.deployment.onnx_core import OPSET, check_packages, make_core, refuse_recurrent
        from src.deployment.onnx_model import make_model

        check_packages()
        refuse_recurrent(self.run.model)
        program = trace_network(self.network, self.example)
        core = make_core(self.network, program, self.example)
        schema = {
            "format": 1,
            "name": str(self.config["name"]),
            "opset": OPSET,
            "batch": "dynamic",
            "inputs": describe_inputs(self.inputs),
            "outputs": self._describe_outputs(),
        }
        metadata = {"opset": str(OPSET), "batch": "dynamic", "tasks": list(self.run.tasks)}
        model = make_model(core, self.network, self.inputs, metadata)
        write_folder(folder, "onnx", model.SerializeToString(), schema)
        answers = predict(write_rows(self.run, self.batch, self.inputs), folder)
        found = compare_answers(self.run.model, self.outputs, answers)
        refuse_differences(found, len(answers))
        return found, len(answers)

    def _describe_outputs(self) -> list[dict[str, Any]]:
        """Returns the entries of the outputs in schema.json."""
        found = []
        for name, column in self.network.columns.items():
            entry: dict[str, Any] = {"name": name, "shape": list(column.values.shape[1:])}
            if column.classes is not None:
                entry["classes"] = list(column.classes)
            found.append(entry)
        return found


def show(found: list[Difference], rows: int, out: Path, form: str) -> None:
    """Prints how far each task is from predict, and where the files are."""
    from rich.console import Console
    from rich.table import Table

    table = Table("task", box=None)
    table.add_column("largest difference from predict", justify="right")
    for each in found:
        table.add_row(each.task, f"{each.largest:.1e}")
    Console().print(table, crop=False)
    size = (out / FILES[form]).stat().st_size
    print(f"compared on {rows} validation rows; {size / 1e6:.2f} MB: {out / FILES[form]}")
    print("any number of rows at once; opset 20" if form == "onnx" else "", flush=True)


__all__ = ["Exporter", "export_run", "show", "shutil", "torch"]
