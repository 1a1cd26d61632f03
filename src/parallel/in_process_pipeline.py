"""Several devices busy at once: slices of the rows follow one another through the stages."""

import inspect
from collections.abc import Sequence
from functools import partial
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from src.microbatch import on_slice


class InProcessPipeline:
    """The forward pass of stages, on slices of the rows in turn (GPipe: Huang et al., NeurIPS 2019), with the results of one pass.

    Stages that follow one another on one device are a run. Run j begins with slice m when run j - 1
    is done with it, and that goes on with slice m + 1: a GPU gets its work and does not wait, so
    that both are busy. What comes out is put together again, and losses, balancers and all that
    follows see the whole batch.

    Args:
        module: An encoder, or several side by side.
        slices: Into how many slices the rows are cut; they differ by one row where it does not
            divide them.
        devices: For each stage, its device in each of the encoders that run side by side.
    """

    def __init__(self, module: Any, slices: int, devices: Sequence[Sequence[torch.device]]) -> None:
        self.module = module
        self.slices = slices
        # the tensors of encoders side by side have a leading dimension, one place for each
        self.several = hasattr(module, "run_stages")
        places = enumerate(map(tuple, devices))
        self.runs = [[k for k, _ in run] for _, run in groupby(places, key=lambda place: place[1])]
        self.recompute, module.recompute = module.recompute, False  # here it is done for each slice

        module.schedule = self

    def stop(self) -> None:
        """Takes the schedule away from the module."""
        self.module.schedule = None
        self.module.recompute = self.recompute

    def __call__(self, state: Any, apart: bool = False) -> Any:
        """Runs all stages of the module, see ``forward`` there."""
        along = 1 if apart else 0
        count = next(leaf.shape[along] for leaf in tree_leaves(state))
        sizes = [len(rows) for rows in torch.arange(count).tensor_split(self.slices) if len(rows)]
        states = [
            tree_map(partial(narrow, dim=along, first=sum(sizes[:m]), size=size), state)
            for m, size in enumerate(sizes)
        ]
        keys: list[list[int]] = [
            [] for run in self.runs for _ in run
        ]  # of each stage, the same for all slices
        for step in range(len(sizes) + len(self.runs) - 1):
            for j in reversed(
                range(len(self.runs))
            ):  # what is ready is carried on before its device is given more to do
                if 0 <= (m := step - j) < len(sizes):
                    for k in self.runs[j]:
                        states[m] = self.run(
                            k, states[m], apart or k > 0, sum(sizes[:m]), count, keys[k]
                        )
        return tree_map(lambda *parts: torch.cat(parts, 1 if self.several else 0), *states)

    def run(self, k: int, state: Any, apart: bool, first: int, rows: int, keys: list[int]) -> Any:
        """Stage k on a slice that begins with row ``first`` of so many."""

        def stage(state: Any) -> Any:
            return (
                self.module.run_stages(state, apart, k, k + 1)
                if self.several
                else self.module.stages[k](state)
            )

        return on_slice(stage, state, first, rows, keys, self.recompute)


def narrow(tensor: Tensor, dim: int, first: int, size: int) -> Tensor:
    """So many rows of a tensor."""
    return tensor.narrow(dim, first, size)


def runs_whole(model: Any, modules: Sequence[nn.Module]) -> set[nn.Module]:
    """Those of some modules that a forward pass of the model calls with all of their stages, found out by trying."""
    found: set[nn.Module] = set()

    def before(module: nn.Module, args: Any, kwargs: Any) -> None:
        call = inspect.signature(module.forward).bind(*args, **kwargs).arguments
        if not call.get("first", 0) and call.get("last") is None:
            found.add(module)

    hooks = [module.register_forward_pre_hook(before, with_kwargs=True) for module in modules]
    training = model.training
    model.eval()
    try:
        with (
            torch.no_grad(),
            torch.random.fork_rng(devices=[]),
            torch.compiler.set_stance("force_eager"),
        ):
            model.sharing(model.input_shape.example())
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    return found
