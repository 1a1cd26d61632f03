import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from src.errors import UserError
from src.tasks import BadLabel, SurfaceNormals
from src.tasks.angle_errors import BIN, AngleErrors, measure_angles

TASK = SurfaceNormals()
NAN = float("nan")


def draw(seed, missing=0.3, shape=(5, 6, 7), noise=0.3):
    rng = np.random.default_rng(seed)
    labels = rng.normal(size=(*shape, 3))
    labels[rng.random(shape) < missing] = 0
    labels[0, 0, 0] = 0, 0, 1
    outputs = torch.tensor(rng.uniform(0.1, 5) * (labels + noise * rng.normal(size=labels.shape)))
    return outputs, labels


def find_angles(outputs, labels):
    """Angles of the labelled pixels, by the arc cosine in long double."""
    known = np.any(labels != 0, -1)
    x, y = outputs.numpy()[known].astype(np.longdouble), labels[known].astype(np.longdouble)
    cosine = (x * y).sum(-1) / np.linalg.norm(x, axis=-1) / np.linalg.norm(y, axis=-1)
    return np.degrees(np.arccos(np.clip(cosine, -1, 1))).astype(float)


def measure(outputs, targets, size=2):
    metrics = TASK.build_metrics()
    for some, labels in zip(outputs.split(size), targets.split(size), strict=True):
        metrics.update(**TASK.measure(some, labels))
    return {name: value.item() for name, value in TASK.compute(metrics).items()}


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 2**31), missing=st.floats(0, 0.99), noise=st.sampled_from([1e-4, 0.3, 3])
)
def test_metrics_by_definition(seed, missing, noise):
    outputs, labels = draw(seed, missing, noise=noise)
    values = measure(outputs, TASK.encode(labels))
    angles = find_angles(outputs, labels)
    # targets are fp32: directions to 1e-5 degrees
    assert values["mean"] == pytest.approx(angles.mean(), abs=1e-4)
    assert values["median"] == pytest.approx(np.median(angles), abs=BIN / 2 + 1e-4)
    for threshold in (11.25, 22.5, 30):
        assert values[f"within_{threshold}"] == pytest.approx((angles < threshold).mean(), abs=1e-6)


@settings(deadline=None)
@given(st.lists(st.floats(0, 180), min_size=1, max_size=9))
def test_the_median_is_exact_to_half_a_bin(angles):
    metric = AngleErrors()
    for angle in angles:
        metric.update(torch.tensor([angle], dtype=torch.float64))
    mean, median, *shares = metric.compute().tolist()
    assert mean == pytest.approx(np.mean(angles))
    assert abs(median - np.median(angles)) <= BIN / 2 + 1e-9
    assert shares == [np.mean(np.array(angles) < t) for t in (11.25, 22.5, 30)]


def test_small_angles_keep_their_digits():
    turned = torch.tensor([[np.sin(1e-6), 0, np.cos(1e-6)]])
    angle = measure_angles(turned, torch.tensor([[0.0, 0.0, 2.0]]).double())
    assert angle.item() == pytest.approx(np.degrees(1e-6), rel=1e-9)
    opposite = measure_angles(torch.tensor([[0.0, 0.0, -3.0]]), torch.tensor([[0.0, 0.0, 2.0]]))
    assert opposite.item() == 180


def test_without_labels_nothing_is_defined():
    outputs, labels = draw(0)
    values = measure(outputs, TASK.encode(np.zeros_like(labels)))
    assert np.isnan(list(values.values())).all()


def test_losses_of_alike_tasks_against_float64():
    outputs, labels = draw(1, shape=(3, 4, 5, 2))
    targets = TASK.encode(labels)
    got = TASK.losses(outputs, targets.double())
    length = np.linalg.norm(outputs.numpy(), axis=-1) * np.linalg.norm(labels, axis=-1)
    known = length > 0
    cosine = (outputs.numpy() * labels).sum(-1) / np.where(known, length, 1)
    wanted = np.where(known, 1 - cosine, 0)
    np.testing.assert_allclose(got.numpy(), np.stack([wanted] * 3, -1), atol=1e-6)
    # a label has three elements, and their mean is the mean over pixels
    mask = ~targets.isnan()
    assert (got.sum() / mask.sum()).item() == pytest.approx(wanted[known].mean(), abs=1e-6)


def test_gradients_at_zero_and_at_missing_pixels():
    outputs = torch.tensor([[0.0, 0, 0], [1.0, 2, 3], [1.0, 0, 0]], requires_grad=True)
    targets = torch.tensor([[0.0, 0, 1], [NAN, NAN, NAN], [0.0, 1, 0]])
    TASK.losses(outputs, targets).sum().backward()
    assert outputs.grad.isfinite().all()
    assert outputs.grad[1].tolist() == [0, 0, 0]
    assert outputs.grad[2].tolist() == [0, -3, 0]


def test_encoding():
    labels = np.array([[[[0, 0, 0], [0, 3, 4], [NAN, 1, 0]]]])
    np.testing.assert_allclose(
        TASK.encode(labels).numpy(),
        [[[[NAN] * 3, [0, 0.6, 0.8], [NAN] * 3]]],
        rtol=1e-6,
    )
    with pytest.raises(UserError, match="has 1 numbers for each pixel, where a normal has 3"):
        TASK.encode(np.zeros((1, 2, 2, 1)))
    with pytest.raises(BadLabel, match="holds inf at row 0, column 1"):
        TASK.encode(np.array([[[[0, 0, 1], [0, np.inf, 0]]]]))
    with pytest.raises(UserError, match="has a label for each pixel"):
        SurfaceNormals(pooled=True)


def test_a_mirrored_image_has_the_normals_of_the_mirrored_scene():
    targets = torch.tensor([[[1.0, 0, 0], [0, 0.6, 0.8]]])
    assert TASK.mirror(targets).tolist() == [[[0, *targets[0, 1, 1:].tolist()], [-1, 0, 0]]]


def test_the_score_is_zero_for_a_direction_at_random():
    assert TASK.score({"mean": 90.0}) == 0
    assert SurfaceNormals(monitor="median").score({"median": 9.0}) == 0.9
    assert SurfaceNormals(monitor="within_30").score({"within_30": 0.7}) == 0.7


def test_decoding_and_ensembles():
    outputs = torch.tensor([[[[0.0, 0, 5], [0, 3, 4]]]])
    assert TASK.decode(outputs)["mean_z"] == [pytest.approx(0.9)]
    targets = torch.tensor([[[[NAN] * 3, [0, 0.6, 0.8]]], [[[NAN] * 3, [NAN] * 3]]])
    assert TASK.decode_targets(targets)["mean_y"] == [pytest.approx(0.6), None]
    np.testing.assert_allclose(TASK.decode_map(outputs)[0, 0], [[0, 0, 1], [0, 0.6, 0.8]])

    outputs_M = torch.stack([outputs, torch.tensor([[[[0.0, 1, 0], [0, 6, 8]]]])])
    mixed = TASK.average(outputs_M)
    np.testing.assert_allclose(mixed[0, 0], [[0, 0.5, 0.5], [0, 0.6, 0.8]], rtol=1e-6)
    assert TASK.measure_spread(outputs_M, mixed)["spread"] == [pytest.approx(45 / 2, abs=1e-4)]
