"""Several encoders of one make, run side by side."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_map

from src.models.encoders.encoder import Encoder, recomputed
from src.models.sharing.sharing import Owned
from src.models.sharing.stacked_layers import CannotStack, Trial, group


class StackedEncoders(nn.Module):
    """K encoders, as one of grouped layers where they are made of layers that can be, else as K in a loop.

    Both give the same results from the same initial weights. Convolutions stay in a loop: K of them
    as one are slower on CPUs.

    Args:
        make: Makes an encoder.
        count: K, at least 1.
        first: The first stage to keep.
        last: The stage behind the last one to keep; None for the end.
        apart: Whether the first of these reads a part of its own for each encoder, as every later
            one does.

    Attributes:
        shape: What one sample looks like.
        layouts: What each stage of a whole encoder puts out.
        features: Size D of the features.
        stages: The kept stages of all encoders as one; None where they run in a loop.
        lifts: Whether the first of them reads one input for all.
        encoders: The encoders, where they run in a loop.
        recompute: As of an encoder.
        schedule: Runs all stages in another order, on slices of the rows, where a strategy has
            put it there.
    """

    recompute = False
    schedule: Callable[[Any, bool], Any] | None = None

    def __init__(
        self,
        make: Callable[[], Encoder],
        count: int,
        first: int = 0,
        last: int | None = None,
        apart: bool = False,
    ) -> None:
        super().__init__()
        made = [make() for _ in range(count)]
        self.count, self.shape, self.features, self.layouts = (
            count,
            made[0].shape,
            made[0].features,
            made[0].layouts(),
        )
        inputs: Any = self.shape.example()
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            for stage in list(made[0].stages)[:first]:
                inputs = stage(inputs)
        encoders = [encoder.cut(first, last) for encoder in made]
        self.names = [name for name, _ in encoders[0].stages.named_children()]
        self.lifts, self.apart = False, apart
        self.stages = self._grouped(encoders, inputs)
        self.encoders = nn.ModuleList(encoders if self.stages is None else [])

    def _grouped(self, encoders: Sequence[Encoder], inputs: Any) -> nn.Sequential | None:
        """All encoders as one, if that gives what each of them gives."""
        training, trial = encoders[0].training, Trial()
        try:
            stages = cast(nn.Sequential, group([encoder.stages for encoder in encoders], trial))
            with torch.no_grad():
                ours, theirs = (
                    lifted(inputs, self.count) if self.apart else inputs,
                    [inputs] * len(encoders),
                )
                trial.apart = self.apart
                for k, stage in enumerate(stages.eval()):
                    ours = stage(ours)
                    if k == 0 and not self.apart:
                        self.lifts = trial.apart
                        ours, trial.apart = ours if self.lifts else lifted(ours, self.count), True
                    theirs = [
                        list(encoder.eval().stages)[k](x)
                        for encoder, x in zip(encoders, theirs, strict=True)
                    ]
                    for one, other in zip(leaves(ours), leaves(stacked(theirs)), strict=True):
                        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
        except (CannotStack, RuntimeError, ValueError, AttributeError, AssertionError):
            return None
        finally:
            trial.over = True
            for encoder in encoders:
                encoder.train(training)
        return stages.train(training)

    def __len__(self) -> int:
        return self.count

    def _parts(self) -> list[nn.Sequential]:
        """The stages of all encoders as one, or of each."""
        return (
            [cast(Encoder, encoder).stages for encoder in self.encoders]
            if self.stages is None
            else [self.stages]
        )

    def forward(
        self, state: Any, apart: bool = False, first: int = 0, last: int | None = None
    ) -> Any:
        """Runs the stages first ... last - 1, counted from the first that was kept.

        Args:
            state: Inputs, or what the stage before has put out.
            apart: Whether each tensor of it has a leading dimension K, each encoder's own part;
                else all read the same.
            first: The first stage.
            last: The one behind the last; None for the end.

        Returns:
            What the last stage puts out, each tensor with a leading dimension K.
        """
        if self.schedule is not None and not first and last is None:
            return self.schedule(state, apart)
        return self.run_stages(state, apart, first, last)

    def run_stages(self, state: Any, apart: bool, first: int, last: int | None) -> Any:
        """Runs some of the stages in this process, one after the other; see ``forward``."""
        if self.stages is not None:
            for k in range(len(self.names))[first:last]:
                state = self._as_one(
                    self.stages.get_submodule(self.names[k]),
                    k,
                    state,
                    apart or k > first,
                    self.count,
                )
            return state
        parts = []
        for k, stages in enumerate(self._parts()):
            part = share(state, k) if apart else state
            for name in self.names[first:last]:
                part = self._call(stages.get_submodule(name), part)
            parts.append(part)
        return stacked(parts)

    def together(self, stage: int) -> dict[str, Tensor]:
        """The parameters of a stage by name, those of all encoders stacked (K, ...)."""
        name = self.names[stage]
        if self.stages is not None:
            return dict(self.stages.get_submodule(name).named_parameters())
        alike = zip(
            *(stages.get_submodule(name).named_parameters() for stages in self._parts()),
            strict=True,
        )
        return {each[0][0]: torch.stack([p for _, p in each]) for each in alike}

    def called(
        self, stage: int, parameters: Mapping[str, Tensor], state: Any, apart: bool, count: int
    ) -> Any:
        """Runs a stage as ``count`` encoders with other parameters, by name and stacked (count, ...)."""
        one = self._parts()[0].get_submodule(self.names[stage])
        if self.stages is not None:
            return self._as_one(
                partial(with_parameters, one, parameters), stage, state, apart, count
            )
        each = [
            partial(with_parameters, one, {n: p[k] for n, p in parameters.items()})
            for k in range(count)
        ]
        return stacked(
            [self._call(run, share(state, k) if apart else state) for k, run in enumerate(each)]
        )

    def _as_one(
        self, run: Callable[[Any], Any], stage: int, state: Any, apart: bool, count: int
    ) -> Any:
        """Runs a grouped stage, of which the first one alone reads what has no leading dimension."""
        if stage or self.apart:
            return self._call(run, state if apart else lifted(state, count))
        assert not apart
        return self._call(run, state) if self.lifts else lifted(self._call(run, state), count)

    def _call(self, run: Callable[[Any], Any], state: Any) -> Any:
        return recomputed(run, state) if self.recompute else run(state)

    def owners(self, tasks: Sequence[tuple[str, ...]], stage: int | None = None) -> Iterator[Owned]:
        """Whose parameters these are, all or those of one stage, given the tasks that reach each encoder."""
        names = self.names if stage is None else [self.names[stage]]
        parts = [
            [p for name in names for p in stages.get_submodule(name).parameters()]
            for stages in self._parts()
        ]
        if self.stages is None:
            yield from (Owned(reached, part) for reached, part in zip(tasks, parts, strict=True))
        elif len(set(tasks)) == 1:
            yield Owned(tasks[0], parts[0])
        else:
            assert all(len(reached) == 1 for reached in tasks)
            yield Owned(tuple(task for (task,) in tasks), parts[0], slices=True)


def with_parameters(stage: nn.Module, parameters: Mapping[str, Tensor], state: Any) -> Any:
    """Runs a stage with other parameters."""
    return functional_call(stage, dict(parameters), (state,))


def stacked(states: Sequence[Any]) -> Any:
    """Tensors, or tuples of them, with a new leading dimension."""
    return tree_map(lambda *parts: torch.stack(parts), *states)


def lifted(state: Any, count: int) -> Any:
    """The same for each of so many encoders."""
    return tree_map(lambda x: x.expand(count, *x.shape), state)


def share(state: Any, k: int) -> Any:
    """What belongs to encoder k."""
    return tree_map(lambda x: x[k], state)


def leaves(state: Any) -> tuple[Tensor, ...]:
    """The tensors of a state."""
    return (state,) if isinstance(state, Tensor) else tuple(state)
