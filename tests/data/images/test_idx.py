import gzip
from pathlib import Path

import numpy as np
import pytest

from src.data.images.idx import read_idx
from src.errors import UserError


def write_idx(path: Path, array: np.ndarray) -> Path:
    """Writes an array of bytes in the idx format; gzipped, if the name ends in .gz."""
    sizes = np.array(array.shape, ">u4").tobytes()
    content = bytes([0, 0, 8, array.ndim]) + sizes + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.mark.parametrize("name", ["x-idx3-ubyte", "x-idx3-ubyte.gz"])
def test_reads_what_was_written(tmp_path: Path, name: str) -> None:
    array = np.arange(2 * 3 * 300).reshape(2, 3, 300) % 256
    found = read_idx(write_idx(tmp_path / name, array))
    assert found.dtype == np.uint8
    assert (found == array).all()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"\x00\x00\x0d\x01\x00\x00\x00\x01\x00", "is no idx file of bytes: its first bytes are"),
        (b"", "is no idx file of bytes"),
        (bytes([0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3]) + b"12345", "has 5 bytes .* where 2 x 3"),
        (bytes([0, 0, 8, 3, 0, 0, 0, 2]), "ends in the middle of its header"),
        (gzip.compress(b"0" * 5000)[:-20], "cannot be read"),
    ],
    ids=["numbers", "empty", "short", "header", "gzip"],  # packed bytes name the time of packing
)
def test_broken_files(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(UserError, match=rf"x: {says}"):
        read_idx(tmp_path / "x")
    with pytest.raises(UserError, match="nothing: cannot be read: No such file"):
        read_idx(tmp_path / "nothing")
