"""The idx format of MNIST: a header of big-endian integers, then the bytes of an array."""

import gzip
import zlib
from math import prod
from pathlib import Path

import numpy as np

from src.errors import UserError

BYTES = 0x08  # the code of unsigned bytes, the only type in use
GZIP = b"\x1f\x8b"


def read_idx(path: str | Path) -> np.ndarray:
    """Reads an array of unsigned bytes, gzipped or not.

    Raises:
        UserError: The file cannot be read, or does not hold what its header says.
    """
    try:
        content = Path(path).read_bytes()
        if content.startswith(GZIP):
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: cannot be read: {reason}") from None

    # two zeros, the type, the number of dimensions, and then a size for each
    if len(content) < 4 or content[:3] != bytes([0, 0, BYTES]):
        raise UserError(f"{path}: is no idx file of bytes: its first bytes are {content[:4].hex()}")
    start = 4 + 4 * content[3]
    if len(content) < start:
        raise UserError(f"{path}: ends in the middle of its header")
    shape = tuple(np.frombuffer(content[4:start], ">u4").tolist())
    if len(content) != start + prod(shape):
        wanted = " x ".join(map(str, shape))
        raise UserError(
            f"{path}: has {len(content) - start} bytes after its header, where {wanted} belong"
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)
