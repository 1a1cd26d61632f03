"""Random numbers that are a function of their place: the same on any topology, on CPU and GPU."""

import torch
from torch import Tensor


def _as_signed(x: int) -> int:
    """Returns the signed 64-bit integer with the bits of an unsigned one."""
    return x - 2**64 if x >= 2**63 else x


# The odd constants of splitmix64 (Steele, Lea and Flood, OOPSLA 2014). Tensors have no unsigned
# 64-bit integers, but a product of signed ones has the same bits.
GAMMA = _as_signed(0x9E3779B97F4A7C15)
MIX = _as_signed(0xBF58476D1CE4E5B9)
STIR = _as_signed(0x94D049BB133111EB)


def hash_integers(x: Tensor) -> Tensor:
    """Applies the finaliser of splitmix64 to int64 numbers, each by itself.

    The function is one to one, and every bit of its result looks like the toss of a coin.
    """
    x = x * GAMMA
    x = (x ^ _shift_right(x, 30)) * MIX
    x = (x ^ _shift_right(x, 27)) * STIR
    return x ^ _shift_right(x, 31)


def _shift_right(x: Tensor, by: int) -> Tensor:
    """Shifts in zeros from the left, where torch's own shift copies the sign bit."""
    return (x >> by) & ((1 << (64 - by)) - 1)


def draw_uniform(key: int, first: int, count: int, device: torch.device) -> Tensor:
    """Returns a section of the sequence of uniform numbers that belongs to a key.

    Args:
        key: Any 64-bit integer, such as a function of (seed, step).
        first: Position of the first number in the sequence.
        count: How many numbers.
        device: Where they are computed; the numbers are the same everywhere.

    Returns:
        (count,) float64 in [0, 1).
    """
    return draw_uniform_at(key, torch.arange(first, first + count, device=device))


def draw_uniform_at(key: int, places: Tensor) -> Tensor:
    """Returns the uniform numbers at some places of the sequence that belongs to a key.

    Args:
        key: Any 64-bit integer, such as a function of (seed, step).
        places: Positions in the sequence, int64 of any shape.

    Returns:
        float64 in [0, 1), of the same shape.
    """
    # a signed integer is uniform in [-2^63, 2^63)
    return hash_integers(places * GAMMA + key).double() / 2.0**64 + 0.5


def make_generator(*key: int) -> torch.Generator:
    """Returns a random generator on the CPU that is a function of its key, on every machine.

    Args:
        key: Integers such as (seed, epoch), of any size. Their order counts.
    """
    # splitmix64's steps for each part in turn, so that near keys have unrelated generators
    state = GAMMA % 2**64
    for part in key:
        state = (state ^ part) * MIX % 2**64
        state = (state ^ state >> 27) * STIR % 2**64
        state ^= state >> 31
    return torch.Generator().manual_seed(state % 2**63)
