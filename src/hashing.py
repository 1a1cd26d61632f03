"""Random numbers that are a function of their place: the same on any topology, on a CPU and on a GPU."""

import torch
from torch import Tensor

# odd 64-bit constants of splitmix64 (Steele, Lea and Flood, OOPSLA 2014), as signed integers
GAMMA, MIX, STIR = -7046029254386353131, -4658895280553007687, -7723592293110705685


def hashed(x: Tensor) -> Tensor:
    """Splitmix64's finaliser on int64, with shifts that keep the sign; one to one, like the original."""
    x = x * GAMMA
    x = (x ^ (x >> 30)) * MIX
    x = (x ^ (x >> 27)) * STIR
    return x ^ (x >> 31)


def uniform(key: int, first: int, count: int, device: torch.device) -> Tensor:
    """The numbers first ... first + count - 1 of the sequence that belongs to a key: float64 in [0, 1)."""
    places = torch.arange(first, first + count, device=device)
    return hashed(places * GAMMA + key).double() / 2.0**64 + 0.5
