import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from src.data.images.images import BadImage, ImageDecoder, check_image, find_centre
from tests.data.images.made_images import encode, make_pixels


def test_an_image_of_the_size_keeps_its_pixels() -> None:
    pixels = make_pixels(3, 20, 24)
    decoded = ImageDecoder(20, 24).decode(encode(pixels))
    assert decoded.dtype == np.uint8
    assert (decoded == pixels.transpose(2, 0, 1)).all()


def test_grey_is_the_luminance() -> None:
    pixels = make_pixels(3, 8, 8)
    weights = np.array([299, 587, 114]) / 1000
    decoded = ImageDecoder(8, 8, channels=1).decode(encode(pixels))
    assert decoded.shape == (1, 8, 8)
    assert np.abs(decoded[0] - pixels @ weights).max() <= 1


def test_the_centre_is_cut_out_or_the_image_stretched() -> None:
    """Red, green and red stripes of 10 pixels: the centre is green."""
    pixels = np.zeros((10, 30, 3), np.uint8)
    pixels[:, :, 0] = 200
    pixels[:, 10:20] = [0, 200, 0]
    cut = ImageDecoder(10, 10).decode(encode(pixels))
    assert (cut == pixels[:, 10:20].transpose(2, 0, 1)).all()
    stretched = ImageDecoder(10, 30, crop=False).decode(encode(pixels))
    assert (stretched == pixels.transpose(2, 0, 1)).all()
    squeezed = ImageDecoder(10, 10, crop=False).decode(encode(pixels))
    assert squeezed[0, :, [0, 9]].min() == 200
    assert squeezed[1, :, 5].min() == 200


def test_the_centre_box() -> None:
    assert find_centre(178, 218, 1.0) == (0, 20, 178, 198)
    assert find_centre(300, 100, 2.0) == (50, 0, 250, 100)


def test_a_photo_is_turned_as_the_camera_was_held() -> None:
    pixels = make_pixels(1, 16, 16)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    turned = ImageDecoder(16, 16).decode(encode(pixels, exif=exif))
    assert (turned == np.rot90(pixels, -1).transpose(2, 0, 1)).all()


def test_a_large_photo_is_decoded_at_a_smaller_size() -> None:
    """As good as whole: within 2 of 255 on average."""
    smooth = np.add.outer(np.arange(1600) / 16, np.arange(1600) / 20)[..., None] + [0, 20, 40]
    content = encode(smooth.astype(np.uint8), "JPEG", quality=95)
    quick = ImageDecoder(64, 64).decode(content)
    with Image.open(io.BytesIO(content)) as image:
        whole = np.asarray(image.resize((64, 64), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    assert np.abs(quick.astype(float) - whole).mean() < 2


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "1"])
def test_modes_become_colour(mode: str) -> None:
    file = io.BytesIO()
    image = Image.fromarray(make_pixels(2, 12, 12)).convert(mode)
    image.save(file, "TIFF" if mode in ("CMYK", "LA") else "PNG")
    assert ImageDecoder(12, 12).decode(file.getvalue()).shape == (3, 12, 12)


def test_sixteen_bits_are_scaled_and_not_cut_off() -> None:
    deep = (np.arange(64).reshape(8, 8) * 1000).astype(np.uint16)
    decoded = ImageDecoder(8, 8, channels=1).decode(encode(deep))
    assert (decoded[0] == deep // 257).all()


@pytest.mark.parametrize(
    ("content", "says", "is_found_first"),
    [
        (b"", "the file is empty", True),
        (b"hello", "it is no image that Pillow reads", True),
        (encode(make_pixels(1))[:-200], "", True),
        (encode(make_pixels(1), "JPEG")[:-200], "", True),
        (encode(make_pixels(1), "JPEG")[:40], "", True),
        # the compressed pixels are damaged, the ends are not
        (encode(make_pixels(1))[:60] + b"zz" + encode(make_pixels(1))[62:], "", False),
        (encode(np.zeros((4, 4), np.float32), "TIFF"), "its pixels are fractions", False),
    ],
)
def test_broken_images(content: bytes, says: str, is_found_first: bool) -> None:
    with pytest.raises(BadImage, match=rf"^[^\n]*{says}[^\n]*$"):
        ImageDecoder(8, 8).decode(content)
    if is_found_first:
        with pytest.raises(BadImage, match=rf"^[^\n]*{says}[^\n]*$"):
            check_image(content)
    else:
        check_image(content)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])
def test_whole_images_pass(kind: str) -> None:
    check_image(encode(make_pixels(1), kind))
    # some cameras write more after the end
    if kind in ("PNG", "JPEG"):
        check_image(encode(make_pixels(1), kind) + b"\0" * 100)


def test_without_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    hidden: Any = None
    monkeypatch.setitem(sys.modules, "PIL", hidden)
    with pytest.raises(ValueError, match="images need Pillow: pip install pillow"):
        ImageDecoder(8, 8).decode(b"x")
