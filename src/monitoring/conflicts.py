"""Conflicts between the gradients of tasks: their norms and the angles between them."""

from functools import partial
from typing import Any, cast

import lightning as L
import numpy as np
import torch

from src.errors import attempt
from src.monitoring.dashboard import find_board
from src.monitoring.drawing import draw_matrix
from src.monitoring.observed_model import ObservedModel
from src.monitoring.watcher import Watcher, agree


class GradientConflicts(Watcher):
    """Logs gradient/norm/<task>, gradient/conflicts, gradient/condition, and draws all cosines.

    Conflicts are the share of pairs with a cosine below 0; the condition number is the one of the
    matrix of unit gradients. Tasks without labels in the batch have no gradient, and are left out.
    It works with any balancer, and costs a forward and a backward pass each time.

    Args:
        every_n_steps: Optimizer steps from one log to the next.
    """

    def __init__(self, every_n_steps: int) -> None:
        self.every_n_steps = every_n_steps
        self._last = -1

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Logs if it is time; all ranks compute together, and each draws for itself."""
        step = trainer.global_step
        if step % self.every_n_steps or step == self._last:
            return
        self._last = step
        model = cast(ObservedModel, pl_module)
        # dropout drops the units that the step will drop
        pl_module.on_train_batch_start(batch, batch_idx)
        gram_TT = model.task_gramian(batch)
        agree(trainer, attempt(partial(self._show, trainer, model, gram_TT), Exception))

    def _show(self, trainer: L.Trainer, model: ObservedModel, gram_TT: torch.Tensor) -> None:
        G = gram_TT.double().cpu().numpy()
        step = trainer.global_step
        here = G.diagonal() > 0
        if not np.isfinite(G).all() or not here.any():
            return
        names = [name for name, known in zip(model.names, here, strict=True) if known]
        G = G[np.ix_(here, here)]
        norms = np.sqrt(G.diagonal())
        cosines = np.clip(G / norms / norms[:, None], -1, 1)
        values = {}
        for name, norm in zip(names, norms, strict=True):
            values[f"gradient/norm/{name}"] = float(norm)
        pairs = cosines[np.triu_indices(len(names), 1)]
        if len(pairs):
            values["gradient/conflicts"] = float((pairs < 0).mean())
            # singular values of the unit gradients are roots of the eigenvalues of their Gramian
            eigenvalues = np.linalg.eigvalsh(cosines)
            least = max(float(eigenvalues[0]), 1e-12)
            values["gradient/condition"] = float(eigenvalues[-1] / least) ** 0.5
        for logger in trainer.loggers:
            logger.log_metrics(values, step=step)
        if (writer := find_board(trainer)) is not None:
            figure = draw_matrix("cosines of task gradients", names, names, cosines, top=1.0)
            writer.experiment.add_figure("gradient/cosines", figure, global_step=step, close=False)
