"""Fusion: features of each input, averaged and joined; each input a part that can lie elsewhere."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD

from src.batch import InputShape, inputs_of
from src.data import Rows, Split
from src.errors import UserError
from src.models import MultiTaskModel
from src.models.encoders import (
    MLP,
    BiLSTM,
    ConvNet,
    Encoder,
    Fusion,
    MessagePassing,
    TabularTransformer,
    Transformer,
    UNet,
)
from src.models.encoders.fusion import Join, Member
from src.models.encoders.transformer import Finish
from src.models.sharing import CrossStitch, HardSharing
from src.parallel import Placement
from tests.toy import Toy, bare_trainer
from tests.virtual_device import OnVirtual, crossings

SHAPE = InputShape(
    members=(
        ("table", InputShape((2,), (4,))),
        ("comment", InputShape(tokens=9)),
        ("photo", InputShape((2, 6, 6))),
    )
)
PARTS: dict[str, Any] = {
    "table": partial(MLP, width=4, depth=1),
    "text": partial(Transformer, width=8, depth=1, heads=2),
    "images": partial(ConvNet, width=4, depth=1),
}


def make(**more: Any) -> Fusion:
    torch.manual_seed(0)
    return Fusion(SHAPE, **{**PARTS, "width": 8, "heads": 2, **more}).eval()


def encode_apart(encoder: Fusion, inputs: dict[str, Tensor]) -> list[Tensor]:
    """The features of each input, by its own network alone."""
    found = []
    for stage, (name, _) in zip(encoder.stages, SHAPE.members, strict=False):
        assert isinstance(stage, Member)
        z = stage.network(inputs_of(name, inputs))
        if z.ndim == 3:
            real = (inputs[f"{name}/tokens"] > 0)[..., None]
            z = (z * real).sum(1) / real.sum(1).clamp(min=1)
        if z.ndim == 4:
            z = z.mean((1, 2))
        found.append(z)
    return found


def fusion_of(encoder: Fusion) -> list[nn.Module]:
    """The layers of the last stage."""
    last = encoder.stages[-1]
    assert isinstance(last, nn.Sequential)
    return list(last)


def linear_layers(join: nn.Module) -> list[nn.Linear]:
    """The layers that the features of each input go through."""
    assert isinstance(join, Join)
    return [layer for layer in join.project if isinstance(layer, nn.Linear)]


@pytest.mark.parametrize("images", [PARTS["images"], partial(UNet, width=4, depth=1)])
def test_concatenation_is_a_linear_layer_of_the_features_side_by_side(
    images: Callable[[InputShape], Encoder],
) -> None:
    encoder = make(images=images, depth=0)
    inputs = SHAPE.example(3)
    assert isinstance(inputs, dict)
    join, norm, gelu = fusion_of(encoder)
    layers = linear_layers(join)
    weight = torch.cat([layer.weight for layer in layers], 1)
    bias = torch.stack([layer.bias for layer in layers]).sum(0)
    z = torch.cat(encode_apart(encoder, inputs), 1)
    torch.testing.assert_close(encoder(inputs), gelu(norm(z @ weight.T + bias)))


def test_attention_has_a_token_for_each_input() -> None:
    encoder = make(how="attention", depth=2)
    inputs = SHAPE.example(3)
    assert isinstance(inputs, dict)
    join, *blocks, finish = fusion_of(encoder)
    assert isinstance(finish, Finish)
    each = zip(linear_layers(join), encode_apart(encoder, inputs), strict=True)
    x = torch.stack([project(z) for project, z in each], 1)
    assert x.shape == (3, 3, 8)
    for block in blocks:
        x = block(x)
    torch.testing.assert_close(encoder(inputs), finish.norm(x).mean(1))


@pytest.mark.parametrize("how", ["concat", "attention"])
def test_a_sample_does_not_depend_on_the_padding_of_others(how: str) -> None:
    encoder = make(how=how)
    inputs = SHAPE.example(4)
    assert isinstance(inputs, dict)
    inputs["comment/tokens"][1] = 0  # no text at all
    whole = encoder(inputs)
    assert whole.isfinite().all()
    inputs["comment/tokens"] = torch.nn.functional.pad(inputs["comment/tokens"], (0, 3))
    torch.testing.assert_close(encoder(inputs), whole, rtol=1e-5, atol=1e-6)
    alone = {key: values[1:2] for key, values in inputs.items()}
    alone["comment/tokens"] = alone["comment/tokens"][:, :1]
    torch.testing.assert_close(encoder(alone), whole[1:2], rtol=1e-5, atol=1e-6)


def test_an_input_may_have_an_encoder_of_its_own() -> None:
    encoder = make(members={"comment": partial(BiLSTM, width=4)})
    assert len(encoder.stages) == 4
    assert encoder(SHAPE.example()).shape == (2, 8)
    with pytest.raises(UserError, match=r"members names 'coment'.*did you mean 'comment'"):
        make(members={"coment": MLP})


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"text": MLP}, "input 'comment': MLP reads vectors.*--model.encoder.text Transformer"),
        ({"table": ConvNet}, "input 'table': .*--model.encoder.table MLP"),
        ({"members": {"photo": MLP, "table": UNet}}, "--model.encoder.members.table MLP"),
        ({"how": "sum"}, "how sum is neither concat nor attention"),
        ({"width": 0}, "width 0"),
        ({"how": "attention", "width": 9}, "width 9 is not a multiple of heads 2"),
    ],
)
def test_wrong_settings(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        make(**settings)


@pytest.mark.parametrize("kind", [MLP, Transformer, TabularTransformer, ConvNet, MessagePassing])
def test_other_encoders_name_this_one(kind: Any) -> None:
    with pytest.raises(UserError, match=r"several inputs \(table, comment, photo\)"):
        kind(SHAPE)
    with pytest.raises(
        UserError, match=r"Fusion reads several inputs.*--model.encoder Transformer"
    ):
        Fusion(InputShape(tokens=4))


class Several(Toy):
    """The toy's numbers as several inputs."""

    @property
    def input_shape(self) -> InputShape:
        return SHAPE

    def split(self, name: Split) -> Rows:
        rows = super().split(name)
        x = rows.inputs
        assert isinstance(x, Tensor)
        inputs = {
            "table/dense": x[:, :2],
            "table/categorical": (x[:, 2:3] > 0).long() + 1,
            "comment/tokens": (x[:, :4].abs() * 3).long().clamp(max=8),
            "photo/dense": x[:, 4, None, None, None] * torch.ones(2, 6, 6),
        }
        return Rows({**inputs}, rows.targets)


def fit(sharing: Any, strategy: Any = "auto") -> dict[str, Tensor]:
    data = Several()
    encoder = partial(Fusion, **PARTS, width=8, dropout=0.3)
    model = MultiTaskModel(
        data.tasks,
        SHAPE,
        encoder,
        sharing,
        optimizer=partial(SGD, lr=0.05),
        scheduler=None,
    )
    model.configure_model()
    if strategy != "auto":
        strategy.parallel_devices = [torch.device("cpu"), torch.device("vdev:0")]
        strategy.check(model)
    devices = 1 if strategy == "auto" else 2
    trainer = bare_trainer(devices, 1, strategy=strategy, limit_train_batches=4)
    crossings.clear()
    with OnVirtual():
        trainer.fit(model, data)
    state = model.state_dict().items()
    return {name: value for name, value in state if value.is_floating_point()}


@pytest.mark.parametrize(
    ("sharing", "slices"), [(HardSharing, 1), (HardSharing, 3), (CrossStitch, 1)]
)
def test_inputs_may_lie_on_several_devices(sharing: Any, slices: int) -> None:
    path = "encoders.encoders.*" if sharing is CrossStitch else "encoder"
    place = {f"{path}.stages.1": 1, f"{path}.stages.2": 1}
    ours = fit(sharing, Placement(placement=place, micro_batches=slices))
    assert crossings
    theirs = fit(sharing)
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-5, atol=1e-6, msg=name)
