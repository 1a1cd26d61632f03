import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import ResNetConfig, ResNetModel

from src.batch import InputShape
from src.models.encoders.encoder import Layout, top
from src.models.encoders.resnet import ResNet
from src.models.sharing import HardSharing
from src.models.sharing.separate import Separate
from src.models.sharing.sharing import check_owners

IMAGE = InputShape((3, 9, 7))
SHARINGS = [
    lambda make: HardSharing(make, "ab"),
    lambda make: Separate(make, "ab"),
    lambda make: HardSharing(make, "ab", until=1),
]


def check_encoder(make, shape, size):
    """Checks an encoder of images that ``make()`` makes: a sample's features have this size."""
    torch.manual_seed(3)
    encoder = make()
    torch.manual_seed(3)
    np.random.seed(None)
    again = make()
    assert all(
        torch.equal(p, q) for p, q in zip(encoder.parameters(), again.parameters(), strict=True)
    )

    x = torch.randn(3, *shape.dense, generator=torch.Generator().manual_seed(0))
    z = encoder(x)
    assert z.shape == (3, *size)
    assert z.is_contiguous()
    assert encoder.features == size[-1]
    torch.testing.assert_close(encoder(x[[2, 0]]), z[[2, 0]], atol=1e-5, rtol=1e-5)
    state, layouts = x, encoder.layouts()
    for stage, layout in zip(encoder.stages, layouts, strict=True):
        state = stage(state)
        assert layout == Layout(
            top(state).shape[1 if layout.image else -1],
            stage is not encoder.stages[-1],
            top(state).ndim,
        )
    assert torch.equal(state, z)

    (z * torch.randn(z.shape, generator=torch.Generator().manual_seed(1))).sum().backward()
    assert [
        name for name, p in encoder.named_parameters() if p.grad is None or not p.grad.any()
    ] == []


def check_sharings(make):
    """It runs whole, as several and in branches, and its owners are right."""
    for sharing in SHARINGS:
        network = sharing(make)
        inputs = make().shape.example(3)
        check_owners(network, inputs)
        assert {z.shape for z in network(inputs).values()} == {make()(inputs).shape}


@pytest.mark.parametrize(
    ("settings", "features"),
    [
        ({}, 64),
        ({"depth": 34, "width": 4}, 32),
        ({"depth": 50, "stem": "imagenet"}, 256),
        ({"width": 1}, 8),
    ],
)
def test_contract(settings, features):
    check_encoder(lambda: ResNet(IMAGE, **{"width": 8} | settings), IMAGE, (features,))


def test_sharings():
    check_sharings(lambda: ResNet(IMAGE, width=8))


@pytest.mark.parametrize(
    ("stem", "sizes"),
    [
        ("cifar", [(33, 18), (33, 18), (17, 9), (9, 5), (5, 3)]),
        ("imagenet", [(9, 5), (9, 5), (5, 3), (3, 2)]),
    ],
)
def test_the_size_at_each_stage(stem, sizes):
    x = torch.randn(1, 3, 33, 18)
    for k, (stage, size) in enumerate(
        zip(ResNet(InputShape((3, 33, 18)), width=8, stem=stem).stages, sizes, strict=False)
    ):
        assert (x := stage[:-1](x) if k == 4 else stage(x)).shape == (
            1,
            8 * 2 ** max(0, k - 1),
            *size,
        )


@pytest.mark.parametrize(("depth", "count"), [(18, 11_176_512), (34, 21_284_672), (50, 23_508_032)])
def test_as_many_parameters_as_published(depth, count):
    with torch.device("meta"):
        encoder = ResNet(InputShape((3, 224, 224)), depth, stem="imagenet")
    assert sum(p.numel() for p in encoder.parameters()) == count
    assert len(encoder.stages) == 5


@pytest.mark.parametrize("depth", [18, 34, 50])
def test_equals_the_one_of_transformers(depth):
    sizes = [8 * 2**i * (4 if depth == 50 else 1) for i in range(4)]
    config = ResNetConfig(
        embedding_size=8,
        hidden_sizes=sizes,
        depths=[2, 2, 2, 2] if depth == 18 else [3, 4, 6, 3],
        layer_type="bottleneck" if depth == 50 else "basic",
    )
    theirs = ResNetModel(config).eval()
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.0)
            nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
    ours = ResNet(InputShape((3, 45, 64)), depth, width=8, stem="imagenet", norm="batch").eval()
    state = zip(
        ours.state_dict(), theirs.state_dict().values(), strict=True
    )  # both in the order of the layers
    ours.load_state_dict(dict(state))
    x = torch.randn(2, 3, 45, 64)
    with torch.no_grad():
        z = theirs(x).pooler_output.flatten(1)
        assert z.std() > 0.1
        torch.testing.assert_close(ours(x), z, atol=1e-5, rtol=1e-5)


def test_group_norm_stands_where_batch_norm_does():
    kinds = {"group": nn.GroupNorm, "batch": nn.BatchNorm2d}
    found = {
        norm: [type(m) for m in ResNet(IMAGE, 50, width=8, norm=norm).modules()] for norm in kinds
    }
    assert [kinds["batch"] if kind is kinds["group"] else kind for kind in found["group"]] == found[
        "batch"
    ]
    assert found["group"].count(nn.GroupNorm) == 53
    assert {
        m.num_groups for m in ResNet(IMAGE, width=16).modules() if isinstance(m, nn.GroupNorm)
    } == {8}


def test_a_block_by_hand():
    encoder = ResNet(IMAGE, width=8).double()
    block = encoder.stages[2][0]  # halves the image and doubles the channels
    for p in block.parameters():
        nn.init.normal_(p)
    w = dict(block.named_parameters())

    def norm(y, at):
        groups = y.unflatten(1, (8, -1))
        centred = groups - groups.mean((2, 3, 4), keepdim=True)
        y = (centred / (centred.square().mean((2, 3, 4), keepdim=True) + 1e-5).sqrt()).flatten(1, 2)
        return y * w[f"{at}.weight"][:, None, None] + w[f"{at}.bias"][:, None, None]

    x = torch.randn(2, 8, 9, 7, dtype=torch.float64)
    y = norm(F.conv2d(x, w["body.0.0.weight"], stride=2, padding=1), "body.0.1").relu()
    y = norm(F.conv2d(y, w["body.2.0.weight"], padding=1), "body.2.1")
    y = (y + norm(F.conv2d(x, w["shortcut.0.weight"], stride=2), "shortcut.1")).relu()
    torch.testing.assert_close(block(x), y, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize(
    ("shape", "settings", "message"),
    [
        (
            InputShape((5,)),
            {},
            r"reads images .* gives inputs of shape \(5,\): use --model.encoder MLP",
        ),
        (InputShape((3, 8, 8), (4,)), {}, "and 1 categorical columns"),
        (IMAGE, {"depth": 20}, "depth 20 must be 18, 34 or 50"),
        (IMAGE, {"stem": "big"}, "stem 'big' must be cifar or imagenet"),
        (IMAGE, {"norm": "layer"}, "norm 'layer' must be group or batch"),
        (IMAGE, {"width": 12}, "width 12 must be a multiple of 8"),
        (IMAGE, {"width": 3}, "width 3 must be a multiple of 8"),
        (IMAGE, {"width": 0, "norm": "batch"}, "width 0 must be at least 1"),
    ],
)
def test_bad_settings_are_named(shape, settings, message):
    with pytest.raises(ValueError, match=f"^ResNet.*{message}"):
        ResNet(shape, **settings)


def test_batch_norm_takes_any_width():
    assert ResNet(IMAGE, width=3, norm="batch").features == 24
