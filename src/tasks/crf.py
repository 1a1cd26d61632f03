"""A linear-chain conditional random field: the classes of a sentence depend on their neighbours.

(Lafferty, McCallum and Pereira, "Conditional random fields: Probabilistic models for segmenting and
labeling sequence data", ICML 2001.) A path y has the probability exp(sum_s psi_s(y_s-1, y_s)) / Z.

Shapes: B sentences, S tokens, C classes. The log potentials psi are (B, S, C, C), with psi_s(i, j)
of class j behind class i. Behind class 0 the first token begins. At padding psi is 0 for i = j and
``FAR`` elsewhere: the class is handed on, and nothing depends on the length of the padding.
"""

from math import isqrt

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.tasks.head import Head
from src.tasks.labels import is_labelled

FAR = -1e4  # the log potential of what cannot be; exp of it is 0, and its sums are finite


class CrfHead(Head):
    """A head that puts out log potentials: (B, S, features) -> (B, S, C x C).

    psi_s(i, j) = emission_s(j) + transition(i, j), and emission(j) + start(j) for the first token.
    The emissions are the outputs of an ordinary head, transitions and starts begin at 0. A token
    whose features are all zero is padding.
    """

    def __init__(self, features: int, classes: int, depth: int = 0, width: int = 64) -> None:
        super().__init__(features, classes, depth, width)
        self.starts = nn.Parameter(torch.zeros(classes))
        self.transitions = nn.Parameter(torch.zeros(classes, classes))

    def output_axes(self) -> dict[str, tuple[int, ...]]:
        return super().output_axes() | {"starts": (0,), "transitions": (0, 1)}

    def forward(self, features: Tensor) -> Tensor:
        """Returns the log potentials, in fp32 at least."""
        emissions = super().forward(features)
        # 16 bits have no digits for sums along a sentence
        precision = torch.promote_types(emissions.dtype, torch.float32)
        emissions, starts, transitions = (
            x.to(precision) for x in (emissions, self.starts, self.transitions)
        )

        real = features.detach().any(-1)
        first = real & (real.cumsum(-1) == 1)
        psi = torch.where(first[..., None, None], starts, transitions) + emissions.unsqueeze(-2)
        return torch.where(real[..., None, None], psi, make_identity(psi)).flatten(-2)


def make_identity(psi: Tensor) -> Tensor:
    """Returns the log potentials (C, C) of padding, like psi (..., C, C)."""
    classes = psi.shape[-1]
    return psi.new_full((classes, classes), FAR).fill_diagonal_(0)


def unpack(outputs: Tensor) -> Tensor:
    """Returns the log potentials (..., S, C, C) that outputs (..., S, C x C) are."""
    classes = isqrt(outputs.shape[-1])
    return outputs.unflatten(-1, (classes, classes))


def fill_padding(psi: Tensor) -> Tensor:
    """Returns log potentials (..., S, C, C) with those of padding where predictions have NaN."""
    hidden = psi[..., :1, :1].isnan()
    return torch.where(hidden, make_identity(psi), psi)


def start_chain(psi: Tensor) -> Tensor:
    """Returns the log weights (B, C) of the class in front of the first token: it is class 0."""
    before = psi.new_full((psi.shape[0], psi.shape[-1]), FAR)
    before[:, 0] = 0
    return before


def crf_losses(psi: Tensor, targets: Tensor) -> Tensor:
    """Computes -log p(labels) of each sentence, spread evenly over its labelled tokens.

    A missing label is summed out: the probability is that of all paths which agree with the labels
    that are known. So the sum over all elements is the negative log likelihood.

    Args:
        psi: (B, S, C, C) log potentials.
        targets: (B, S) class positions, -100 where missing.

    Returns:
        (B, S), 0 where a label is missing.
    """
    known = is_labelled(targets)
    classes = psi.shape[-1]
    wanted = F.one_hot(targets.where(known, 0), classes).bool() | ~known[..., None]
    agree = torch.zeros_like(wanted, dtype=psi.dtype).masked_fill(~wanted, FAR)

    # all paths, and beside them the ones that agree with the labels, in one scan
    free = start_chain(psi)
    weights = torch.stack([free, free])
    allowed = torch.stack([torch.zeros_like(agree), agree])
    for psi_s, allowed_s in zip(psi.unbind(1), allowed.unbind(2), strict=True):
        weights = (weights.unsqueeze(-1) + psi_s).logsumexp(-2)
        # both stay near 0, where fp32 has digits; their difference does not change
        largest = weights[:1].detach().amax(-1, keepdim=True)
        weights = weights - largest + allowed_s
    log_z, log_agreeing = weights.logsumexp(-1)

    shares = known / known.sum(1, keepdim=True).clamp(min=1)
    return (log_z - log_agreeing)[:, None] * shares


def find_best_paths(psi: Tensor) -> Tensor:
    """Returns the most probable path of each sentence (B, S) (Viterbi, 1967)."""
    weights = start_chain(psi)
    origins = []
    for psi_s in psi.unbind(1):
        weights, origin = (weights.unsqueeze(-1) + psi_s).max(-2)
        origins.append(origin)

    # from the last token back to the first
    path = [weights.argmax(-1, keepdim=True)]
    for origin in reversed(origins[1:]):
        path.append(origin.gather(-1, path[-1]))
    return torch.cat(path[::-1], -1)


def compute_pair_marginals(psi: Tensor) -> Tensor:
    """Returns p(y_s-1 = i, y_s = j), (B, S, C, C), by the forward-backward algorithm."""
    forward = [start_chain(psi)]
    for psi_s in psi.unbind(1):
        forward.append((forward[-1].unsqueeze(-1) + psi_s).logsumexp(-2))
    log_z = forward[-1].logsumexp(-1)

    backward = [torch.zeros_like(forward[0])]
    for psi_s in reversed(psi.unbind(1)[1:]):
        backward.append((psi_s + backward[-1].unsqueeze(-2)).logsumexp(-1))
    before = torch.stack(forward[:-1], 1).unsqueeze(-1)
    behind = torch.stack(backward[::-1], 1).unsqueeze(-2)
    return (before + psi + behind - log_z[:, None, None, None]).exp()


def mix_chains(psi_M: Tensor) -> Tensor:
    """Returns the log potentials (B, S, C, C) of the mean of M fields' distributions over paths.

    A mean of chains is no chain itself; this is the one nearest to it, which has the mean of their
    probabilities p(y_s-1 = i, y_s = j): psi_s(i, j) = log p(y_s = j | y_s-1 = i).

    Args:
        psi_M: (M, B, S, C, C), fp64.
    """
    pairs = compute_pair_marginals(psi_M.flatten(0, 1)).unflatten(0, psi_M.shape[:2]).mean(0)
    # far below the least probability that counts; a class that cannot be has any successor
    log_pairs = (pairs + 1e-300).log()
    mixed = log_pairs - log_pairs.logsumexp(-1, keepdim=True)
    identity = make_identity(mixed)
    padding = (psi_M == identity).flatten(-2).all(-1).all(0)
    return torch.where(padding[..., None, None], identity, mixed)
