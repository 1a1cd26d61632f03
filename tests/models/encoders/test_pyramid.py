from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from src.batch import InputShape
from src.models.encoders import MLP, ConvNet, Encoder
from src.models.encoders.convnet import Pool
from src.models.encoders.pyramid import FeaturePyramid
from src.models.encoders.resnet import ResNet
from src.models.encoders.unet import UNet
from tests.models.encoders.test_resnet import check_encoder, check_sharings

IMAGE = InputShape((2, 9, 7))


class Flat(Encoder):
    """Ends with a Pool, but goes through vectors."""

    def __init__(self, shape):
        super().__init__(shape)
        self.stages = nn.Sequential(
            nn.Flatten(), nn.Sequential(nn.Unflatten(1, shape.dense), Pool())
        )
        self.features = shape.dense[0]


BACKBONES = {
    "ConvNet": partial(ConvNet, width=8),
    "ConvNet of one stage": partial(ConvNet, width=8, depth=1),
    "ResNet": partial(ResNet, width=8),
    "ResNet that starts with a quarter": partial(ResNet, width=8, stem="imagenet"),
}


@pytest.mark.parametrize("size", [(9, 7), (32, 16)])
@pytest.mark.parametrize("backbone", BACKBONES.values(), ids=BACKBONES)
def test_contract(size, backbone):
    shape = InputShape((2, *size))
    check_encoder(lambda: FeaturePyramid(shape, backbone, width=16), shape, (*size, 16))


def test_sharings():
    check_sharings(lambda: FeaturePyramid(IMAGE, partial(ConvNet, width=8), width=8))


def test_the_backbones_stages_come_first_and_its_mean_is_gone():
    torch.manual_seed(0)
    backbone = ConvNet(IMAGE, width=8)
    torch.manual_seed(0)
    encoder = FeaturePyramid(IMAGE, partial(ConvNet, width=8), width=8)
    x = torch.randn(3, 2, 9, 7)
    state, found = x, []
    for stage in list(encoder.stages)[:3]:
        state = stage(state)
        found.append([tuple(y.shape[1:]) for y in state])
    one, two, three = (8, 9, 7), (16, 5, 4), (32, 3, 2)
    assert found == [[one, (0, 9, 7)], [two, (0, 9, 7), one], [three, (0, 9, 7), one, two]]
    assert torch.equal(state[0].mean((2, 3)), backbone(x))
    assert len(encoder.stages) == 4


def test_by_hand():
    encoder = FeaturePyramid(IMAGE, partial(ResNet, width=8, stem="imagenet"), width=16).double()
    for p in encoder.stages[-1].parameters():
        nn.init.normal_(p)
    w = dict(encoder.stages[-1].named_parameters())
    y = x = torch.randn(2, 2, 45, 33, dtype=torch.float64)
    levels = [y := stage.body(y) for stage in list(encoder.stages)[:5]]
    assert [tuple(y.shape[2:]) for y in levels] == [(12, 9), (12, 9), (6, 5), (3, 3), (2, 2)]

    above, total = None, 0
    for k in reversed(range(5)):
        p = torch.einsum("bchw,dc->bdhw", levels[k], w[f"lateral.{k}.weight"][:, :, 0, 0])
        if above is not None:
            rows, columns = (
                torch.arange(n) * m // n for n, m in zip(p.shape[2:], above.shape[2:], strict=True)
            )
            p = p + above[:, :, rows][..., columns]
        above = p
        s = F.conv2d(p, w[f"smooth.{k}.0.0.weight"], padding=1)
        s = F.group_norm(s, 8, w[f"smooth.{k}.0.1.weight"], w[f"smooth.{k}.0.1.bias"]).relu()
        total = total + F.interpolate(s, (12, 9), mode="bilinear")
    z = F.interpolate(total, (45, 33), mode="bilinear").permute(0, 2, 3, 1)
    torch.testing.assert_close(encoder(x), z, atol=1e-10, rtol=1e-10)


def test_learns_which_half_of_the_image_is_brighter_at_every_pixel():
    torch.manual_seed(0)
    shape = InputShape((1, 16, 16))
    encoder = FeaturePyramid(shape, partial(ConvNet, width=8), width=16)
    head = nn.Linear(16, 2)
    optimizer = torch.optim.Adam([*encoder.parameters(), *head.parameters()], lr=1e-2)
    x = torch.randn(32, *shape.dense)
    far = (x[..., :8].mean((1, 2, 3)) > x[..., 8:].mean((1, 2, 3)))[:, None, None].expand(
        -1, 16, 16
    )
    y = torch.stack(
        [far, x[:, 0] > 0], -1
    ).float()  # one label of the whole image, one of the pixel alone
    losses = []
    for _ in range(60):
        loss = F.binary_cross_entropy_with_logits(head(encoder(x)), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 0.6
    assert losses[-1] < 0.15


@pytest.mark.parametrize(
    ("shape", "settings", "message"),
    [
        (
            InputShape((5,)),
            {},
            r"reads images .* gives inputs of shape \(5,\): use --model.encoder MLP",
        ),
        (IMAGE, {"width": 12}, "width 12 must be a multiple of 8"),
        (IMAGE, {"backbone": MLP}, r"backbone MLP must put out images \(B, C, H, W\)"),
        (IMAGE, {"backbone": UNet}, "backbone UNet must put out images"),
        (IMAGE, {"backbone": Flat}, "backbone Flat must put out images"),
    ],
)
def test_bad_settings_are_named(shape, settings, message):
    with pytest.raises(ValueError, match=f"^FeaturePyramid.*{message}"):
        FeaturePyramid(shape, **settings)
