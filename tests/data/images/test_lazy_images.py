import multiprocessing
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from src.data.images.image_files import ImageFiles
from src.data.images.images import ImageDecoder
from src.data.images.lazy_images import (
    Cache,
    ImageSet,
    LazyImages,
    measure_pixels,
    remove_broken,
)
from src.errors import UserError
from tests.data.images.made_images import encode, make_pixels, make_table, zip_images

DECODER = ImageDecoder(20, 24)


@pytest.fixture
def files(tmp_path: Path) -> ImageFiles:
    """Five whole images, and one whose compressed pixels are damaged."""
    (tmp_path / "images").mkdir()
    for row in range(5):
        (tmp_path / "images" / f"{row}.png").write_bytes(encode(make_pixels(row)))
    content = bytearray(encode(make_pixels(5)))
    content[60:64] = b"zzzz"
    (tmp_path / "images" / "5.png").write_bytes(content)
    (tmp_path / "images" / "6.png").write_bytes(encode(make_pixels(6))[:-100])
    return ImageFiles(tmp_path / "images")


def name(*rows: int) -> list[str | None]:
    return [f"{row}.png" for row in rows]


def test_images_are_decoded_in_the_order_asked_for(files):
    images = LazyImages.of_all(ImageSet(files, name(0, 1, 2, 3), DECODER, "x.csv"), [0.5], [0.25])
    assert len(images) == 4
    loaded = images[torch.tensor([2, 0, 2])].load()
    pixels = np.stack([make_pixels(row) for row in (2, 0, 2)]).transpose(0, 3, 1, 2)
    assert loaded.dtype == torch.float32
    expected = torch.from_numpy((pixels / 255 - 0.5) / 0.25)
    torch.testing.assert_close(loaded, expected.float())


def test_tables_one_after_the_other(files):
    first, second = (
        LazyImages.of_all(ImageSet(files, names, DECODER, "x.csv"), [0.0], [1.0])
        for names in (name(0, 1), name(2, 3))
    )
    both = first.append(second)
    assert torch.equal(both.load(), torch.cat([first.load(), second.load()]))
    assert both.hash_rows().tolist() == [*first.hash_rows(), *second.hash_rows()]


def test_copies_have_the_same_hash_whatever_their_name(files, tmp_path):
    (tmp_path / "images" / "copy.png").write_bytes(encode(make_pixels(1)))
    images = ImageSet(files, [*name(0, 1), "copy.png", None], DECODER, "x.csv")
    assert images.hashes[1] == images.hashes[2] != images.hashes[0]
    assert images.hashes.dtype == np.uint64
    # by name and size they are different images
    unread = ImageSet(files, [*name(0, 1), "copy.png"], DECODER, "x.csv", read_first=False)
    assert len(set(unread.hashes)) == 3


@pytest.mark.parametrize("read_first", [True, False])
def test_what_is_broken(files, read_first):
    names = [*name(0, 6), None, "9.png"]
    images = ImageSet(files, names, DECODER, "x.csv", skip=True, read_first=read_first)
    reasons = {2: "it is missing", 3: f"there is no such file in {files.path}"}
    if read_first:
        reasons = {1: "the file is cut off", **reasons}
    assert images.broken == reasons
    assert images.describe_broken() == [
        f"{len(reasons)} of 4 images are left out: "
        + ", ".join(f"row {row + 1} {names[row]} ({why})" for row, why in reasons.items())
    ]
    usable = LazyImages.of_all(images, [0.0], [1.0]).usable
    assert usable.tolist() == [row not in reasons for row in range(4)]


def test_a_broken_image_ends_the_run_with_its_row(files):
    images = LazyImages.of_all(ImageSet(files, name(0, 5), DECODER, "x.csv"), [0.0], [1.0])
    assert images.usable.all()
    with pytest.raises(UserError, match=r"^x\.csv row 2: the image 5\.png is broken: [^\n]+$"):
        images.load()


def test_or_it_is_nan_and_named_once(files):
    images = ImageSet(files, name(0, 5, 1), DECODER, "x.csv", skip=True)
    lazy = LazyImages.of_all(images, [0.0], [1.0])
    with pytest.warns(UserWarning, match=r"x\.csv row 2: the image 5\.png is broken") as seen:
        loaded = lazy.load()
    assert len(seen) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lazy.load()
    broken = remove_broken(loaded)
    assert broken is not None
    assert broken.tolist() == [False, True, False]
    assert loaded[1].abs().sum() == 0
    assert remove_broken(loaded) is None


def test_the_cache_is_used_if_all_images_fit(files, tmp_path, monkeypatch):
    size = 4 * (3 * 20 * 24 + 1)
    sets = [ImageSet(files, name(0, 1, 2, 3), DECODER, "x", cache=c) for c in (size, size - 1)]
    before = [[images.load(row) for row in range(4)] for images in sets]
    for path in (tmp_path / "images").iterdir():
        path.unlink()
    for row, pixels in enumerate(before[0]):
        assert (sets[0].load(row) == pixels).all()
    with pytest.raises(UserError, match="there is no such file"):
        sets[1].load(0)


def test_workers_fill_the_cache_of_their_parent():
    cache = Cache(3, 5)
    pixels = np.arange(5, dtype=np.uint8)
    worker = multiprocessing.get_context("fork").Process(target=cache.put, args=(1, pixels))
    worker.start()
    worker.join()
    assert cache.get(0) is None
    assert (cache.get(1) == pixels).all()


def test_mean_and_spread_of_pixels(files):
    images = ImageSet(files, name(0, 5, 1), DECODER, "x.csv", skip=True)
    mean, std = measure_pixels(images, range(3))
    pixels = np.stack([make_pixels(0), make_pixels(1)]) / 255
    np.testing.assert_allclose(mean, pixels.mean((0, 1, 2)), rtol=1e-9)
    np.testing.assert_allclose(std, pixels.std((0, 1, 2)), rtol=1e-9)
    with pytest.raises(UserError, match="all images of the training rows are broken"):
        measure_pixels(images, [1])


def test_an_archive_gives_the_same_as_a_folder(tmp_path):
    make_table(tmp_path, 6)
    names = [*ImageFiles(tmp_path / "images").list_images()]
    folder, archive = (
        LazyImages.of_all(ImageSet(ImageFiles(path), names, DECODER, "x"), [0.0], [1.0])
        for path in (tmp_path / "images", zip_images(tmp_path))
    )
    assert torch.equal(folder.load(), archive.load())
    assert folder.hash_rows().tolist() == archive.hash_rows().tolist()
    assert folder.sets[0].sizes == archive.sets[0].sizes
