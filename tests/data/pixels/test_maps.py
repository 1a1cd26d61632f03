import numpy as np
import pytest
from PIL import Image

from src.data.pixels.maps import read_map, read_shape, resize_nearest, to_image, to_label
from src.errors import UserError


@pytest.mark.parametrize(
    ("mode", "values"),
    [
        ("L", np.array([[0, 200], [7, 255]], np.uint8)),
        ("I;16", np.array([[0, 200], [7000, 65535]], np.uint16)),
        ("F", np.array([[0, 0.5], [-7, 1e5]], np.float32)),
        ("1", np.array([[True, False], [False, False]])),
        ("RGB", np.arange(12, dtype=np.uint8).reshape(2, 2, 3)),
    ],
)
def test_pictures_keep_their_values(mode, values, tmp_path):
    path = tmp_path / "x.tif"
    Image.fromarray(values).save(path)
    with Image.open(path) as opened:
        assert opened.mode == mode
    np.testing.assert_array_equal(read_map(path, is_label=True), values)
    shape, dtype = read_shape(path)
    assert shape == values.shape
    assert (dtype.kind == "f") == (values.dtype.kind == "f")


def test_positions_in_a_palette_are_ids_of_a_label_and_colours_of_an_image(tmp_path):
    ids = np.array([[0, 1], [2, 1]], np.uint8)
    picture = Image.fromarray(ids).convert("P")
    picture.putpalette([10, 10, 10, 200, 0, 0, 0, 90, 0])
    picture.save(tmp_path / "x.png")
    np.testing.assert_array_equal(read_map(tmp_path / "x.png", is_label=True), ids)
    colours = read_map(tmp_path / "x.png", is_label=False)
    assert colours[0, 1].tolist() == [200, 0, 0]


def test_transparency_is_left_out(tmp_path):
    Image.fromarray(np.full((2, 2, 4), 9, np.uint8)).save(tmp_path / "x.png")
    assert read_map(tmp_path / "x.png", is_label=False).shape == (2, 2, 3)


def test_arrays(tmp_path):
    values = np.arange(6.0).reshape(2, 3)
    np.save(tmp_path / "x.npy", values)
    np.savez(tmp_path / "y.npz", values=values)
    np.savez(tmp_path / "z.npz", a=values, b=values)
    for name in ("x.npy", "y.npz"):
        np.testing.assert_array_equal(read_map(tmp_path / name, is_label=True), values)
        assert read_shape(tmp_path / name) == ((2, 3), np.dtype("f8"))
    with pytest.raises(
        UserError, match=r"z.npz: cannot be read: it has the arrays a, b, where one"
    ):
        read_map(tmp_path / "z.npz", is_label=True)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_images_are_shares_of_the_largest_value(dtype):
    largest = np.iinfo(dtype).max
    image = to_image(np.array([[0, largest]], dtype=dtype), "x")
    assert image.dtype == np.float32
    assert image.tolist() == [[[0.0, 1.0]]]
    assert to_image(np.array([[0.0, 7.5]]), "x").tolist() == [[[0.0, 7.5]]]


def test_channels_stand_first_or_last():
    values = np.random.default_rng(0).random((3, 5, 7)).astype(np.float32)
    np.testing.assert_array_equal(to_image(values, "x"), values)
    np.testing.assert_array_equal(to_image(np.moveaxis(values, 0, -1), "x"), values)
    normals = np.moveaxis(values, 0, -1)
    np.testing.assert_array_equal(to_label(values, 3, "x"), normals)
    np.testing.assert_array_equal(to_label(normals, 3, "x"), normals)
    assert to_label(values[:1], 0, "x").shape == (5, 7)
    assert to_label(values[0][..., None], 0, "x").shape == (5, 7)


def test_other_shapes_are_refused():
    with pytest.raises(UserError, match=r"x: has the shape \(2,\), where \(height, width\)"):
        to_image(np.zeros(2), "x")
    with pytest.raises(
        UserError, match=r"x: has the shape \(2, 2, 3\), where \(height, width\) is"
    ):
        to_label(np.zeros((2, 2, 3)), 0, "x")
    with pytest.raises(UserError, match=r"where \(height, width, 3\) is"):
        to_label(np.zeros((2, 2)), 3, "x")
    with pytest.raises(UserError, match="x: holds a value that is not finite at row 1, column 0"):
        to_image(np.array([[0, 1], [np.nan, 2]]), "x")


def test_resized_maps_take_the_nearest_pixel():
    values = np.arange(12).reshape(3, 4)
    assert resize_nearest(values, 3, 4).tolist() == values.tolist()
    assert resize_nearest(values, 1, 2).tolist() == [[5, 7]]
    assert resize_nearest(values, 6, 4)[:, 0].tolist() == [0, 0, 4, 4, 8, 8]
