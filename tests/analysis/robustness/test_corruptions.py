"""Corruptions do what they say, and to no other part of the inputs."""

from dataclasses import replace

import pytest
import torch
from scipy.ndimage import gaussian_filter

from src.analysis.robustness.corruptions import (
    CORRUPTIONS,
    UNKNOWN,
    Blur,
    Brightness,
    Contrast,
    Missing,
    Noise,
    Swapped,
    Tokens,
    blur_images,
)
from src.analysis.robustness.parts import Part, PartColumn, measure_training
from src.batch import InputShape
from tests.analysis.robustness.samples import make_images, make_table

TEXT = Part("", "text", InputShape(tokens=50))


def corrupt(kind, part, inputs, severity, first=0):
    ids = torch.arange(first, first + len(next(iter(part.read(inputs).values()))))
    return kind.corrupt([part], inputs, ids, severity, seed=5)


@pytest.mark.parametrize("severity", [1, 3, 5])
def test_noise_has_the_spread_of_the_training_rows(severity):
    part, inputs = make_table(4000)
    gap = corrupt(Noise(), part, inputs, severity)["dense"] - inputs["dense"]
    known = inputs["dense"][:, 1] == 0
    amount = Noise.amounts[severity - 1]
    assert gap[known, 0].std() == pytest.approx(amount * float(part.learnt.std[0]), rel=0.05)
    assert gap[:, 2].std() == pytest.approx(amount * float(part.learnt.std[2]), rel=0.05)
    # missing values and indicators stay
    assert not gap[~known, 0].any()
    assert not gap[:, 1].any()


@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
def test_each_row_lacks_as_many_columns(severity):
    part, inputs = make_table()
    changed = corrupt(Missing(), part, inputs, severity)
    lacks = torch.stack(
        [
            changed["dense"][:, 1] == 1,
            changed["dense"][:, 2] == 0,
            changed["categorical"][:, 0] == 3,
            changed["categorical"][:, 1] == 0,
        ],
        1,
    )
    had = torch.stack([inputs["dense"][:, 1] == 1, inputs["categorical"][:, 0] == 3], 1)
    clear = ~had.any(1)
    assert (lacks[clear].sum(1) == min(severity, 4)).all()
    assert (changed["dense"][changed["dense"][:, 1] == 1, 0] == 0).all()
    # each column is lacking in some rows
    assert lacks.any(0).all()


def test_a_tenth_of_many_columns_is_missing_by_severity():
    dense = torch.randn(9, 40)
    part = Part("", "table", InputShape((40,)), tuple(PartColumn(f"{k}", (k,)) for k in range(40)))
    part = replace(part, training=measure_training(part, dense))
    changed = corrupt(Missing(), part, dense, 3)
    assert ((changed != dense).sum(1) == 12).all()
    # data that read no missing values have the mean in their place
    places = changed != dense
    means = part.learnt.mean.float().expand_as(dense)
    assert torch.equal(changed[places], means[places])


@pytest.mark.parametrize("severity", [1, 5])
def test_swapped_categories_come_from_the_training_rows(severity):
    part, inputs = make_table(4000)
    changed = corrupt(Swapped(), part, inputs, severity)
    assert torch.equal(changed["dense"], inputs["dense"])
    share = (changed["categorical"] != inputs["categorical"]).double().mean(0)
    # a draw may hit the same word: of three words in a third of all cases, of two in half
    amount = Swapped.amounts[severity - 1]
    assert share[0] == pytest.approx(amount * 2 / 3, rel=0.2)
    assert share[1] == pytest.approx(amount / 2, rel=0.2)
    before, after = (one["categorical"][:, 0].bincount() / 4000 for one in (inputs, changed))
    assert after.tolist() == pytest.approx(before.tolist(), abs=0.03)


def test_blur_is_that_of_scipy():
    images = torch.rand(2, 3, 20, 17, dtype=torch.float64)
    ours = blur_images(images, 1.2)
    theirs = gaussian_filter(images.numpy(), (0, 0, 1.2, 1.2), mode="nearest", radius=(0, 0, 4, 4))
    assert torch.allclose(ours, torch.from_numpy(theirs), atol=1e-12)


def test_blur_grows_with_large_images():
    part, images = make_images(2, 128)
    changed = corrupt(Blur(), part, images, 4)
    assert torch.allclose(changed, blur_images(images, 2 * Blur.amounts[3]), atol=1e-6)


def test_brighter_pixels_stay_within_those_of_training():
    part, images = make_images()
    changed = corrupt(Brightness(), part, images, 3)
    wanted = (images + part.learnt.std).clamp(max=part.learnt.high)
    assert torch.allclose(changed, wanted.float(), atol=1e-6)


def test_contrast_keeps_the_mean_of_an_image():
    part, images = make_images()
    changed = corrupt(Contrast(), part, images, 2)
    assert torch.allclose(changed.mean((2, 3)), images.mean((2, 3)), atol=1e-6)
    assert torch.allclose(changed.std((2, 3)), 0.5 * images.std((2, 3)), atol=1e-6)


def test_dropped_tokens_leave_no_gap():
    tokens = torch.arange(1, 41).repeat(200, 1)
    tokens[:, 30:] = 0
    changed = corrupt(Tokens(), TEXT, {"tokens": tokens}, 5)["tokens"]
    lengths = (changed > 0).sum(1)
    assert lengths.double().mean() == pytest.approx(15, abs=0.7)
    for row, length in zip(changed, lengths, strict=True):
        kept = row[:length]
        # in their order, and zeros behind
        assert (kept.diff() > 0).all()
        assert not row[length:].any()


def test_a_text_keeps_a_token_and_those_of_its_tokenizer():
    single = torch.zeros(100, 3, dtype=torch.long)
    single[:, 0] = 7
    assert torch.equal(corrupt(Tokens(), TEXT, {"tokens": single}, 5)["tokens"], single)

    special = Part("", "text", InputShape(tokens=50), special=True)
    tokens = torch.tensor([[40, 5, 6, 7, 41, 0]]).repeat(100, 1)
    changed = corrupt(Tokens(), special, {"tokens": tokens}, 5)["tokens"]
    assert (changed[:, 0] == 40).all()
    last = (changed > 0).sum(1) - 1
    assert (changed.gather(1, last[:, None]) == 41).all()


def test_tokens_with_labels_stay_in_their_place_and_are_unknown():
    tokens = torch.full((100, 6), 9)
    tokens[:, 5] = 0
    parts = torch.tensor([2, 8, 9, 3, 0]).expand(100, 6, 5) * (tokens > 0)[..., None]
    changed = corrupt(Tokens(by_token=True), TEXT, {"tokens": tokens, "parts": parts}, 4)
    hidden = changed["tokens"] == UNKNOWN
    assert hidden.double().mean() == pytest.approx(0.35 * 5 / 6, abs=0.06)
    assert ((changed["tokens"] > 0) == (tokens > 0)).all()
    assert (changed["parts"][hidden] == torch.tensor([2, 1, 1, 3, 0])).all()
    assert torch.equal(changed["parts"][~hidden], parts[~hidden])


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_row_is_corrupted_alike_in_any_batch(name):
    if name == "tokens":
        part, inputs = TEXT, {"tokens": torch.randint(2, 50, (8, 12))}
    elif name in ("noise", "missing", "swapped"):
        part, inputs = make_table(8)
    else:
        part, inputs = make_images(8)
    kind = CORRUPTIONS[name]()
    whole = part.read(corrupt(kind, part, inputs, 4))
    if isinstance(inputs, dict):
        rest = {key: values[3:] for key, values in inputs.items()}
    else:
        rest = inputs[3:]
    for key, values in part.read(corrupt(kind, part, rest, 4, first=3)).items():
        assert torch.equal(values, whole[key][3:])


def test_graphs_suit_no_corruption():
    graph = Part("", "graph", InputShape(nodes=4))
    assert not any(kind().suits(graph) for kind in CORRUPTIONS.values())
