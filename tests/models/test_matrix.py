"""Any sharing x any encoder x any kind of balancer x any kind of task: the gradients of a step are
those of its definition.
"""

from functools import partial
from typing import Any

import lightning as L
import pytest
import torch
from torch.optim import SGD

from src.balancing import StaticWeights
from src.batch import Batch, InputShape
from src.cli.classes import subclasses
from src.models import MultiTaskModel
from src.models.encoders import (
    MLP,
    BiLSTM,
    ConvNet,
    FeaturePyramid,
    Fusion,
    MessagePassing,
    Pretrained,
    ResNet,
    TabularTransformer,
    Transformer,
    UNet,
)
from src.models.sharing import (
    AITM,
    CGC,
    MTAN,
    NDDR,
    PLE,
    CrossStitch,
    DSelectK,
    Groups,
    HardSharing,
    HydraLoRA,
    LearningToBranch,
    LoRAExperts,
    MMoE,
    PaLoRA,
    Separate,
    Sharing,
    Sluice,
    SoftSharing,
    TaskAdapters,
    WeightedSharing,
)
from src.tasks import BinaryClassification, Classification, MultilabelClassification, Regression
from tests.models.backward.test_levels import (
    QUIET,
    Bent,
    Halves,
    factors,
    reference,
    task_losses,
)


def three_groups(encoder, tasks):
    """Groups of one task, of two, and of the others."""
    tasks = list(tasks)
    return Groups(encoder, tasks, [tasks[1:3], tasks[:1], tasks[3:]])


SHARINGS = {
    "HardSharing": HardSharing,
    "HardSharing until 1": partial(HardSharing, until=1),
    "Groups": three_groups,
    "Separate": Separate,
    "SoftSharing": partial(SoftSharing, strength=0.1),
    "SoftSharing trace": partial(SoftSharing, norm="trace", strength=0.02),
    "WeightedSharing": WeightedSharing,
    "CrossStitch": CrossStitch,
    "Sluice": Sluice,
    "NDDR": NDDR,
    "MMoE": partial(MMoE, experts=3),
    "CGC": partial(CGC, shared=1, own=1),
    "PLE": partial(PLE, shared=1, own=2),
    "DSelectK": partial(DSelectK, experts=4),
    "MTAN": MTAN,
    "AITM": AITM,
    "LearningToBranch": partial(LearningToBranch, branches=2),
    "TaskAdapters": partial(TaskAdapters, rank=2),
    "HydraLoRA": partial(HydraLoRA, experts=3, rank=2),
    "LoRAExperts": partial(LoRAExperts, experts=3, rank=2),
    "PaLoRA": partial(PaLoRA, rank=2),
    "TaskAdapters film": partial(TaskAdapters, kind="film"),
}
ENCODERS = {
    "MLP": (partial(MLP, width=4, depth=1), InputShape((5,))),
    "table": (partial(MLP, width=4, depth=1), InputShape((3,), (4, 2))),
    "TabularTransformer": (
        partial(TabularTransformer, width=4, depth=2, heads=2),
        InputShape((2,), (3,)),
    ),
    "ConvNet": (partial(ConvNet, width=4, depth=2), InputShape((2, 4, 4))),
    "ResNet": (partial(ResNet, width=2), InputShape((2, 12, 12))),
    "UNet": (partial(UNet, width=2, depth=1, multi_scale=True), InputShape((2, 4, 5))),
    "FeaturePyramid": (
        partial(FeaturePyramid, backbone=partial(ConvNet, width=2, depth=2), width=4),
        InputShape((2, 4, 4)),
    ),
    "Transformer": (partial(Transformer, width=4, depth=2, heads=2), InputShape(tokens=9, parts=5)),
    "BiLSTM": (
        partial(BiLSTM, width=4, depth=2, word_size=2, piece_size=2),
        InputShape(tokens=9, parts=5),
    ),
    "graphs": (partial(MessagePassing, width=4, depth=1), InputShape(nodes=3, edges=2)),
    "sentences": (
        partial(Transformer, width=4, depth=1, heads=2, pool="mean"),
        InputShape(tokens=9),
    ),
}
MEMBERS = InputShape(
    members=(
        ("table", InputShape((2,), (3,))),
        ("comment", InputShape(tokens=9)),
        ("photo", InputShape((2, 4, 4))),
    )
)
PARTS: dict[str, Any] = {
    "table": partial(MLP, width=4, depth=1),
    "text": partial(Transformer, width=4, depth=1, heads=2),
    "images": partial(ConvNet, width=4, depth=1),
    "width": 4,
    "heads": 2,
}
ENCODERS["Fusion"] = (partial(Fusion, **PARTS), MEMBERS)
ENCODERS["Fusion attention"] = (partial(Fusion, **PARTS, how="attention"), MEMBERS)
TASKS = {
    "class": Classification(classes=(0, 1, 2), label_smoothing=0.1),
    "binary": BinaryClassification(classes=("no", "yes"), weight=0.5),
    "labels": MultilabelClassification(labels=("x", "y")),
    "number": Regression(mean=(0.0,), std=(1.0,)),
    "deep": Regression(mean=(0.0,), std=(1.0,), depth=1, width=3, loss="huber"),
    "bent": Bent(mean=(0.0,), std=(1.0,)),
}


# these refuse recurrent encoders, see tests/models/sharing/test_low_rank.py
NOT_RECURRENT = ("HydraLoRA", "LoRAExperts", "PaLoRA")


def test_every_architecture_is_there():
    ours = {kind.__name__ for kind in subclasses(Sharing) if kind.__module__.startswith("src.")}
    assert ours == {name.split()[0] for name in SHARINGS}


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """A tiny backbone of the transformers package."""
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("bert")
    sizes = {
        "hidden_size": 4,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 6,
    }
    BertModel(BertConfig(vocab_size=9, max_position_embeddings=8, **sizes)).save_pretrained(folder)
    return partial(Pretrained, name=str(folder)), InputShape(tokens=9)


def in_double(inputs):
    if isinstance(inputs, torch.Tensor):
        return inputs.double()
    return {
        key: value.double() if value.is_floating_point() else value for key, value in inputs.items()
    }


def batch_for(model, shape):
    """Labels of every kind, some of them missing, one for each sample, token or pixel as the
    encoder's features are.
    """
    inputs = in_double(shape.example(4))
    with torch.no_grad():
        places = next(iter(model.sharing(inputs).values())).shape[:-1]
    draw = torch.Generator().manual_seed(2)
    targets = {}
    for name, task in TASKS.items():
        size = (*places, 2) if name == "labels" else places
        if name == "class":
            targets[name] = torch.randint(0, 3, size, generator=draw)
            targets[name][torch.rand(size, generator=draw) < 0.3] = -100
        else:
            numbers = torch.randn(size, generator=draw, dtype=torch.float64)
            targets[name] = numbers if isinstance(task, Regression) else (numbers > 0).double()
            targets[name][torch.rand(size, generator=draw) < 0.3] = torch.nan
    return Batch(inputs, targets, torch.arange(4))


def cases():
    """Each sharing over vectors, images and tokens, each encoder under hard sharing and separate;
    all others in the slow tests.
    """
    for sharing in SHARINGS:
        for encoder in (*ENCODERS, "Pretrained"):
            if encoder == "BiLSTM" and sharing in NOT_RECURRENT:
                continue
            fast = encoder in ("MLP", "ConvNet", "Transformer") or sharing in (
                "HardSharing",
                "Separate",
            )
            yield pytest.param(sharing, encoder, marks=() if fast else pytest.mark.slow)


# the gates of an LSTM are no subspaces that a penalty could keep apart
@pytest.mark.filterwarnings("ignore:Sluice. orthogonality .* has no matrix of any stage")
@pytest.mark.parametrize(("sharing", "encoder"), list(cases()))
def test_gradients_of_a_step(sharing, encoder, request):
    make, shape = request.getfixturevalue("bert") if encoder == "Pretrained" else ENCODERS[encoder]
    for balancer in (
        StaticWeights,
        partial(Halves, level="parameters"),
        partial(Halves, level="features"),
    ):
        parts = SHARINGS[sharing], balancer, partial(SGD, lr=0.1), None
        model = MultiTaskModel(TASKS, shape, make, *parts)
        model._trainer = L.Trainer(
            accelerator="cpu", devices=1, max_epochs=1, use_distributed_sampler=False, **QUIET
        )
        model.configure_model()
        level = model.balancer.level
        if level == "features" and not model.sharing.one_feature:
            continue
        model.double()
        with torch.no_grad():
            draw = torch.Generator().manual_seed(1)
            for p in model.parameters():  # away from zeros that hide what reaches what
                p.add_(0.05 * torch.randn(p.shape, generator=draw, dtype=torch.float64))
        batch = batch_for(model, shape)
        torch.manual_seed(3)
        model.training_step(batch, 0).backward()
        torch.manual_seed(3)
        if level is None:
            features = model.sharing(batch.inputs)
            losses = task_losses(model, batch, features)
            total = sum(f * loss for f, loss in zip(factors(model), losses, strict=True))
            expected = gradients_of(total, model)
        else:
            expected = reference(model, batch, level)
            torch.manual_seed(3)
            model.sharing(batch.inputs)
        if (penalty := model.sharing.penalty()) is not None:
            of_penalty = gradients_of(penalty, model)
            expected = {key: value + of_penalty[key] for key, value in expected.items()}
        for name, p in (*model.sharing.named_parameters(), *model.heads.named_parameters()):
            assert p.grad is not None, name
            torch.testing.assert_close(
                p.grad, expected[id(p)], rtol=1e-5, atol=1e-9, msg=f"{name} under {balancer}"
            )


def gradients_of(value, model):
    parameters = list(model.parameters())
    return dict(
        zip(
            map(id, parameters),
            torch.autograd.grad(value, parameters, retain_graph=True, materialize_grads=True),
            strict=True,
        )
    )
