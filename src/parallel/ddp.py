"""Data parallelism: a copy of the model in every process, gradients averaged while they are computed."""

from datetime import timedelta
from typing import Any

from lightning.pytorch.callbacks import GradientAccumulationScheduler
from lightning.pytorch.strategies import DDPStrategy
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from src.errors import UserError
from src.launch.launcher import Launches
from src.parallel.strategy import WorkerTimeout, refuse_timeout
from src.planning.communication import Traffic, estimate_ddp
from src.planning.measure import weigh_parts


class DDP(WorkerTimeout, Launches, DDPStrategy):
    """Lightning's DDP for a model in which every parameter is used in every step: nothing is searched for, nothing copied twice.

    Args:
        static_graph: Whether each step uses the same parameters in the same order; not used where
            gradients are accumulated, since torch wants the first of all backward passes to be
            followed by a sum.
        gradient_as_bucket_view: Keep gradients in the buffers that are sent, not beside them.
        find_unused_parameters: Look in each step for parameters without a gradient; here every head
            runs in every step.
        timeout: Seconds that a process waits for the others before it gives up.
    """

    strategy_name = "ddp"

    def __init__(
        self,
        static_graph: bool = True,
        gradient_as_bucket_view: bool = True,
        find_unused_parameters: bool = False,
        timeout: float = 600.0,
    ) -> None:
        super().__init__(
            timeout=timedelta(seconds=timeout),
            static_graph=static_graph,
            gradient_as_bucket_view=gradient_as_bucket_view,
            find_unused_parameters=find_unused_parameters,
        )

    def _setup_model(self, model: nn.Module) -> DistributedDataParallel:
        assert self.lightning_module is not None
        trainer: Any = self.lightning_module.trainer
        scheduled = any(
            isinstance(callback, GradientAccumulationScheduler) for callback in trainer.callbacks
        )
        if trainer.accumulate_grad_batches > 1 or scheduled:
            self._ddp_kwargs = {**self._ddp_kwargs, "static_graph": False}
        # a balancer decides alike on every rank: its state need not be sent before each step
        alike = balancer_state(model)
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, alike)
        return super()._setup_model(model)

    @property
    def replicas(self) -> int:
        """Every process reads rows of its own."""
        return self.num_nodes * self.num_processes

    def check(self, model: Any) -> None:
        """Looks at the model.

        Raises:
            UserError: Nothing in it trains, or a setting does not fit.
        """
        refuse_timeout(self._timeout)
        if not any(p.requires_grad for p in model.parameters()):
            raise UserError(
                "no parameter of this model trains, and ddp would have nothing to average: use --devices 1"
            )

    def arrangement(self, devices: int) -> str:
        """How so many devices work together, in words."""
        return f"data {devices}"

    def holds(self, model: Any, devices: int) -> list[dict[str, float]]:
        """What share of each part's parameters lies on each device."""
        return [dict.fromkeys(weigh_parts(model), 1.0)] * devices

    def traffic(self, model: Any, devices: int) -> list[Traffic]:
        """What each device sends in a step, besides sums over the global batch."""
        ignored = balancer_state(model)
        buffers = [buffer for name, buffer in model.named_buffers() if name not in ignored]
        return estimate_ddp(model.parameters(), buffers) if devices > 1 else []


def balancer_state(model: Any) -> list[str]:
    """Returns the names of a balancer's buffers in its model."""
    return [f"balancer.{name}" for name, _ in model.balancer.named_buffers()]
