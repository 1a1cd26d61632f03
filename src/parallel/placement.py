"""Manual model parallelism: one process, several devices, each part of the network where it is told to lie."""

import difflib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from lightning.fabric.utilities.device_dtype_mixin import _update_properties
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.strategies import SingleDeviceStrategy
from lightning.pytorch.strategies.strategy import Strategy
from torch import nn

from src.errors import UserError
from src.parallel.device_transfer import DeviceTransfer, moved, runners
from src.parallel.in_process_pipeline import runs_whole
from src.planning.auto_placement import Balance, measure_step, place_parts
from src.planning.communication import Traffic, estimate_transfers
from src.planning.measure import REST

SETTING = "strategy.placement"


class Placed(Strategy):
    """What all strategies have in common that lay a model on several devices of one process.

    Attributes:
        rows: Rows of a step, for which a plan is made.
        starts: Whether it will run, on devices that must be here.
        plan: {part: place of its device, or the device's name}, once it is known.
    """

    strategy_name: str
    placement: Literal["auto"] | dict[str, Any]
    balance: Balance
    micro_batches: int
    save: str | None
    borders: DeviceTransfer | None = None
    plan: dict[str, int | str] | None = None
    rows: int = 256
    starts: bool = True

    @property
    def own_devices(self) -> list[torch.device]:
        """The devices of this process."""
        raise NotImplementedError

    @property
    def root_device(self) -> torch.device:
        """Where everything is that is not placed: losses, the balancer, metrics."""
        return self.own_devices[0]

    # -- before a run ------------------------------------------------------------------------------
    def check(self, model: Any) -> None:
        """Finds out what lies where, and writes the plan if that was asked for.

        Raises:
            UserError: The placement names what cannot be placed or a device that is not there,
                rows cannot go through this network in slices, or the plan cannot be written.
        """
        if self.micro_batches < 1:
            raise UserError(
                f"strategy.micro_batches is {self.micro_batches}; it must be at least 1"
            )
        plan = self.planned(model, len(self.own_devices))
        for place in plan.values():
            self.device(place)
        if self.micro_batches > 1:
            check_slices(model, self.micro_batches)
        if self.save is not None:
            write(Path(self.save), self.strategy_name, plan, **self.settings)

    def planned(self, model: Any, devices: int) -> dict[str, int | str]:
        """What lies where, of all parts of the model and of 'sharing', the rest of the architecture.

        Args:
            model: The model, built, on the CPU.
            devices: How many a process has.
        """
        if self.plan is not None:
            return self.plan
        plan: dict[str, int | str] = dict.fromkeys(("sharing", *model.parts()), 0)
        if isinstance(self.placement, dict):
            plan |= named(model, dict(flat(self.placement)), devices)
        else:
            plan |= place_parts(measure_step(model, self.rows), devices, self.balance)
        self.plan = plan
        return plan

    def device(self, place: int | str) -> torch.device:
        """The device at a place, or of a name."""
        if isinstance(place, int):
            return self.own_devices[place]
        device = torch.device(place)
        if (
            self.starts
            and device.type == "cuda"
            and (device.index or 0) >= torch.cuda.device_count()
        ):
            raise UserError(
                f"{SETTING} names {place}, but this machine has {torch.cuda.device_count()} GPUs"
            )
        return torch.device(device.type, device.index or 0) if device.type != "cpu" else device

    def holds(self, model: Any, devices: int) -> list[dict[str, float]]:
        """What share of each part's parameters lies on each device; those that go by their names are ``elsewhere``."""
        lying = self._lying(model, devices)
        return [lying.get(d, {}) for d in range(devices)]

    def elsewhere(self, model: Any, devices: int) -> dict[str, dict[str, float]]:
        """What lies on devices of a node that are none of the Trainer's, by their names."""
        return {
            name: held
            for name, held in self._lying(model, devices).items()
            if isinstance(name, str)
        }

    def _lying(self, model: Any, devices: int) -> dict[int | str, dict[str, float]]:
        """For each device, by its place among all or its name, how many copies of each part lie there."""
        each = devices // self.processes(devices)
        plan, found = self.planned(model, each), defaultdict[int | str, dict[str, float]](dict)
        for first in range(0, devices, each):
            for part in (*model.parts(), *REST):
                place = self._place(plan.get(part, 0), first, each)
                if isinstance(place, int) or first < len(
                    self._of_node
                ):  # another node has a device of this name, too
                    found[place][part] = found[place].get(part, 0.0) + 1.0
        return found

    def _place(self, place: int | str, first: int, each: int) -> int | str:
        """The place among all devices, for the process whose own begin with the first; of what is none of them the name."""
        if isinstance(place, int):
            return first + place
        device, (node, start) = torch.device(place), divmod(first, len(self._of_node))
        own = range(start, start + each)
        for k in (*own, *(k for k in range(len(self._of_node)) if k not in own)):
            other = self._of_node[k]
            if other.type == device.type and (
                device.type == "cpu" or (other.index or 0) == (device.index or 0)
            ):
                return node * len(self._of_node) + k
        return device.type if device.type == "cpu" else f"{device.type}:{device.index or 0}"

    @property
    def _of_node(self) -> list[torch.device]:
        return getattr(self, "parallel_devices", None) or self.own_devices

    def traffic(self, model: Any, devices: int) -> list[Traffic]:
        """What is carried over the borders between the devices of a process in a step."""
        each = devices // self.processes(devices)
        places = {
            part: self._place(place, 0, each) for part, place in self.planned(model, each).items()
        }
        return [
            replace(t, count=t.count * self.micro_batches)
            for t in estimate_transfers(model, places)
        ]

    def processes(self, devices: int) -> int:
        """Into how many processes so many devices go."""
        return 1

    @property
    def settings(self) -> dict[str, Any]:
        """What a file says of it besides the placement."""
        return {"devices": len(self.own_devices)}

    # -- a run -------------------------------------------------------------------------------------
    def model_to_device(self) -> None:
        """Lays the model where the plan says."""
        model: Any = self.lightning_module
        model.configure_model()
        plan = self.broadcast(
            self.planned(model, len(self.own_devices))
        )  # times that were measured differ between processes
        devices = {part: self.device(place) for part, place in plan.items()}
        self.take_up()
        self.borders = DeviceTransfer(model, devices, self.root_device, self.micro_batches)
        _update_properties(model, device=self.root_device)

    def take_up(self) -> None:
        """Takes the hooks from the model."""
        if self.borders is not None:
            self.borders.remove()
        self.borders = None

    def teardown(self) -> None:
        """Leaves the model as it was, on the CPU."""
        self.take_up()
        super().teardown()

    # -- checkpoints, which know of no devices -----------------------------------------------------
    def lightning_module_state_dict(self) -> dict[str, Any]:
        """The weights, on the CPU."""
        state: dict[str, Any] = moved(super().lightning_module_state_dict(), torch.device("cpu"))
        return state

    def optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        """The optimizer's state, on the CPU."""
        state: dict[str, Any] = moved(super().optimizer_state(optimizer), torch.device("cpu"))
        return state

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Restores it; torch brings each tensor to its weight's device, where Lightning would bring all to one."""
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            optimizer.load_state_dict(state)


class Placement(Placed, SingleDeviceStrategy):
    """One process over the Trainer's devices; what is not placed lies on the first of them, with the losses and the balancer.

    Args:
        placement: {path of a part: place of its device among the Trainer's, counted from 0, or a
            device's name}. Paths may be prefixes and hold wildcards (encoder.stages.*,
            heads.income); the most specific one counts. Or auto: stages and heads are dealt so that
            the fullest device has the least.
        balance: What auto deals: bytes (weights, gradients, optimizer, and what a step keeps) or
            time (of the forward pass).
        micro_batches: Slices of each batch that follow one another through the stages, so that
            several devices are busy at once.
        save: A YAML file to write the plan to, which --config and --trainer read.
    """

    strategy_name = "placement"

    def __init__(
        self,
        placement: Literal["auto"] | dict[str, Any] = "auto",
        balance: Balance = "bytes",
        micro_batches: int = 1,
        save: str | None = None,
    ) -> None:
        super().__init__()
        self.placement, self.balance, self.micro_batches, self.save = (
            placement,
            balance,
            micro_batches,
            save,
        )
        self.parallel_devices: list[torch.device] | None = None  # the Trainer says
        self.num_nodes = 1  # likewise

    def check(self, model: Any) -> None:
        """Looks at the model, too.

        Raises:
            UserError: There are several nodes, or as above.
        """
        if self.num_nodes > 1:
            raise UserError(
                f"--num_nodes is {self.num_nodes}, but --strategy placement is one process, on one node: "
                "use --strategy ddp_placement"
            )
        super().check(model)

    @property
    def own_devices(self) -> list[torch.device]:
        """The devices of this process: all."""
        return self.parallel_devices or [torch.device("cpu")]

    @property
    def replicas(self) -> int:
        """All devices work on the same rows."""
        return 1

    def arrangement(self, devices: int) -> str:
        """How so many devices work together, in words."""
        return f"1 replica x {devices} devices"


def flat(placement: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """A placement with dotted keys, of one that flags have nested: heads, income -> heads.income."""
    for key, value in placement.items():
        if key in ("class_path", "init_args"):  # `auto` in a file, and flags that name parts
            yield from flat(value, above) if isinstance(value, Mapping) else ()
            continue
        path = f"{above}.{key}" if above else str(key)
        if isinstance(value, Mapping):
            yield from flat(value, path)
        else:
            yield path, value


def named(model: Any, placement: Mapping[str, Any], devices: int) -> dict[str, int | str]:
    """What lies where, of all parts and 'sharing', by paths that may be prefixes and hold wildcards.

    Args:
        model: The model, built.
        placement: {path: place or name}.
        devices: How many places there are.

    Raises:
        UserError: A path is of no part, or what it is to be laid on is no device.
    """
    parts = ["sharing", *model.parts()]
    places = {path: place_of(path, value, devices) for path, value in placement.items()}
    best: dict[str, tuple[tuple[int, int], str]] = {}
    for path in places:
        one_encoder = any(part.startswith("sharing.encoder.") for part in parts)
        wanted = "sharing" if path == "encoder" and not one_encoder else path
        fitting = {part: rank for part in parts if (rank := fits(wanted, part)) is not None}
        if not fitting:
            raise UserError(unknown(model, path, parts))
        for part, rank in fitting.items():
            if part not in best or rank > best[part][0]:
                best[part] = rank, path
    return {part: places[best[part][1]] if part in best else 0 for part in parts}


def fits(path: str, part: str) -> tuple[int, int] | None:
    """How closely a path names a part: the number of words, and of those that are no wildcards; None: not at all."""
    for words, more in ((part.split("."), 0), (part.removeprefix("sharing.").split("."), 1)):
        given = path.split(".")
        if len(given) <= len(words) and all(map(fnmatchcase, words, given)):
            return len(given) + (more if part.startswith("sharing.") else 0), sum(
                "*" not in word for word in given
            ) + more
    return None


def unknown(model: Any, path: str, parts: Sequence[str]) -> str:
    """Says why a path is of no part, and which are near."""
    sharing = type(model.sharing).__name__
    if model.sharing.whole and path.split(".")[0] not in ("heads", "head"):
        return (
            f"{SETTING} names '{path}', but {sharing} reads the weights of its encoders besides running them, so that it cannot be "
            "cut: place 'sharing' as a whole, or heads"
        )
    short = [part.removeprefix("sharing.") for part in parts]
    prefixes = {part.rpartition(".")[0] for part in short} - {""}
    near = difflib.get_close_matches(
        path.removeprefix("sharing."), [*short, *prefixes], n=3, cutoff=0.5
    )
    hint = (
        f"did you mean {' or '.join(repr(word) for word in near)}?"
        if near
        else f"there are {', '.join(short)}"
    )
    return f"{SETTING} names '{path}', which is no part that can be placed; {hint}"


def place_of(path: str, value: Any, devices: int) -> int | str:
    """A place or a device's name.

    Raises:
        UserError: There is no such device.
    """
    key = f"{SETTING}.{path} is {value}"
    if (
        isinstance(value, int | str)
        and not isinstance(value, bool)
        and str(value).lstrip("-").isdigit()
    ):
        if not 0 <= int(value) < devices:
            there = (
                "1 device: use 0, or more --devices"
                if devices == 1
                else f"{devices} devices, 0 to {devices - 1}"
            )
            raise UserError(f"{key}, but there {'is' if devices == 1 else 'are'} {there}")
        return int(value)
    with suppress(RuntimeError):
        if isinstance(value, str):
            return str(torch.device(value))
    raise UserError(
        f"{key}; expected the place of a device, 0 to {devices - 1}, or a name such as cpu or cuda:0"
    )


def check_slices(model: Any, slices: int) -> None:
    """Looks whether rows can go through a network in slices.

    Raises:
        UserError: Something else acts between its stages, or reads their weights.
    """
    way_out = "set strategy.micro_batches 1"
    modules: list[nn.Module] = list(runners(model, model.parts()))
    if not runs_whole(model, modules):
        sharing = type(model.sharing).__name__
        why = (
            "reads the weights of its encoders"
            if model.sharing.whole
            else "acts between the stages of its encoders"
        )
        raise UserError(
            f"strategy.micro_batches is {slices}, but {sharing} {why}, which must run whole: {way_out}"
        )


@rank_zero_only
def write(
    path: Path, name: str, plan: Mapping[str, int | str], devices: int, **settings: Any
) -> None:
    """Writes a plan as a file that --config and --trainer read.

    Raises:
        UserError: There is no such folder, or the name is of another kind of file.
    """
    if path.suffix not in (".yaml", ".yml") or not path.parent.is_dir():
        why = (
            "the name must end in .yaml"
            if path.parent.is_dir()
            else f"there is no folder {path.parent}"
        )
        raise UserError(f"strategy.save is {path}: {why}")
    content = {
        "devices": devices,
        "strategy": {"class_path": name, **settings, "placement": dict(plan)},
    }
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    print(f"placement written to {path}", flush=True)
