"""The base of strategies that place the parts of a model on several devices of one process."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import torch
import yaml
from lightning.fabric.utilities.rank_zero import rank_zero_only
from torch.optim import Optimizer

from src.errors import UserError
from src.parallel.device_transfer import DeviceTransfer, find_staged_modules, move, set_device
from src.parallel.in_process_pipeline import find_whole_runs
from src.parallel.placement_paths import (
    SETTING,
    Place,
    PlacementSetting,
    flatten_placement,
    resolve_paths,
)
from src.parallel.strategy import MultiTaskStrategy
from src.planning.auto_placement import Balance, measure_step, place_parts
from src.planning.communication import Traffic, estimate_transfers
from src.planning.measure import REST
from src.runner import ShardableModel

CPU = torch.device("cpu")
DEFAULT_ROWS = 256  # rows of a step for which parts are placed, where nobody says


class Placed(MultiTaskStrategy):
    """The base of strategies that place a model on several devices of one process.

    Attributes:
        places: {part: place of its device, or the device's name}, once it is known.
        transfer: Carries tensors between the devices while the model is placed.
    """

    placement: PlacementSetting
    balance: Balance
    micro_batches: int
    save: str | None
    places: dict[str, Place] | None = None
    transfer: DeviceTransfer | None = None

    @property
    def own_devices(self) -> list[torch.device]:
        """The devices of this process."""
        raise NotImplementedError

    @property
    def root_device(self) -> torch.device:
        """The device of everything that is not placed: losses, the balancer, metrics."""
        return self.own_devices[0]

    # -- before a run ------------------------------------------------------------------------------
    def check_placement(self, model: ShardableModel) -> None:
        """Finds the place of each part, and writes the placement if that was asked for.

        Raises:
            UserError: The placement names what cannot be placed or a device that is not there,
                rows cannot go through this network in slices, or the file cannot be written.
        """
        if self.micro_batches < 1:
            raise UserError(
                f"strategy.micro_batches is {self.micro_batches}; it must be at least 1"
            )
        places = self.resolve_placement(model, len(self.own_devices))
        for place in places.values():
            self.device(place)
        if self.micro_batches > 1:
            check_slices(model, self.micro_batches)
        if self.save is not None:
            write_placement(Path(self.save), self.strategy_name, places, self.settings)

    def resolve_placement(self, model: ShardableModel, devices: int) -> dict[str, Place]:
        """Returns the place of each part and of 'sharing', the rest of the architecture.

        Args:
            model: The model, built, on the CPU.
            devices: The number of devices of a process.
        """
        if self.places is not None:
            return self.places
        places: dict[str, Place] = dict.fromkeys(("sharing", *model.parts()), 0)
        if isinstance(self.placement, dict):
            places |= resolve_paths(model, dict(flatten_placement(self.placement)), devices)
        else:
            footprint = measure_step(model, self.rows or DEFAULT_ROWS)
            places |= place_parts(footprint, devices, self.balance)
        self.places = places
        return places

    def device(self, place: Place) -> torch.device:
        """Returns the device at a place, or with a name.

        Raises:
            UserError: The run starts here, and the name is of a GPU that is not here.
        """
        if isinstance(place, int):
            return self.own_devices[place]
        device = torch.device(place)
        if device.type == "cpu":
            return device
        number = device.index or 0
        if self.starts and device.type == "cuda" and number >= torch.cuda.device_count():
            raise UserError(
                f"{SETTING} names {place}, but this machine has {torch.cuda.device_count()} GPUs"
            )
        return torch.device(device.type, number)

    def holds(self, model: ShardableModel, devices: int) -> list[dict[str, float]]:
        """Returns for each device {part: share of its weights there}.

        Devices that the placement names by their names are in :meth:`elsewhere`.
        """
        copies = self._count_copies(model, devices)
        return [copies.get(place, {}) for place in range(devices)]

    def elsewhere(self, model: ShardableModel, devices: int) -> dict[str, dict[str, float]]:
        """Returns {name of a device outside the Trainer's: {part: copies of it there}}."""
        copies = self._count_copies(model, devices)
        return {name: held for name, held in copies.items() if isinstance(name, str)}

    def _count_copies(self, model: ShardableModel, devices: int) -> dict[Place, dict[str, float]]:
        """Counts the copies of each part on each device, by its place among all or its name."""
        each = devices // self.count_processes(devices)
        places = self.resolve_placement(model, each)
        found = defaultdict[Place, dict[str, float]](dict)
        for first in range(0, devices, each):
            # every node has a device of this name: one node's copies count
            on_first_node = first < len(self._node_devices())
            for part in (*model.parts(), *REST):
                place = self._find_place(places.get(part, 0), first, each)
                if isinstance(place, int) or on_first_node:
                    found[place][part] = found[place].get(part, 0.0) + 1.0
        return found

    def _find_place(self, place: Place, first: int, each: int) -> Place:
        """Returns the place of a device among all, or its name where it is outside the Trainer's.

        Args:
            place: The place among the devices of a process, or a name.
            first: The place among all of the first device of that process.
            each: The number of devices of a process.
        """
        if isinstance(place, int):
            return first + place
        device = torch.device(place)
        others = self._node_devices()
        node, start = divmod(first, len(others))

        # the devices of the process itself come first
        own = range(start, start + each)
        order = [*own, *(k for k in range(len(others)) if k not in own)]
        for k in order:
            other = others[k]
            same_index = (other.index or 0) == (device.index or 0)
            if other.type == device.type and (device.type == "cpu" or same_index):
                return node * len(others) + k
        return device.type if device.type == "cpu" else f"{device.type}:{device.index or 0}"

    def _node_devices(self) -> Sequence[torch.device]:
        """Returns the devices of a node."""
        devices: Sequence[torch.device] | None = getattr(self, "parallel_devices", None)
        return devices or self.own_devices

    def estimate_copies(self, model: ShardableModel, devices: int) -> list[Traffic]:
        """Estimates what is copied between the devices of a process for a batch."""
        each = devices // self.count_processes(devices)
        places = {
            part: self._find_place(place, 0, each)
            for part, place in self.resolve_placement(model, each).items()
        }
        # each slice is copied by itself
        copies = estimate_transfers(model, places)
        return [replace(t, count=t.count * self.micro_batches) for t in copies]

    def count_processes(self, devices: int) -> int:
        """Returns the number of processes of a number of devices."""
        return 1

    @property
    def settings(self) -> dict[str, int]:
        """The settings besides the placement that a file needs."""
        return {"devices": len(self.own_devices)}

    # -- a run -------------------------------------------------------------------------------------
    def model_to_device(self) -> None:
        """Moves each part of the model to its place."""
        model = self.network
        model.configure_model()
        # measured times differ between processes: the first one decides
        places = self.broadcast(self.resolve_placement(model, len(self.own_devices)))
        devices = {part: self.device(place) for part, place in places.items()}

        self.remove_transfer()
        self.transfer = DeviceTransfer(model, devices, self.root_device, self.micro_batches)
        assert isinstance(self.lightning_module, L.LightningModule)
        set_device(self.lightning_module, self.root_device)

    def remove_transfer(self) -> None:
        """Takes the hooks from the model."""
        if self.transfer is not None:
            self.transfer.remove()
        self.transfer = None

    def teardown(self) -> None:
        """Leaves the model as it was, on the CPU."""
        self.remove_transfer()
        super().teardown()

    # -- checkpoints, which know of no devices -----------------------------------------------------
    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Returns the weights, on the CPU."""
        return move(super().lightning_module_state_dict(), CPU)

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Returns the optimizer's state, on the CPU."""
        return move(super().optimizer_state(optimizer), CPU)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Restores the optimizers' states.

        torch brings each tensor to its weight's device, where Lightning would bring all to one.
        """
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            optimizer.load_state_dict(state)


def check_slices(model: ShardableModel, slices: int) -> None:
    """Checks that rows can go through a network in slices.

    Raises:
        UserError: Something else acts between its stages, or reads their weights.
    """
    staged = list(find_staged_modules(model, model.parts()))
    if find_whole_runs(model, staged):
        return
    why = "acts between the stages of its encoders"
    if model.sharing.reads_weights:
        why = "reads the weights of its encoders"
    raise UserError(
        f"strategy.micro_batches is {slices}, but {type(model.sharing).__name__} {why}, which must "
        "run whole: set strategy.micro_batches 1"
    )


@rank_zero_only
def write_placement(
    path: Path, name: str, places: Mapping[str, Place], settings: Mapping[str, int]
) -> None:
    """Writes a placement as a file that --config and --trainer read.

    Args:
        path: The file.
        name: The name of the strategy.
        places: {part: place or name of its device}.
        settings: Further settings of the strategy, and the number of devices.

    Raises:
        UserError: There is no such folder, or the name is of another kind of file.
    """
    if not path.parent.is_dir():
        raise UserError(f"strategy.save is {path}: there is no folder {path.parent}")
    if path.suffix not in (".yaml", ".yml"):
        raise UserError(f"strategy.save is {path}: the name must end in .yaml")
    strategy: dict[str, object] = {"class_path": name, **settings, "placement": dict(places)}
    content = {"devices": strategy.pop("devices"), "strategy": strategy}
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    print(f"placement written to {path}", flush=True)
