"""The steps of an export: a network is traced, written, and tried on validation rows."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from src.checkpoint import choose_weights, group_tasks, load_checkpoint
from src.cli.exporting.comparison import Difference, compare_answers, refuse_differences
from src.cli.exporting.example_rows import MOST, take_example, write_rows
from src.cli.loaded_run import LoadedRun, split_inputs
from src.cli.selection_scores import score_rows
from src.deployment.coverage import Coverage
from src.deployment.folder import write_folder
from src.deployment.network import (
    RAW,
    DecodedNetwork,
    list_tensors,
    refuse_recurrent,
    trace_network,
)
from src.deployment.row_inputs import describe_inputs, describe_vocabulary, list_inputs
from src.models.padding import hide_padding

if TYPE_CHECKING:
    from onnx import ModelProto

FORMAT = 1  # of schema.json


class Exporter:
    """Exports one run.

    Args:
        run: The run.
        coverage: What makes sets and intervals; None for none.
        title: The name of the run.

    Attributes:
        batch: The validation rows that the model is tried on.
        outputs: {task: the run's outputs of these rows}.
        losses: {task: (score before, score after)} of weights that were made smaller; else empty.
    """

    def __init__(self, run: LoadedRun, coverage: Coverage | None, title: str) -> None:
        self.run = run
        self.title = title
        self.batch = run.load_rows("val", MOST)
        self.inputs = list_inputs(run.data, self.batch.inputs)
        self.outputs = hide_padding(run.predict(self.batch.inputs), self.batch.inputs)
        self.example = take_example(self.batch.inputs)
        self.network = DecodedNetwork(run.model, self._list_weights(), self.example, coverage)
        self.losses: dict[str, tuple[float, float]] = {}

    def _list_weights(self) -> list[tuple[Mapping[str, Tensor], list[str]]]:
        """Returns the weights that count, each with its tasks."""
        checkpoint = load_checkpoint(self.run.member.checkpoint)
        groups = group_tasks(checkpoint)
        if len(groups) < 2:
            return [(checkpoint["state_dict"], list(self.run.tasks))]
        return [(choose_weights(checkpoint, step), names) for step, names in groups.items()]

    def write_onnx(self, folder: Path, quantised: str | None) -> list[Difference]:
        """Fills a folder with a model for onnxruntime, and returns each task's difference.

        Args:
            folder: An empty folder.
            quantised: How weights become smaller; None keeps them.

        Raises:
            UserError: The network has no such form, or its answers are not those of ``predict``.
        """
        from src.deployment.onnx_core import OPSET, make_core
        from src.deployment.onnx_lstm import use_onnx_lstms
        from src.deployment.onnx_model import make_model
        from src.deployment.onnx_runtime import predict
        from src.deployment.quantisation import quantise

        with use_onnx_lstms(self.run.model):
            program = trace_network(self.network, self.example)
        core = make_core(self.network, program, self.example)
        if quantised is not None:
            core = quantise(core, quantised)
            self.losses = self._measure_losses(core)
        about = {"opset": OPSET, "batch": "dynamic", "weights": quantised or "fp32"}
        metadata = {**about, "tasks": list(self.run.tasks)}
        model = make_model(core, self.network, self.inputs, metadata)
        schema = {**self._describe(), **about}
        write_folder(folder, "onnx", model.SerializeToString(), schema)
        answers = predict(write_rows(self.run, self.batch, self.inputs), folder)
        found = compare_answers(self.run.model, self.network, self.outputs, answers)
        if quantised is None:
            refuse_differences(found, len(answers))
        return found

    def write_torch(self, folder: Path) -> list[Difference]:
        """Fills a folder with a program of torch.export, and returns each task's difference.

        Raises:
            UserError: The network has no such form, or its answers are not those of ``predict``.
        """
        from src.deployment.torch_runtime import predict

        refuse_recurrent(self.run.model)
        buffer = io.BytesIO()
        torch.export.save(trace_network(self.network, self.example), buffer)
        network = {"inputs": self.network.inputs, "outputs": self.network.outputs}
        schema = {**self._describe(), "batch": "dynamic", "network": network}
        write_folder(folder, "torch", buffer.getvalue(), schema)
        answers = predict(write_rows(self.run, self.batch, self.inputs), folder)
        found = compare_answers(self.run.model, self.network, self.outputs, answers)
        refuse_differences(found, len(answers))
        return found

    def _describe(self) -> dict[str, Any]:
        """Returns the content of schema.json that all forms share."""
        outputs = []
        for name, column in self.network.columns.items():
            entry: dict[str, Any] = {"name": name, "shape": list(column.values.shape[1:])}
            if column.classes is not None:
                entry |= {"classes": list(column.classes), "is_set": column.is_set}
            outputs.append(entry)
        return {
            "format": FORMAT,
            "name": self.title,
            "inputs": describe_inputs(self.inputs),
            "outputs": outputs,
            **describe_vocabulary(self.run.data),
        }

    def _measure_losses(self, core: "ModelProto") -> dict[str, tuple[float, float]]:
        """Returns {task: (score of the run, score of the changed network)} on the same rows."""
        changed = run_core(core, self.network, self.batch.inputs)
        every = np.arange(len(self.batch))
        found = {}
        for name, task in self.run.tasks.items():
            before, after = (
                score_rows(task, name, outputs, self.batch, every)
                for outputs in (self.outputs, changed)
            )
            found[name] = before, after
        return found


def run_core(
    core: "ModelProto", network: DecodedNetwork, inputs: Tensor | dict[str, Tensor]
) -> dict[str, Tensor]:
    """Returns {task: outputs (N, ..., O)} of a network in ONNX."""
    import onnxruntime

    session = onnxruntime.InferenceSession(
        core.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    names = [entry.name for entry in session.get_inputs()]
    found: dict[str, list[Tensor]] = {}
    for part in split_inputs(inputs, MOST):
        feeds = {}
        for place, values in enumerate(list_tensors(part)):
            # an input that no operation reads is none of the graph
            if f"in{place}" in names:
                feeds[f"in{place}"] = values.numpy()
        results = session.run(None, feeds)
        for name, values in zip(network.outputs, results, strict=True):
            if name.startswith(RAW):
                found.setdefault(name.removeprefix(RAW), []).append(torch.from_numpy(values))
    return {name: torch.cat(parts) for name, parts in found.items()}
