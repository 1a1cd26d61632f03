import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, jaccard_score

from src.errors import UserError
from src.tasks import BadLabel, Segmentation
from src.tasks.confusion import compute_accuracy, compute_dice, compute_iou, count_pairs

NAMES = ("road", "sky", "tree", "car")
FOUR = Segmentation(classes=NAMES)


def draw(seed, missing=0.3, classes=4, shape=(5, 6, 7)):
    generator = torch.Generator().manual_seed(seed)
    outputs = torch.randn(*shape, classes, generator=generator)
    targets = torch.randint(classes, shape, generator=generator)
    targets[torch.rand(shape, generator=generator) < missing] = -100
    return outputs, targets


def measure(task, outputs, targets, size=2):
    metrics = task.build_metrics()
    for some, labels in zip(outputs.split(size), targets.split(size), strict=True):
        metrics.update(**task.measure(some, labels))
    return {name: value.item() for name, value in task.compute(metrics).items()}, metrics


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**31), missing=st.floats(0, 0.95), classes=st.integers(2, 6))
def test_metrics_are_those_of_sklearn_over_all_pixels(seed, missing, classes):
    outputs, targets = draw(seed, missing, classes)
    targets[0, 0, 0] = 1
    outputs[..., -1] -= 3 * (seed % 2)  # a class that may occur nowhere
    task = Segmentation(classes=tuple(range(classes)))
    values, _ = measure(task, outputs, targets)

    known = targets != -100
    truth, guess = targets[known].numpy(), outputs.argmax(-1)[known].numpy()
    occurring = sorted({*truth.tolist(), *guess.tolist()})
    iou = jaccard_score(truth, guess, labels=occurring, average="macro", zero_division=0)
    dice = f1_score(truth, guess, labels=occurring, average="macro", zero_division=0)
    assert values["miou"] == pytest.approx(iou, abs=1e-6)
    assert values["dice"] == pytest.approx(dice, abs=1e-6)
    assert values["pixel_accuracy"] == pytest.approx(accuracy_score(truth, guess), abs=1e-6)


def test_metrics_by_hand():
    """Two of three pixels of class 1 are found, and one of class 0 is taken for it."""
    counts = count_pairs(torch.tensor([0, 0, 1, 1, 1]), torch.tensor([0, 1, 1, 1, 0]), 3)
    assert counts.tolist() == [[1, 1, 0], [1, 2, 0], [0, 0, 0]]
    assert compute_iou(counts)[:2].tolist() == [1 / 3, 2 / 4]
    assert compute_dice(counts)[:2].tolist() == [2 / 4, 4 / 6]
    assert compute_iou(counts).isnan().tolist() == [False, False, True]
    assert compute_accuracy(counts) == 3 / 5


def test_background_is_left_out_of_means_over_classes():
    outputs, targets = draw(0)
    values, _ = measure(Segmentation(classes=NAMES, background="sky"), outputs, targets)
    known = targets != -100
    truth, guess = targets[known].numpy(), outputs.argmax(-1)[known].numpy()
    others = [0, 2, 3]
    assert values["miou"] == pytest.approx(
        jaccard_score(truth, guess, labels=others, average="macro")
    )
    assert values["dice"] == pytest.approx(f1_score(truth, guess, labels=others, average="macro"))
    assert values["pixel_accuracy"] == pytest.approx(accuracy_score(truth, guess))


def test_iou_of_each_class_on_request():
    outputs, targets = draw(1)
    task = Segmentation(classes=NAMES, per_class=True)
    values, metrics = measure(task, outputs, targets)
    own = task.compute_per_output(metrics)
    assert list(own) == [f"iou/{name}" for name in NAMES]
    assert torch.stack(list(own.values())).mean().item() == pytest.approx(values["miou"])
    assert FOUR.compute_per_output(metrics) == {}


def test_without_labels_nothing_is_defined():
    outputs, targets = draw(2)
    values, _ = measure(FOUR, outputs, torch.full_like(targets, -100))
    assert np.isnan(list(values.values())).all()


@pytest.mark.parametrize("weights", [None, (1.0, 2.0, 0.5, 0.0)])
def test_losses_of_alike_tasks_against_float64(weights):
    outputs, targets = draw(3, shape=(5, 6, 7, 2))
    task = Segmentation(classes=NAMES, class_weights=weights)
    got = task.losses(outputs.double(), targets)
    log_p = outputs.double().log_softmax(-1).numpy()
    factor = np.array(weights or (1.0,) * 4)
    for index in np.ndindex(*targets.shape):
        label = int(targets[index])
        wanted = 0.0 if label < 0 else -factor[label] * log_p[index][label]
        assert got[index].item() == pytest.approx(wanted, abs=1e-12)


def test_dice_loss_against_float64():
    outputs, targets = draw(4, shape=(3, 5, 6, 2))
    targets[2, ..., 1] = -100  # an image without a label
    plain, task = FOUR, Segmentation(classes=NAMES, dice_weight=0.7)
    extra = (task.losses(outputs.double(), targets) - plain.losses(outputs.double(), targets)) / 0.7
    p = outputs.double().softmax(-1).numpy()
    for image in range(3):
        for k in range(2):
            known = targets[image, ..., k].numpy() >= 0
            terms = []
            for c in range(4):
                share = p[image, ..., k, c][known]
                truth = targets[image, ..., k].numpy()[known] == c
                terms.append((2 * share[truth].sum() + 1) / (share.sum() + truth.sum() + 1))
            wanted = np.where(known, 1 - np.mean(terms), 0)
            np.testing.assert_allclose(extra[image, ..., k].numpy(), wanted, atol=1e-12)


def test_dice_loss_of_an_image_does_not_depend_on_the_others():
    outputs, targets = draw(5, shape=(4, 5, 6, 1))
    task = Segmentation(classes=NAMES, dice_weight=1.0)
    whole = task.losses(outputs, targets)
    halves = [task.losses(outputs[k : k + 2], targets[k : k + 2]) for k in (0, 2)]
    torch.testing.assert_close(torch.cat(halves), whole, rtol=0, atol=1e-7)


def test_missing_pixels_have_no_gradient():
    outputs, targets = draw(6, shape=(2, 3, 3, 1))
    outputs.requires_grad_()
    Segmentation(classes=NAMES, dice_weight=0.5).losses(outputs, targets).sum().backward()
    assert (outputs.grad[targets == -100] == 0).all()
    assert (outputs.grad[targets != -100] != 0).any(-1).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64])
def test_ids_become_positions(dtype):
    ids = np.array([[[3, 7], [255, 3]]]).astype(dtype)
    task = Segmentation(classes=(7, 3), ignore_index=255)
    assert task.encode(ids).tolist() == [[[1, 0], [-100, 1]]]
    named = Segmentation(classes=("a", "b", "c"))
    assert named.encode(np.array([[[2, 0, 1]]], dtype=dtype)).tolist() == [[[2, 0, 1]]]


def test_minus_one_and_nan_are_ignored():
    task = Segmentation(classes=("a", "b"), ignore_index=-1)
    assert task.encode(np.array([[[-1.0, 1.0, np.nan]]])).tolist() == [[[-100, 1, -100]]]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (9, "holds the id 9 at row 1, column 2, where the classes have 0, 1, and 255 for none"),
        (-5, "holds the id -5 at row 1, column 2"),
        (0.5, "holds 0.5 at row 1, column 2, where the id of a class, a whole number"),
        (np.inf, "holds inf at row 1, column 2"),
    ],
)
def test_an_unknown_id_is_refused_with_its_place(value, words):
    ids = np.zeros((2, 3, 4))
    ids[1, 1, 2] = value
    with pytest.raises(BadLabel, match=words) as caught:
        Segmentation(classes=("no", "yes"), ignore_index=255).encode(ids)
    assert caught.value.row == 1


def test_classes_are_learnt_from_training_maps():
    maps = [np.array([[4, 4], [255, 0]], dtype=np.uint8), np.array([[9, 0]], dtype=np.uint8)]
    assert Segmentation(ignore_index=255).learn(maps).classes == (0, 4, 9)
    assert Segmentation(classes=("a", "b")).learn(iter([])).classes == ("a", "b")
    with pytest.raises(UserError, match="no class but 3 in the training split"):
        Segmentation().learn([np.array([[3]])])
    with pytest.raises(UserError, match="no class in the training split"):
        Segmentation(ignore_index=3).learn([np.array([[3]])])


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"classes": ("a",)}, "the only class is a"),
        ({"classes": NAMES, "background": "x"}, "background x is none of road, sky"),
        ({"classes": NAMES, "ignore_index": 2}, "ignore_index 2 is the id of a class"),
        ({"classes": (5, 6), "ignore_index": 6}, "ignore_index 6 is the id of a class"),
        ({"dice_weight": -1.0}, "dice_weight -1.0 must be at least 0"),
        ({"pooled": True}, "has a label for each pixel"),
        ({"monitor": "accuracy"}, "none of miou, pixel_accuracy, dice"),
    ],
)
def test_wrong_settings(fields, words):
    with pytest.raises(UserError, match=words):
        Segmentation(**fields)


def test_decoding():
    outputs = F.one_hot(torch.tensor([[[0, 1], [1, 1]], [[2, 2], [2, 3]]]), 4).float()
    assert FOUR.decode(outputs) == {
        "share_road": [0.25, 0.0],
        "share_sky": [0.75, 0.0],
        "share_tree": [0.0, 0.75],
        "share_car": [0.0, 0.25],
    }
    targets = torch.tensor([[[0, -100], [1, -100]], [[-100, -100], [-100, -100]]])
    assert FOUR.decode_targets(targets)["share_sky"] == [0.5, None]

    ids = Segmentation(classes=(0, 7, 300, 9)).decode_map(outputs)
    assert ids.tolist() == [[[0, 7], [7, 7]], [[300, 300], [300, 9]]]
    maps = FOUR.decode_map(outputs)
    assert maps.dtype == np.uint8
    assert maps[1].tolist() == [[2, 2], [2, 3]]
    assert Segmentation(classes=(-1, 1)).decode_map(outputs[..., :2]).min() == -1


def test_ensembles_average_probabilities():
    outputs_M = torch.randn(3, 2, 4, 5, 4, generator=torch.Generator().manual_seed(0)).double()
    mixed = FOUR.average(outputs_M)
    mean = outputs_M.softmax(-1).mean(0)
    torch.testing.assert_close(mixed.softmax(-1), mean)
    chosen = mean.argmax(-1, keepdim=True)
    wanted = outputs_M.softmax(-1).gather(-1, chosen.expand(3, -1, -1, -1, 1))
    wanted = wanted.std(0, correction=0).mean((1, 2, 3))
    assert FOUR.measure_spread(outputs_M, mixed)["spread"] == pytest.approx(wanted.tolist())


def test_metrics_that_settings_add_see_predictions():
    task = Segmentation(classes=NAMES, metrics=("CohenKappa",))
    outputs, targets = draw(7)
    metrics = task.assemble_metrics()
    task.update_metrics(metrics, outputs, targets)
    known = targets != -100
    from sklearn.metrics import cohen_kappa_score

    wanted = cohen_kappa_score(targets[known], outputs.argmax(-1)[known])
    assert task.compute(metrics)["CohenKappa"].item() == pytest.approx(wanted, abs=1e-6)
