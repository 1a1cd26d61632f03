import pytest
import torch
import torch.nn.functional as F
from torch import nn

from src.batch import InputShape
from src.models.encoders.encoder import top, with_top
from src.models.encoders.unet import UNet, resize_like
from tests.models.encoders.test_resnet import check_encoder, check_sharings

IMAGE = InputShape((2, 9, 7))


@pytest.mark.parametrize("size", [(9, 7), (16, 16), (1, 5), (2, 3)])
@pytest.mark.parametrize(
    ("settings", "features"),
    [({}, 8), ({"multi_scale": True}, 120), ({"depth": 1, "width": 4, "multi_scale": True}, 12)],
)
def test_contract(size, settings, features):
    shape = InputShape((2, *size))
    check_encoder(lambda: UNet(shape, **{"width": 8} | settings), shape, (*size, features))


@pytest.mark.parametrize("multi_scale", [False, True])
def test_sharings(multi_scale):
    check_sharings(lambda: UNet(IMAGE, width=8, depth=2, multi_scale=multi_scale))


@pytest.mark.parametrize("multi_scale", [False, True])
def test_what_travels_between_the_stages(multi_scale):
    state, found = torch.randn(3, 2, 9, 7), []
    for stage in UNet(IMAGE, width=8, depth=2, multi_scale=multi_scale).stages:
        state = stage(state)
        found.append([tuple(x.shape[1:]) for x in (state if isinstance(state, tuple) else [state])])
    full, half, quarter = (8, 9, 7), (16, 5, 4), (32, 3, 2)
    down = [[full], [half, full], [quarter, full, half]]
    assert found == [
        *down,
        *([[half, quarter, full], [(9, 7, 56)]] if multi_scale else [[half, full], [(9, 7, 8)]]),
    ]


@pytest.mark.parametrize("multi_scale", [False, True])
def test_by_hand(multi_scale):
    encoder = UNet(IMAGE, width=8, depth=2, multi_scale=multi_scale).double()
    for p in encoder.parameters():
        nn.init.normal_(p)
    w = dict(encoder.stages.named_parameters())

    def twice(x, at):
        for conv in (0, 3):
            y = F.conv2d(x, w[f"{at}.{conv}.weight"], padding=1)
            x = F.group_norm(y, 8, w[f"{at}.{conv + 1}.weight"], w[f"{at}.{conv + 1}.bias"]).relu()
        return x

    def up(x, skip, at):
        x = F.conv2d(F.interpolate(x, skip.shape[2:], mode="bilinear"), w[f"{at}.narrow.weight"])
        return twice(torch.cat([skip, x], 1), f"{at}.body")

    x = torch.randn(2, 2, 9, 7, dtype=torch.float64)
    e0 = twice(x, "0")
    e1 = twice(F.max_pool2d(e0, 2, ceil_mode=True), "1.body")
    e2 = twice(F.max_pool2d(e1, 2, ceil_mode=True), "2.body")
    d1 = up(e2, e1, "3")
    d0 = up(d1, e0, "4.0")
    levels = [d0, d1, e2] if multi_scale else [d0]
    z = torch.cat([F.interpolate(d, (9, 7), mode="bilinear") for d in levels], 1).permute(
        0, 2, 3, 1
    )
    torch.testing.assert_close(encoder(x), z, atol=1e-10, rtol=1e-10)


def test_what_acts_on_x_between_the_stages_acts_on_the_skip():
    first, second = list(UNet(IMAGE, width=8, depth=1).stages)[:2]
    state = first(torch.randn(3, 2, 9, 7))
    assert torch.equal(second(with_top(state, 2 * top(state)))[-1], 2 * top(state))


def test_resizing_is_linear_between_the_centres_of_pixels():
    x = torch.tensor([[[[0.0, 1.0]]]])
    assert resize_like(x, torch.zeros(1, 4)).tolist() == [[[[0.0, 0.25, 0.75, 1.0]]]]
    assert resize_like(x, torch.zeros(1, 2)) is x


def test_a_pixel_sees_the_image_around_it_and_the_bottom_all_of_it():
    encoder = UNet(InputShape((1, 64, 64)), width=8, depth=3).double()
    for module in encoder.modules():  # that sees all of the image at any depth
        if isinstance(module, nn.GroupNorm):
            module.forward = lambda x: x
    x = torch.rand(1, 1, 64, 64, dtype=torch.float64, requires_grad=True)
    encoder(x)[0, 32, 32].sum().backward()
    seen = x.grad[0, 0].nonzero()
    assert (seen.amax(0) - seen.amin(0) + 1).min() >= 60


@pytest.mark.parametrize("multi_scale", [False, True])
def test_learns_which_pixels_are_above_the_mean_around_them(multi_scale):
    torch.manual_seed(0)
    shape = InputShape((1, 15, 18))
    encoder = UNet(shape, width=8, depth=2, multi_scale=multi_scale)
    head = nn.Linear(encoder.features, 1)
    optimizer = torch.optim.Adam([*encoder.parameters(), *head.parameters()], lr=1e-2)
    x = torch.randn(16, *shape.dense)
    y = (x > F.avg_pool2d(x, 7, stride=1, padding=3)).float().squeeze(1)
    losses = []
    for _ in range(60):
        loss = F.binary_cross_entropy_with_logits(head(encoder(x)).squeeze(-1), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 0.6
    assert losses[-1] < 0.1


@pytest.mark.parametrize(
    ("shape", "settings", "message"),
    [
        (
            InputShape((5,)),
            {},
            r"reads images .* gives inputs of shape \(5,\): use --model.encoder MLP",
        ),
        (IMAGE, {"width": 12}, "width 12 must be a multiple of 8"),
        (IMAGE, {"width": 0}, "width 0 must be at least 1"),
        (IMAGE, {"depth": 0}, "depth 0 must be at least 1"),
    ],
)
def test_bad_settings_are_named(shape, settings, message):
    with pytest.raises(ValueError, match=f"^UNet.*{message}"):
        UNet(shape, **settings)
