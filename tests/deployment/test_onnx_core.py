"""Every sharing architecture and encoder has a form in ONNX for any number of rows, or says why
not.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch

from src.deployment.network import (
    DecodedNetwork,
    list_tensors,
    refuse_recurrent,
    trace_network,
)
from src.errors import UserError
from src.models import MultiTaskModel
from src.tasks import BinaryClassification, Classification, MultilabelClassification, Regression
from tests.models.test_matrix import ENCODERS, NOT_RECURRENT, SHARINGS

pytest.importorskip("onnxscript")
ort = pytest.importorskip("onnxruntime")

from src.deployment.onnx_core import make_core  # noqa: E402
from src.deployment.onnx_lstm import use_onnx_lstms  # noqa: E402

# a word of Python is the name of a task, too
TASKS = {
    "class": Classification(classes=(0, 1, 2)),
    "deep": BinaryClassification(classes=("no", "yes"), depth=1, width=3),
    "number": Regression(mean=(0.0,), std=(1.0,)),
    "labels": MultilabelClassification(labels=("x", "y")),
}
FAST = (("MMoE", "table"), ("LoRAExperts", "MLP"))


def build(sharing, encoder):
    make, shape = ENCODERS[encoder]
    tasks = {name: with_pool(task, shape) for name, task in TASKS.items()}
    model = MultiTaskModel(tasks, shape, make, SHARINGS[sharing])
    model.configure_model()
    return model.eval(), shape


def with_pool(task, shape):
    """A label of the whole sample suits features of any form."""
    has_places = shape.tokens or shape.nodes or len(shape.dense) == 3
    return replace(task, pooled=True) if has_places else task


def cases():
    for sharing in SHARINGS:
        for encoder in ENCODERS:
            if encoder == "BiLSTM" and sharing in NOT_RECURRENT:
                continue
            # each sharing with one encoder, each encoder with one sharing
            if encoder == "MLP" or sharing == "HardSharing" or (sharing, encoder) in FAST:
                marks = () if (sharing, encoder) in FAST else pytest.mark.slow
                yield pytest.param(sharing, encoder, marks=marks)


@pytest.mark.filterwarnings("ignore:Sluice. orthogonality .* has no matrix of any stage")
@pytest.mark.parametrize(("sharing", "encoder"), list(cases()))
def test_a_network_in_onnx_says_what_it_says_in_torch(sharing, encoder):
    model, shape = build(sharing, encoder)
    example = shape.example(7, 11)
    network = DecodedNetwork(model, [(model.state_dict(), list(model.tasks))], example)
    with use_onnx_lstms(model):
        program = trace_network(network, example)
    core = make_core(network, program, example)
    session = ort.InferenceSession(core.SerializeToString(), providers=["CPUExecutionProvider"])
    assert [entry.version for entry in core.opset_import if not entry.domain] == [20]
    for rows, length in ((1, 4), (5, 9)):
        tensors = list_tensors(shape.example(rows, length))
        with torch.no_grad():
            expected = network(*tensors)
        feeds = {f"in{k}": values.numpy() for k, values in enumerate(tensors)}
        names = {entry.name for entry in session.get_inputs()}
        found = session.run(None, {name: feeds[name] for name in names})
        for ours, theirs in zip(found, expected, strict=True):
            np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-5)


def test_a_program_of_torch_holds_no_lstm():
    model, _ = build("HardSharing", "BiLSTM")
    with pytest.raises(UserError, match="export it --to onnx"):
        refuse_recurrent(model)
    refuse_recurrent(build("HardSharing", "MLP")[0])


def test_tasks_have_the_weights_of_their_own_epochs():
    model, shape = build("HardSharing", "MLP")
    first = {key: value.clone() for key, value in model.state_dict().items()}
    second = {k: v + 0.1 if v.is_floating_point() else v for k, v in first.items()}
    example = shape.example(7)
    network = DecodedNetwork(
        model, [(first, ["class", "deep"]), (second, ["number", "labels"])], example
    )
    with torch.no_grad():
        found = dict(zip(network.outputs, network(example), strict=True))
        early = model(example)
        model.load_state_dict(second)
        late = model(example)
    torch.testing.assert_close(found["outputs/class"], early["class"])
    torch.testing.assert_close(found["outputs/deep"], early["deep"])
    torch.testing.assert_close(found["outputs/number"], late["number"])
    assert (late["deep"] - early["deep"]).abs().max() > 0.01
