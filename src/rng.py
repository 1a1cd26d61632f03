"""Random numbers that are a function of their place: the same on any topology, on a CPU and on a GPU."""

import torch
from torch import Tensor

# odd 64-bit constants of splitmix64 (Steele, Lea and Flood, OOPSLA 2014), as signed integers
GAMMA, MIX, STIR = -7046029254386353131, -4658895280553007687, -7723592293110705685


def hashed(x: Tensor) -> Tensor:
    """Splitmix64's finaliser: int64 -> int64, one to one, every bit of which looks like a coin's."""
    x = x * GAMMA
    x = (x ^ shifted(x, 30)) * MIX
    x = (x ^ shifted(x, 27)) * STIR
    return x ^ shifted(x, 31)


def shifted(x: Tensor, by: int) -> Tensor:
    """Shifts to the right without the sign, which torch's own shift draws along."""
    return (x >> by) & ((1 << (64 - by)) - 1)


def uniform(key: int, first: int, count: int, device: torch.device) -> Tensor:
    """The numbers first ... first + count - 1 of the sequence that belongs to a key: float64 in [0, 1)."""
    places = torch.arange(first, first + count, device=device)
    return hashed(places * GAMMA + key).double() / 2.0**64 + 0.5
