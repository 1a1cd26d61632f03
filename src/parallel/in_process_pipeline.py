"""Several devices busy at once: slices of the rows follow one another through the stages."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import groupby
from typing import Protocol, cast

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from src.microbatch import run_on_slice
from src.runner import ShardableModel, StagedModule


class ManyEncoders(Protocol):
    """Encoders side by side, whose tensors have a leading dimension, one place for each."""

    def run_stages(self, state: object, apart: bool, first: int, last: int | None) -> object:
        """Runs some of the stages, one after the other."""


class InProcessPipeline:
    """The forward pass of stages, on slices of the rows in turn, with the results of one pass.

    Neighbouring stages on one device are a run. Run j begins with slice m when run j - 1 has
    finished it and goes on with slice m + 1: a GPU gets its work and the process does not wait, so
    that several are busy. The outputs are put together again, and losses, balancers and everything
    else see the whole batch. (GPipe: Huang et al., NeurIPS 2019)

    Args:
        module: An encoder, or several side by side.
        slices: The number of slices; they differ by one row where it does not divide the rows.
        devices: For each stage, its device in each of the encoders that run side by side.
    """

    def __init__(
        self, module: nn.Module, slices: int, devices: Sequence[Sequence[torch.device]]
    ) -> None:
        self.module = module
        self.staged = cast(StagedModule, module)
        self.slices = slices
        self.side_by_side = hasattr(module, "run_stages")
        places = enumerate(map(tuple, devices))
        self.runs = [[k for k, _ in run] for _, run in groupby(places, key=lambda place: place[1])]

        # stages are recomputed here, slice by slice
        self.recompute = self.staged.recompute
        self.staged.recompute = False
        self.staged.schedule = self

    def stop(self) -> None:
        """Takes the schedule from the module."""
        self.staged.schedule = None
        self.staged.recompute = self.recompute

    def __call__(self, state: object, apart: bool = False) -> object:
        """Runs all stages of the module.

        Args:
            state: The inputs of the first stage.
            apart: Whether each of several encoders has its own part of them, along a leading
                dimension.
        """
        along = 1 if apart else 0
        count = next(leaf.shape[along] for leaf in tree_leaves(state))
        sizes = [len(rows) for rows in torch.arange(count).tensor_split(self.slices) if len(rows)]
        firsts = [sum(sizes[:m]) for m in range(len(sizes))]
        states: list[object] = []
        for first, size in zip(firsts, sizes, strict=True):
            states.append(tree_map(partial(take_rows, dim=along, first=first, size=size), state))

        # the keys of each stage are those of all slices
        keys: list[list[int]] = [[] for run in self.runs for _ in run]
        for step in range(len(sizes) + len(self.runs) - 1):
            # the later runs come first: a slice is carried on before its device gets more to do
            for j in reversed(range(len(self.runs))):
                m = step - j
                if not 0 <= m < len(sizes):
                    continue
                for k in self.runs[j]:
                    stage = self._stage(k, apart or k > 0)
                    states[m] = run_on_slice(
                        stage, states[m], firsts[m], count, keys[k], self.recompute
                    )
        dim = 1 if self.side_by_side else 0
        return tree_map(lambda *slices: torch.cat(slices, dim), *states)

    def _stage(self, k: int, apart: bool) -> Callable[[object], object]:
        """Returns what runs stage k."""
        if self.side_by_side:
            encoders = cast(ManyEncoders, self.module)
            return lambda state: encoders.run_stages(state, apart, k, k + 1)
        return cast(nn.Sequential, self.module.stages)[k]


def take_rows(tensor: Tensor, dim: int, first: int, size: int) -> Tensor:
    """Returns some rows of a tensor, along a dimension."""
    return tensor.narrow(dim, first, size)


def find_whole_runs(model: ShardableModel, modules: Sequence[nn.Module]) -> set[nn.Module]:
    """Returns the modules that a forward pass calls to run all of their stages, by trying it.

    Args:
        model: The model, on the CPU.
        modules: The modules to look at.
    """
    found: set[nn.Module] = set()

    def before(module: nn.Module, args: tuple[object, ...], kwargs: Mapping[str, object]) -> None:
        call = inspect.signature(module.forward).bind(*args, **kwargs).arguments
        if not call.get("first", 0) and call.get("last") is None:
            found.add(module)

    hooks = [module.register_forward_pre_hook(before, with_kwargs=True) for module in modules]
    network = model.get_submodule("")
    training = network.training
    network.eval()
    try:
        with (
            torch.no_grad(),
            torch.random.fork_rng(devices=[]),
            torch.compiler.set_stance("force_eager"),
        ):
            model.sharing(model.input_shape.example())
    finally:
        network.train(training)
        for hook in hooks:
            hook.remove()
    return found
