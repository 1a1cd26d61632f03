"""Several encoders of one make, run side by side."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_map

from src.models.encoders.encoder import Encoder
from src.models.sharing.grouped import CannotGroup, Flow, group
from src.models.sharing.sharing import Owned


class Copies(nn.Module):
    """K encoders, as one of grouped layers where they are made of layers that can be, else as K in a loop.

    Both give the same results from the same initial weights. Convolutions stay in a loop: K of them as one are slower on CPUs.

    Args:
        make: Makes an encoder.
        count: K, at least 1.
        first: The first stage to keep.
        last: The stage behind the last one to keep; None for the end.

    Attributes:
        layouts: What each stage of a whole encoder puts out.
        features: Size D of the features.
        stages: The kept stages of all encoders as one; None where they run in a loop.
        encoders: The encoders, where they run in a loop.
    """

    def __init__(self, make: Callable[[], Encoder], count: int, first: int = 0, last: int | None = None) -> None:
        super().__init__()
        made = [make() for _ in range(count)]
        self.count, self.features, self.layouts = count, made[0].features, made[0].layouts()
        inputs: Any = made[0].shape.example()
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            for stage in made[0].stages[:first]:
                inputs = stage(inputs)
        encoders = [encoder.cut(first, last) for encoder in made]
        self.names = [name for name, _ in encoders[0].stages.named_children()]
        self.flow = Flow()
        self.stages = self._grouped(encoders, inputs)
        self.encoders = nn.ModuleList(encoders if self.stages is None else [])

    def _grouped(self, encoders: Sequence[Encoder], inputs: Any) -> nn.Sequential | None:
        """All encoders as one, if that gives what each of them gives."""
        if len(encoders) == 1:
            return None
        training = encoders[0].training
        try:
            stages = group([encoder.stages for encoder in encoders], self.flow)
            with torch.no_grad():
                stages.eval()
                self.flow.apart = False
                found = stages(inputs)
                each = [encoder.stages.eval()(inputs) for encoder in encoders]
            for ours, theirs in zip(leaves(found), leaves(stacked(each)), strict=True):
                torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
        except (CannotGroup, RuntimeError, ValueError, AttributeError, AssertionError):
            return None
        finally:
            for encoder in encoders:
                encoder.train(training)
        return stages.train(training)  # type: ignore[return-value]

    def __len__(self) -> int:
        return self.count

    def forward(self, state: Any, apart: bool = False, first: int = 0, last: int | None = None) -> Any:
        """Runs the stages first ... last - 1, counted from the first that was kept.

        Args:
            state: Inputs, or what the stage before has put out.
            apart: Whether each tensor of it has a leading dimension K, each encoder's own part; else all read the same.
            first: The first stage.
            last: The one behind the last; None for the end.

        Returns:
            What the last stage puts out, each tensor with a leading dimension K.
        """
        if self.stages is not None:
            self.flow.apart = apart
            for name in self.names[first:last]:
                state = self.stages.get_submodule(name)(state)
            return state
        parts = []
        for k, encoder in enumerate(self.encoders):
            part = share(state, k) if apart else state
            for name in self.names[first:last]:
                part = encoder.stages.get_submodule(name)(part)
            parts.append(part)
        return stacked(parts)

    def together(self, stage: int) -> dict[str, Tensor]:
        """The parameters of a stage by name, those of all encoders stacked (K, ...)."""
        name = self.names[stage]
        if self.stages is not None:
            return dict(self.stages.get_submodule(name).named_parameters())
        alike = zip(*(encoder.stages.get_submodule(name).named_parameters() for encoder in self.encoders), strict=True)
        return {each[0][0]: torch.stack([p for _, p in each]) for each in alike}

    def called(self, stage: int, parameters: Mapping[str, Tensor], state: Any, apart: bool) -> Any:
        """Runs a stage of all encoders with other parameters, by name and stacked (K, ...)."""
        name = self.names[stage]
        if self.stages is not None:
            self.flow.apart = apart
            return functional_call(self.stages.get_submodule(name), dict(parameters), (state,))
        stages = [encoder.stages.get_submodule(name) for encoder in self.encoders]
        return stacked(
            [
                functional_call(s, {n: p[k] for n, p in parameters.items()}, (share(state, k) if apart else state,))
                for k, s in enumerate(stages)
            ]
        )

    def owners(self, tasks: Sequence[tuple[str, ...]]) -> Iterator[Owned]:
        """Whose parameters these are, given the tasks that reach each encoder."""
        if self.stages is None:
            for reached, encoder in zip(tasks, self.encoders, strict=True):
                yield Owned(reached, list(encoder.parameters()))
        elif len(set(tasks)) == 1:
            yield Owned(tasks[0], list(self.parameters()))
        else:
            assert all(len(reached) == 1 for reached in tasks)
            yield Owned(tuple(task for (task,) in tasks), list(self.parameters()), slices=True)


def stacked(states: Sequence[Any]) -> Any:
    """Tensors, or tuples of them, with a new leading dimension."""
    return tree_map(lambda *parts: torch.stack(parts), *states)


def share(state: Any, k: int) -> Any:
    """What belongs to encoder k."""
    return tree_map(lambda x: x[k], state)


def leaves(state: Any) -> tuple[Tensor, ...]:
    """The tensors of a state."""
    return (state,) if isinstance(state, Tensor) else tuple(state)
