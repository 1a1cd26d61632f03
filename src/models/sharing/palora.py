"""PaLoRA: one network for all preferences among the tasks."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from src.errors import UserError
from src.models.sharing.low_rank import LowRankSharing
from src.models.sharing.sharing import EncoderFactory


class PaLoRA(LowRankSharing):
    """PaLoRA: a low-rank term for each task, weighed by how much the task is preferred.

    With the preference p, p_t >= 0 and sum_t p_t = 1, each layer is y = W x + s sum_t p_t B_t A_t x
    for all tasks: one network, whose weights W + s sum_t p_t B_t A_t move along the front between
    the tasks as p does (Dimitriadis, Frossard and Fleuret, "Pareto low-rank adapters: efficient
    multi-task learning with preferences", ICLR 2025). Each training step draws a preference, and
    weighs the losses by T p_t, so that an even one is the plain sum. B_t starts at 0.

    q ~ Dirichlet(concentration, ..., concentration) is drawn from (seed, step), the same in all
    processes and after a resume. Without annealing p = q. With it, p_t is proportional to
    q_t^(annealing x share of the training that is over): even at first, so that W learns what is
    common, and spread out later, as in the paper, which takes several evenly spaced q in each step
    where this takes one.

    Evaluation runs at the even preference; ``--preference`` of evaluate and predict sets another.

    Args:
        encoder: Makes an encoder.
        tasks: The tasks' names.
        rank: r of A_t (r, in) and B_t (out, r).
        scale: s.
        concentration: Of the Dirichlet distribution: 1 is uniform over all preferences, less
            prefers single tasks, more is nearer to the even one.
        annealing: Exponent at the end of training; null for none.
    """

    one_feature = True
    takes_preference = True
    drawn_T: Tensor
    chosen_T: Tensor

    def __init__(
        self,
        encoder: EncoderFactory,
        tasks: Sequence[str],
        rank: int = 4,
        scale: float = 1.0,
        concentration: float = 1.0,
        annealing: float | None = None,
    ) -> None:
        super().__init__(encoder, tasks, 1, len(tasks), rank, scale)
        if not concentration > 0:
            raise UserError(f"PaLoRA: concentration {concentration} must be above 0")
        if annealing is not None and not annealing > 0:
            raise UserError(f"PaLoRA: annealing {annealing} must be above 0, or null for none")
        self.concentration = concentration
        self.annealing = annealing
        even = torch.full((len(tasks),), 1 / len(tasks), dtype=torch.float64)
        # preferences of the latest training step, and of evaluation
        self.register_buffer("drawn_T", even.clone(), persistent=False)
        self.register_buffer("chosen_T", even.clone(), persistent=False)

    def gates(self, key: str, x: Tensor) -> Tensor:
        """Returns the preference, (1, T)."""
        return (self.drawn_T if self.training else self.chosen_T)[None]

    def draw_preference(self, key: int, progress: Callable[[], float]) -> Tensor:
        """Draws the preference (T,) of the next training step."""
        T = len(self.tasks)
        drawn = np.random.default_rng(key).dirichlet(np.full(T, self.concentration))
        if self.annealing is not None:
            # logarithms, since a power of a tiny number would be 0
            logs = np.log(np.maximum(drawn, 1e-300)) * self.annealing * progress()
            drawn = np.exp(logs - logs.max())
            drawn /= drawn.sum()
        preference = torch.from_numpy(drawn)
        self.drawn_T.copy_(preference)
        return preference

    def prefer(self, preference: Mapping[str, float]) -> None:
        """Evaluates by a preference from now on, {task: a number}, with sum 1."""
        numbers = [preference[name] for name in self.tasks]
        self.chosen_T.copy_(torch.tensor(numbers, dtype=torch.float64))
