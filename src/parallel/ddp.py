"""Data parallelism: each process has a copy of the model, and gradients are averaged."""

from contextlib import nullcontext
from typing import Any

import torch
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from torch.nn.parallel import DistributedDataParallel

from src.errors import UserError
from src.parallel.strategy import ProcessStrategy
from src.planning.communication import Traffic, estimate_ddp
from src.planning.measure import weigh_parts
from src.runner import ShardableModel


class DDP(ProcessStrategy):
    """Lightning's DDP for a model in which every parameter is used in every step.

    So no unused parameter is searched for, and no gradient is copied twice.

    Args:
        static_graph: Whether each step uses the same parameters in the same order. It is ignored
            where gradients are accumulated, since torch wants a sum after the first of all
            backward passes.
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
        super().__init__(timeout)
        self.static_graph = static_graph
        self.gradient_as_bucket_view = gradient_as_bucket_view
        self.find_unused_parameters = find_unused_parameters
        # of the set of parameters whose gradients are averaged
        self._version = 0

    def configure_ddp(self) -> None:
        """Wraps the model, so that its gradients are averaged while they are computed."""
        assert self.model is not None
        self._version = self.network.freezing.version
        # a balancer decides alike on every rank: its state need not be sent before each step
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(
            self.model, name_balancer_buffers(self.network)
        )
        device_ids = self.determine_ddp_device_ids()
        # on GPUs, torch's notes on CUDA graphs ask for a side stream here, as Lightning has it
        stream = nullcontext() if device_ids is None else torch.cuda.stream(torch.cuda.Stream())
        with stream:
            self.model = DistributedDataParallel(
                self.model,
                device_ids=device_ids,
                static_graph=self.static_graph and not self._accumulates(),
                gradient_as_bucket_view=self.gradient_as_bucket_view,
                find_unused_parameters=self.find_unused_parameters,
            )

    def on_train_batch_start(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Looks whether other parameters train by now."""
        if self.network.freezing.version != self._version:
            self.follow_thaw()

    def follow_thaw(self) -> None:
        """Wraps the model anew, so that the gradients of all that trains by now are averaged."""
        assert isinstance(self.model, DistributedDataParallel)
        # the old wrapper would average once more, for as long as it is there
        self.model._remove_autograd_hooks()
        assert self.lightning_module is not None
        self.model = self.lightning_module
        for p in self.model.parameters():
            p.grad = None
        self.configure_ddp()

    def _accumulates(self) -> bool:
        """Returns whether a step has several batches, now or in a later epoch."""
        assert self.lightning_module is not None
        trainer = self.lightning_module.trainer
        callbacks = trainer.callbacks  # type: ignore[attr-defined]
        scheduled = any(isinstance(c, GradientAccumulationScheduler) for c in callbacks)
        return trainer.accumulate_grad_batches > 1 or scheduled

    @property
    def replicas(self) -> int:
        """The number of processes: each one reads rows of its own."""
        return self.num_nodes * self.num_processes

    def check(self, model: ShardableModel) -> None:
        """Checks that something in the model trains.

        Raises:
            UserError: Nothing does, or a setting does not fit.
        """
        super().check(model)
        if not any(p.requires_grad for p in model.parameters()):
            raise UserError(
                "no parameter of this model trains, and ddp would have nothing to average: use "
                "--devices 1"
            )

    def arrangement(self, devices: int) -> str:
        """Describes in words how a number of devices, over all nodes, work together."""
        return f"data {devices}"

    def holds(self, model: ShardableModel, devices: int) -> list[dict[str, float]]:
        """Returns for each device {part: share of its weights there}."""
        return [dict.fromkeys(weigh_parts(model), 1.0)] * devices

    def traffic(self, model: ShardableModel, devices: int) -> list[Traffic]:
        """Estimates what a device sends for a batch, besides sums over the global batch."""
        if devices == 1:
            return []
        ignored = name_balancer_buffers(model)
        buffers = [buffer for name, buffer in model.named_buffers() if name not in ignored]
        return estimate_ddp(model.parameters(), buffers)


def name_balancer_buffers(model: ShardableModel) -> list[str]:
    """Returns the names of the balancer's buffers in its model."""
    return [f"balancer.{name}" for name, _ in model.balancer.named_buffers()]
