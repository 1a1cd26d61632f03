"""K encoders of one kind, run side by side."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from src.models.encoders.encoder import Encoder, Inputs, State, map_state, recompute_stage
from src.models.sharing.sharing import Owned
from src.models.sharing.stacked_layers import CannotStack, Trial, stack_modules

RunStage = Callable[[Inputs | State], State]


class StackedEncoders(nn.Module):
    """K encoders: one network of stacked layers where their layers can be stacked, else a loop.

    Both give the same results from the same initial weights. Convolutions stay in a loop: K of them
    in one are slower on CPUs.

    Args:
        make: Makes an encoder.
        count: K, at least 1.
        first: The first stage to keep.
        last: The stage behind the last one to keep; None for the end.
        apart: Whether the first kept stage reads a tensor of its own for each encoder, as every
            later one does.

    Attributes:
        shape: The shape of one sample.
        layouts: The layouts of all stages of an encoder.
        features: Size D of the features.
        names: The names of the kept stages.
        stages: The kept stages of all encoders as one network; None where they run in a loop.
        adds_dimension: Whether a layer of the first stage adds the leading dimension K, because it
            has weights; else the stage runs once for all.
        encoders: The encoders, where they run in a loop.
        recompute: Whether only the inputs of stages are kept, and the backward pass computes each
            stage once more.
        schedule: Runs all stages in another order, on slices of the rows, where a strategy has
            put it there.
    """

    recompute = False
    schedule: Callable[[Inputs | State, bool], State] | None = None

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
        self.count = count
        self.apart = apart
        self.shape = made[0].shape
        self.features = made[0].features
        self.layouts = made[0].layouts()

        # an example of what the first kept stage reads
        state: Inputs | State = self.shape.example()
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            for stage in list(made[0].stages)[:first]:
                state = stage(state)

        encoders = [encoder.cut(first, last) for encoder in made]
        self.names = [name for name, _ in encoders[0].stages.named_children()]
        self.adds_dimension = False
        self.stages = self._stack(encoders, state)
        self.encoders = nn.ModuleList(encoders if self.stages is None else [])

    def _stack(self, encoders: Sequence[Encoder], state: Inputs | State) -> nn.Sequential | None:
        """Stacks the encoders; returns None if that gives other results than each of them."""
        training = encoders[0].training
        trial = Trial()
        trial.apart = self.apart
        try:
            stacked = stack_modules([encoder.stages for encoder in encoders], trial)
            stages = cast(nn.Sequential, stacked).eval()
            for encoder in encoders:
                encoder.eval()

            ours = expand_state(cast(State, state), self.count) if self.apart else state
            theirs = [state] * self.count
            with torch.no_grad():
                for k, stage in enumerate(stages):
                    ours = stage(ours)
                    if k == 0 and not self.apart:
                        self.adds_dimension = trial.apart
                        if not trial.apart:
                            ours = expand_state(cast(State, ours), self.count)
                        trial.apart = True
                    outputs: list[State] = [
                        encoder.stages[k](x) for encoder, x in zip(encoders, theirs, strict=True)
                    ]
                    torch.testing.assert_close(ours, stack_states(outputs), rtol=1e-5, atol=1e-5)
                    theirs = [*outputs]
        except (CannotStack, RuntimeError, ValueError, TypeError, AttributeError, AssertionError):
            # the code of these encoders does not bear a leading dimension
            return None
        finally:
            trial.over = True
            for encoder in encoders:
                encoder.train(training)
        return stages.train(training)

    def __len__(self) -> int:
        return self.count

    def _chains(self) -> list[nn.Sequential]:
        """Returns the stages of all encoders as one, or of each."""
        if self.stages is not None:
            return [self.stages]
        return [cast(Encoder, encoder).stages for encoder in self.encoders]

    def forward(
        self,
        state: Inputs | State,
        apart: bool = False,
        first: int = 0,
        last: int | None = None,
    ) -> State:
        """Runs the stages first ... last - 1, counted from the first that was kept.

        Args:
            state: Inputs, or the output of the stage before.
            apart: Whether each tensor of the state has a leading dimension K, with a part for each
                encoder; else all encoders read the same.
            first: The first stage.
            last: The stage behind the last one; None for the end.

        Returns:
            The output of the last stage, each tensor with a leading dimension K.
        """
        if self.schedule is not None and not first and last is None:
            return self.schedule(state, apart)
        return self.run_stages(state, apart, first, last)

    def run_stages(self, state: Inputs | State, apart: bool, first: int, last: int | None) -> State:
        """Runs some of the stages in this process, one after the other; see ``forward``."""
        if self.stages is not None:
            for k in range(len(self.names))[first:last]:
                stage = self.stages.get_submodule(self.names[k])
                state = self._run_stacked(stage, k, state, apart or k > first, self.count)
            return cast(State, state)

        # one encoder after the other, each through all of these stages
        outputs: list[State] = []
        for k, stages in enumerate(self._chains()):
            own = select_state(cast(State, state), k) if apart else state
            for name in self.names[first:last]:
                own = self._run(stages.get_submodule(name), own)
            outputs.append(cast(State, own))
        return stack_states(outputs)

    def run_stage_with(
        self,
        stage: int,
        parameters: Mapping[str, Tensor],
        state: Inputs | State,
        apart: bool,
        count: int,
    ) -> State:
        """Runs a stage as ``count`` encoders with other parameters.

        Args:
            stage: Its number.
            parameters: {name: (count, ...)}, as :meth:`stack_parameters` names them.
            state: Inputs, or the output of the stage before.
            apart: Whether each tensor of the state has a leading dimension.
            count: How many encoders.
        """
        one = self._chains()[0].get_submodule(self.names[stage])
        if self.stages is not None:
            run = partial(call_with, one, parameters)
            return self._run_stacked(run, stage, state, apart, count)

        outputs = []
        for k in range(count):
            own = {name: p[k] for name, p in parameters.items()}
            x = select_state(cast(State, state), k) if apart else state
            outputs.append(self._run(partial(call_with, one, own), x))
        return stack_states(outputs)

    def _run_stacked(
        self, run: RunStage, stage: int, state: Inputs | State, apart: bool, count: int
    ) -> State:
        """Runs a stacked stage; only the first one reads a state without the dimension K."""
        if stage or self.apart:
            return self._run(run, state if apart else expand_state(cast(State, state), count))
        assert not apart
        output = self._run(run, state)
        return output if self.adds_dimension else expand_state(output, count)

    def _run(self, run: RunStage, state: Inputs | State) -> State:
        """Runs a stage, with its activations kept or computed once more."""
        return recompute_stage(run, state) if self.recompute else run(state)

    def stack_parameters(self, stage: int) -> dict[str, Tensor]:
        """Returns the parameters of a stage by name, stacked over the encoders (K, ...)."""
        name = self.names[stage]
        if self.stages is not None:
            return dict(self.stages.get_submodule(name).named_parameters())
        each = [dict(chain.get_submodule(name).named_parameters()) for chain in self._chains()]
        return {key: torch.stack([own[key] for own in each]) for key in each[0]}

    def owners(self, tasks: Sequence[tuple[str, ...]], stage: int | None = None) -> Iterator[Owned]:
        """Yields the parameters with the tasks that reach them.

        Args:
            tasks: For each encoder, the tasks whose losses reach it.
            stage: The stage whose parameters are meant; None for all.
        """
        names = self.names if stage is None else [self.names[stage]]
        parameters = [
            [p for name in names for p in chain.get_submodule(name).parameters()]
            for chain in self._chains()
        ]
        if self.stages is None:
            for reached, own in zip(tasks, parameters, strict=True):
                yield Owned(reached, own)
        elif len(set(tasks)) == 1:
            yield Owned(tasks[0], parameters[0])
        else:
            # each encoder is a slice of the stacked parameters
            assert all(len(reached) == 1 for reached in tasks)
            yield Owned(tuple(task for (task,) in tasks), parameters[0], slices=True)


def call_with(stage: nn.Module, parameters: Mapping[str, Tensor], state: Inputs | State) -> State:
    """Calls a stage with other parameters."""
    output: State = functional_call(stage, dict(parameters), (state,))
    return output


def stack_states(states: Sequence[State]) -> State:
    """Stacks the tensors of K states, with a new leading dimension."""
    return map_state(lambda *tensors: torch.stack(tensors), *states)


def expand_state(state: State, count: int) -> State:
    """Gives each of several encoders the same state: tensors (count, ...), without a copy."""
    return map_state(lambda x: x.expand(count, *x.shape), state)


def select_state(state: State, k: int) -> State:
    """Returns the part of a state (K, ...) that belongs to encoder k."""
    return map_state(lambda x: x[k], state)
