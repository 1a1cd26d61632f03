"""The network of a run as a plain module: numeric inputs in, decoded columns out.

It holds the weights under names of its own, since names of tasks may be words of Python (``class``)
that a traced graph cannot have. Where tasks have weights of different epochs, it holds each set,
and a task's columns come from its own.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from src.deployment.coverage import Coverage
from src.deployment.decoding import Decoded, decode_all, join_name
from src.errors import UserError, in_one_line
from src.models import MultiTaskModel
from src.models.padding import hide_padding

Inputs = Tensor | dict[str, Tensor]
RAW = "outputs/"  # in front of a task's outputs before decoding
# dimensions of inputs that differ from batch to batch, by the last part of the input's name
DYNAMIC = {"tokens": 2, "parts": 3, "nodes": 2, "node_mask": 2, "edges": 2, "edge_features": 2}


class DecodedNetwork(nn.Module):
    """A model in evaluation: tensors of its inputs -> the columns of its predictions.

    Args:
        model: The model, in evaluation mode.
        weights: Sets of its weights, each with the tasks whose predictions come from it.
        example: Inputs of a few rows, which say how many inputs there are.
        coverage: What makes sets and intervals; None for none.

    Attributes:
        inputs: The names of the inputs, in order.
        columns: {name of the output: one column of predictions of the example rows}.
    """

    def __init__(
        self,
        model: MultiTaskModel,
        weights: Sequence[tuple[Mapping[str, Tensor], Sequence[str]]],
        example: Inputs,
        coverage: Coverage | None = None,
    ) -> None:
        super().__init__()
        self.coverage = coverage
        # inside a tuple, so that its parameters are not this module's, too
        self._model = (model.eval(),)
        self._sets: list[tuple[dict[str, str], Sequence[str]]] = []
        for number, (state, tasks) in enumerate(weights):
            own: dict[str, str] = {}
            for key, value in state.items():
                if key.startswith(("sharing.", "heads.")):
                    own[key] = f"w{number}_{len(own)}"
                    self.register_buffer(own[key], value.detach().clone())
            self._sets.append((own, tasks))
        self.inputs = list(example) if isinstance(example, dict) else ["inputs"]
        self.is_single = not isinstance(example, dict)
        # constants that tasks keep must be real tensors before a trace meets them
        with torch.no_grad():
            self.columns = self._decode(self._run(self.join(list_tensors(example))))

    def join(self, tensors: Sequence[Tensor]) -> Inputs:
        """Returns inputs as the model takes them."""
        return tensors[0] if self.is_single else dict(zip(self.inputs, tensors, strict=True))

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Returns the values of all columns, and then the outputs of all tasks."""
        outputs = self._run(self.join(tensors))
        columns = self._decode(outputs)
        return (*(column.values for column in columns.values()), *outputs.values())

    @property
    def outputs(self) -> list[str]:
        """The names of what ``forward`` returns."""
        return [*self.columns, *(f"{RAW}{name}" for name in self._model[0].tasks)]

    def _run(self, inputs: Inputs) -> dict[str, Tensor]:
        """Returns {task: outputs}, each task by its own weights."""
        found: dict[str, Tensor] = {}
        for names, tasks in self._sets:
            state = {key: getattr(self, name) for key, name in names.items()}
            outputs = functional_call(self._model[0], state, (inputs,))
            found |= {task: outputs[task] for task in tasks}
        ordered = {name: found[name] for name in self._model[0].tasks}
        return hide_padding(ordered, inputs)

    def decode(self, outputs: Mapping[str, Tensor]) -> dict[str, dict[str, Decoded]]:
        """Returns {task: {suffix of the column's name: column}} of outputs (B, ..., O)."""
        found = decode_all(self._model[0].chosen_tasks, outputs)
        if self.coverage is not None:
            for task, columns in self.coverage.decode(outputs).items():
                found[task] |= columns
        return found

    def _decode(self, outputs: Mapping[str, Tensor]) -> dict[str, Decoded]:
        found = {}
        for task, columns in self.decode(outputs).items():
            for suffix, column in columns.items():
                found[join_name(task, suffix)] = column
        return found


def list_tensors(inputs: Inputs) -> list[Tensor]:
    """Returns the tensors of inputs, in their order."""
    return list(inputs.values()) if isinstance(inputs, dict) else [inputs]


def trace_network(network: DecodedNetwork, example: Inputs) -> torch.export.ExportedProgram:
    """Returns the network as a program for any number of rows, tokens and nodes.

    Args:
        network: The network.
        example: Inputs of at least three rows; sizes that are 1 there stay 1.

    Raises:
        UserError: An operation of the network cannot be traced.
    """
    shapes = []
    for name, tensor in zip(network.inputs, list_tensors(example), strict=True):
        count = DYNAMIC.get(name.rpartition("/")[2], 1)
        open_dimensions = dict.fromkeys(range(min(count, tensor.ndim)), torch.export.Dim.DYNAMIC)
        shapes.append(open_dimensions)
    tensors = tuple(list_tensors(example))
    try:
        with torch.no_grad():
            return torch.export.export(
                network, tensors, dynamic_shapes={"tensors": tuple(shapes)}, strict=False
            )
    except (RuntimeError, TypeError, ValueError) as error:
        raise UserError(
            f"the network cannot be traced for any number of rows: {in_one_line(error)[:200]}"
        ) from None


def refuse_recurrent(network: nn.Module) -> None:
    """Refuses networks that a program of torch holds for sentences of one length alone.

    Raises:
        UserError: It is one.
    """
    if any(isinstance(module, nn.RNNBase) for module in network.modules()):
        raise UserError(
            "torch.export unrolls an LSTM for sentences of one length: export it --to onnx, which "
            "has LSTMs, or train with --model.encoder Transformer"
        )
