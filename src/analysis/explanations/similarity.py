"""How alike two sets of features of the same rows are: centred kernel alignment."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from pandas import DataFrame


def compute_cka(x: Tensor, y: Tensor) -> float:
    """Returns the linear CKA of features (N, C) and (N, D) of the same rows, in [0, 1].

    With centred columns it is |Y'X|^2 / (|X'X| |Y'Y|) in Frobenius norms (Kornblith et al.,
    "Similarity of neural network representations revisited", ICML 2019). Orthogonal maps of either
    side and isotropic scaling change nothing. It is NaN where the features of one side are the same
    in all rows. It is biased upwards where rows are few for the number of features, see
    :func:`compute_debiased_cka`.
    """
    x, y = (z.double() - z.double().mean(0) for z in (x, y))
    return divide(
        float((y.T @ x).square().sum()),
        float((x.T @ x).square().sum()) * float((y.T @ y).square().sum()),
    )


def compute_debiased_cka(x: Tensor, y: Tensor) -> float:
    """Returns linear CKA with unbiased estimates of each term: about 0 for unrelated features.

    The terms are Song et al.'s estimates of HSIC (JMLR 2012), as Nguyen et al. use them (ICLR
    2021). It may be a little below 0, takes at least 4 rows, and is NaN for fewer.
    """
    if len(x) < 4:
        return float("nan")
    K, L = (gram_without_diagonal(z.double()) for z in (x, y))
    return divide(estimate_hsic(K, L), estimate_hsic(K, K) * estimate_hsic(L, L), signed=True)


def gram_without_diagonal(x: Tensor) -> Tensor:
    """Returns x x' with zeros on the diagonal; centring first keeps the digits."""
    x = x - x.mean(0)
    return (x @ x.T).fill_diagonal_(0)


def estimate_hsic(K: Tensor, L: Tensor) -> float:
    """Returns the unbiased estimate of HSIC from Gram matrices (N, N) with zero diagonals."""
    n = len(K)
    sums = float(K.sum()) * float(L.sum()) / ((n - 1) * (n - 2))
    rows = 2 / (n - 2) * float(K.sum(0) @ L.sum(0))
    return (float((K * L).sum()) + sums - rows) / (n * (n - 3))


def divide(product: float, squares: float, signed: bool = False) -> float:
    """Returns product / sqrt(squares); NaN where that is not defined."""
    if squares <= 0:
        return float("nan")
    value = product / squares**0.5
    return value if signed else min(value, 1.0)


def tabulate_cka(features: Mapping[str, Tensor], debiased: bool) -> "DataFrame":
    """Returns the CKA of each two of several features {name: (N, C)} as a table."""
    from pandas import DataFrame

    compute = compute_debiased_cka if debiased else compute_cka
    names = list(features)
    table = DataFrame(1.0, index=names, columns=names)
    for place, one in enumerate(names):
        for other in names[place:]:
            x, y = features[one], features[other]
            # features that are one tensor are alike by definition
            value = 1.0 if x is y and one != other else compute(x, y)
            table.loc[one, other] = value
            table.loc[other, one] = value
    return table
