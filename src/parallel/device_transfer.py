"""One network over several devices: its parts lie where they are told to, and tensors are carried to whoever reads them."""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from src.parallel.in_process_pipeline import InProcessPipeline


def moved(state: Any, device: torch.device, known: dict[int, Any] | None = None) -> Any:
    """The same tensors on a device, inside tuples and mappings, too; what is one tensor before is one afterwards."""
    if isinstance(state, Tensor):
        if state.device == device:
            return state
        known = {} if known is None else known
        if id(state) not in known:
            known[id(state)] = state.to(device)
        return known[id(state)]
    known = {} if known is None else known
    if isinstance(state, tuple | list):
        return type(state)(moved(item, device, known) for item in state)
    if isinstance(state, Mapping):
        return {key: moved(item, device, known) for key, item in state.items()}
    return state


class Runner:
    """A module that runs stages one after the other, an encoder or several side by side.

    While it runs, what a stage puts out stays where it is for the next stage to read, and the last
    one brings it home.

    Args:
        module: The module, with ``stages``, or ``encoders`` that have them and whose results it
            puts side by side.
    """

    def __init__(self, module: Any) -> None:
        self.module, self.running, self.last = module, False, ""
        encoders = getattr(module, "encoders", ())
        self.chains: list[nn.Sequential] = (
            [encoder.stages for encoder in encoders] if len(encoders) else [module.stages]
        )
        self.names = [name for name, _ in self.chains[0].named_children()]
        self.sliced: InProcessPipeline | None = None
        self.signature = inspect.signature(module.forward)

    def slice(self, slices: int, devices: Mapping[nn.Module, torch.device]) -> None:
        """Runs all of its stages on so many slices of the rows in turn."""
        of_stages = [
            [devices[chain.get_submodule(name)] for chain in self.chains] for name in self.names
        ]
        self.sliced = InProcessPipeline(self.module, slices, of_stages)

    def before(self, _: Any, args: Any, kwargs: Any) -> None:
        """Notes which stage will be the last."""
        call = self.signature.bind(*args, **kwargs).arguments
        self.last = self.names[call.get("first", 0) : call.get("last")][-1]
        # several encoders in slices are put side by side behind each stage
        self.running = self.sliced is None or len(self.chains) == 1

    def after(self, *_: Any) -> None:
        """Has run."""
        self.running = False

    def goes_home(self, name: str) -> bool:
        """Whether what a stage puts out is read by others than the next stage."""
        return not self.running or name == self.last

    def stop(self) -> None:
        """Runs as ever."""
        if self.sliced is not None:
            self.sliced.stop()


class DeviceTransfer:
    """Lays a model's parts on devices, and carries tensors over the borders between them.

    Args:
        model: The model, on the CPU.
        devices: {path of a part, as ``model.parts()`` has it, or 'sharing' for the rest of the
            architecture: its device}.
        root: The device of everything else: losses, balancer, metrics.
        slices: Into how many slices the rows are cut, see :class:`InProcessPipeline`.
    """

    def __init__(
        self, model: Any, devices: Mapping[str, torch.device], root: torch.device, slices: int = 1
    ) -> None:
        self.hooks: list[Any] = []
        self.runners: dict[nn.Module, Runner] = {}
        home = devices.get("sharing", root)
        parts: dict[str, nn.Module] = model.parts()
        lay(
            model,
            {parts.get(path, model.sharing): device for path, device in devices.items()},
            root,
        )
        for path, part in parts.items():
            if path.startswith("heads."):
                self.at(
                    part, devices[path], root
                )  # for those that are run as modules; others are stacked where they lie
        if home != root:
            self.at(model.sharing, home, root)
        stages = {
            part: devices[path] for path, part in parts.items() if not path.startswith("heads.")
        }
        for module, names in runners(model, parts).items():
            runner = self.runners[module] = Runner(module)
            for part, name in names.items():
                self.at(part, stages[part], home, runner, name)
            self.hooks.append(module.register_forward_pre_hook(runner.before, with_kwargs=True))
            self.hooks.append(module.register_forward_hook(runner.after, always_call=True))
            if slices > 1:
                runner.slice(slices, stages)

    def at(
        self,
        part: nn.Module,
        device: torch.device,
        home: torch.device,
        runner: Runner | None = None,
        name: str = "",
    ) -> None:
        """Lets a module read what is brought to its device, and brings home what it puts out."""

        def before(_: nn.Module, inputs: Any) -> Any:
            return moved(inputs, device)

        def after(_: nn.Module, inputs: Any, output: Any) -> Any:
            return moved(output, home) if runner is None or runner.goes_home(name) else output

        self.hooks += [part.register_forward_pre_hook(before), part.register_forward_hook(after)]

    def remove(self) -> None:
        """Takes everything away again."""
        for hook in self.hooks:
            hook.remove()
        for runner in self.runners.values():
            runner.stop()


def runners(model: Any, parts: Mapping[str, nn.Module]) -> dict[nn.Module, dict[nn.Module, str]]:
    """{what runs stages one after the other: {stage: its name there}}."""
    found: dict[nn.Module, dict[nn.Module, str]] = {}
    for path, part in parts.items():
        encoder, _, name = path.rpartition(".stages.")
        if encoder:
            several = encoder.rpartition(".encoders.")[
                0
            ]  # encoders in a loop, such as sharing.experts.encoders.2
            found.setdefault(model.get_submodule(several or encoder), {})[part] = name
    return found


def lay(module: nn.Module, devices: Mapping[nn.Module, torch.device], device: torch.device) -> None:
    """Moves each module to its device, and what is in none of them to that of what is around it."""
    device = devices.get(module, device)
    if any(inner in devices for inner in module.modules() if inner is not module):
        module._apply(lambda tensor: tensor.to(device), recurse=False)
        for child in module.children():
            lay(child, devices, device)
    else:
        module.to(device)
