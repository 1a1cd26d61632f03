"""One network over several devices: its parts stay where they are placed, and tensors travel."""

import inspect
from collections.abc import Mapping
from typing import TypeVar, cast

import lightning as L
import torch
from lightning.fabric.utilities.device_dtype_mixin import _update_properties
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from src.parallel.in_process_pipeline import InProcessPipeline
from src.runner import ShardableModel

S = TypeVar("S")


def move(state: S, device: torch.device, known: dict[int, Tensor] | None = None) -> S:
    """Moves the tensors of a state to a device, inside tuples, lists and mappings, too.

    Args:
        state: The state.
        device: The device.
        known: {id of a tensor: its copy there}, so that one tensor stays one.
    """
    known = {} if known is None else known
    found: object = state
    if isinstance(state, Tensor):
        if state.device != device:
            if id(state) not in known:
                known[id(state)] = state.to(device)
            found = known[id(state)]
    elif isinstance(state, tuple | list):
        found = type(state)(move(item, device, known) for item in state)
    elif isinstance(state, Mapping):
        found = {key: move(item, device, known) for key, item in state.items()}
    return cast(S, found)


def move_modules(
    module: nn.Module, devices: Mapping[nn.Module, torch.device], device: torch.device
) -> None:
    """Moves some modules to their devices, and everything around them to another.

    Args:
        module: The module that holds them.
        devices: {module: its device}.
        device: The device of the rest.
    """
    device = devices.get(module, device)
    if all(inner is module or inner not in devices for inner in module.modules()):
        module.to(device)
        return
    move_own_tensors(module, device)
    for child in module.children():
        move_modules(child, devices, device)


def move_own_tensors(module: nn.Module, device: torch.device) -> None:
    """Moves the parameters and buffers of a module to a device, without those of its children."""
    tensors = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
    if all(tensor.device == device for _, tensor in tensors):
        return
    # torch has no public way to move one module alone, but one to make room for it
    values = {name: tensor.detach() for name, tensor in tensors}
    gradients = {name: tensor.grad for name, tensor in tensors}
    module.to_empty(device=device, recurse=False)
    with torch.no_grad():
        for name, value in values.items():
            tensor = getattr(module, name)
            tensor.copy_(value)
            gradient = gradients[name]
            tensor.grad = None if gradient is None else gradient.to(device)


def set_device(module: L.LightningModule, device: torch.device) -> None:
    """Sets the device that a LightningModule names as its own, without moving anything."""
    _update_properties(module, device=device)


class StageRun:
    """The hooks of a module that runs stages one after the other, one encoder or several.

    While it runs, the output of a stage stays on its device for the next stage to read, and the
    output of the last one comes home.

    Args:
        module: The module, with ``stages``, or ``encoders`` that have them and whose results it
            puts side by side.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.running = False
        self.last = ""
        self.pipeline: InProcessPipeline | None = None

        # of each encoder its stages
        encoders = list(getattr(module, "encoders", ()))
        holders: list[nn.Module] = encoders or [module]
        self.chains = [cast(nn.Sequential, holder.stages) for holder in holders]
        self.names = [name for name, _ in self.chains[0].named_children()]
        self.signature = inspect.signature(module.forward)

    def use_slices(self, slices: int, devices: Mapping[nn.Module, torch.device]) -> None:
        """Lets slices of the rows follow one another through all of the stages."""

        def devices_of(name: str) -> list[torch.device]:
            return [devices[chain.get_submodule(name)] for chain in self.chains]

        places = [devices_of(name) for name in self.names]
        self.pipeline = InProcessPipeline(self.module, slices, places)

    def before(self, _: nn.Module, args: tuple[object, ...], kwargs: Mapping[str, object]) -> None:
        """Notes which stage will be the last."""
        call = self.signature.bind(*args, **kwargs).arguments
        self.last = self.names[call.get("first", 0) : call.get("last")][-1]
        # the slices of several encoders are put side by side behind each stage
        self.running = self.pipeline is None or len(self.chains) == 1

    def after(self, *_: object) -> None:
        """Notes that the module does not run any more."""
        self.running = False

    def goes_home(self, name: str) -> bool:
        """Returns whether others than the next stage read the output of a stage."""
        return not self.running or name == self.last

    def stop(self) -> None:
        """Lets the module run its stages one after the other again."""
        if self.pipeline is not None:
            self.pipeline.stop()


class DeviceTransfer:
    """Moves the parts of a model to devices, and carries tensors between these.

    Args:
        model: The model, on the CPU.
        devices: {path of a part, as ``model.parts()`` has it, or 'sharing' for the rest of the
            architecture: its device}.
        root: The device of everything else: losses, balancer, metrics.
        slices: Number of slices of the rows, see :class:`InProcessPipeline`.
    """

    def __init__(
        self,
        model: ShardableModel,
        devices: Mapping[str, torch.device],
        root: torch.device,
        slices: int = 1,
    ) -> None:
        self.hooks: list[RemovableHandle] = []
        self.runs: list[StageRun] = []
        home = devices.get("sharing", root)
        parts = model.parts()
        sharing = model.get_submodule("sharing")
        by_module = {parts.get(path, sharing): device for path, device in devices.items()}
        move_modules(model.get_submodule(""), by_module, root)

        # heads that are stacked run where they are; others run as modules, and need hooks
        for path, part in parts.items():
            if path.startswith("heads."):
                self._carry(part, devices[path], root)
        if home != root:
            self._carry(sharing, home, root)

        stages = {
            part: devices[path] for path, part in parts.items() if not path.startswith("heads.")
        }
        for module, names in find_staged_modules(model, parts).items():
            run = StageRun(module)
            self.runs.append(run)
            for part, name in names.items():
                self._carry(part, stages[part], home, run, name)
            self.hooks.append(module.register_forward_pre_hook(run.before, with_kwargs=True))
            self.hooks.append(module.register_forward_hook(run.after, always_call=True))
            if slices > 1:
                run.use_slices(slices, stages)

    def _carry(
        self,
        part: nn.Module,
        device: torch.device,
        home: torch.device,
        run: StageRun | None = None,
        name: str = "",
    ) -> None:
        """Carries the inputs of a module to its device, and its outputs home."""

        def before(_: nn.Module, inputs: tuple[object, ...]) -> tuple[object, ...]:
            return move(inputs, device)

        def after(_: nn.Module, inputs: tuple[object, ...], output: object) -> object:
            goes_home = run is None or run.goes_home(name)
            return move(output, home) if goes_home else output

        self.hooks.append(part.register_forward_pre_hook(before))
        self.hooks.append(part.register_forward_hook(after))

    def remove(self) -> None:
        """Takes all hooks from the model."""
        for hook in self.hooks:
            hook.remove()
        for run in self.runs:
            run.stop()


def find_staged_modules(
    model: ShardableModel, parts: Mapping[str, nn.Module]
) -> dict[nn.Module, dict[nn.Module, str]]:
    """Returns {module that runs stages one after the other: {stage: its name there}}."""
    found: dict[nn.Module, dict[nn.Module, str]] = {}
    for path, part in parts.items():
        encoder, _, name = path.rpartition(".stages.")
        if not encoder:
            continue
        # encoders in a loop, such as sharing.experts.encoders.2, are run by what holds them
        holder = encoder.rpartition(".encoders.")[0] or encoder
        found.setdefault(model.get_submodule(holder), {})[part] = name
    return found
