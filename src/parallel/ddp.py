"""Data parallelism: a copy of the model in every process, gradients averaged while they are computed."""

from datetime import timedelta

from lightning.pytorch.strategies import DDPStrategy


class DDP(DDPStrategy):
    """Lightning's DDP for a model in which every parameter is used in every step: nothing is searched for, nothing copied twice.

    Args:
        static_graph: Whether each step uses the same parameters in the same order.
        gradient_as_bucket_view: Keep gradients in the buffers that are sent, not beside them.
        find_unused_parameters: Look in each step for parameters without a gradient; here every head runs in every step.
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
