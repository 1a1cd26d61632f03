"""The weights that the runs to be merged started from: built once more, and compared."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from src.cli.app import CLI
from src.cli.init_from import InitFrom
from src.cli.starting import Start, is_backbone
from src.errors import UserError
from src.files.typed import read_json
from src.models.transfer.lora import strip_adapters
from src.run import Run
from src.run.contents import Record

SHARING = "sharing."


@dataclass(frozen=True)
class Origin:
    """The weights that a run started from.

    Attributes:
        state: The sharing architecture, by names without ``sharing.``; None where the run that
            this one started from is gone or has changed.
        source: What the record says of the run that this one started from; None for a run that
            started from its seed.
        seed: The seed.
        heads: {task: its head}; none where the weights are gone.
    """

    state: dict[str, Tensor] | None
    source: Mapping[str, Any] | None
    seed: int
    heads: dict[str, dict[str, Tensor]] = field(default_factory=dict)

    def describe(self) -> str:
        """Returns where the weights come from, in words."""
        return f"from {self.source['path']}" if self.source else f"from seed {self.seed}"


def find_origin(run: Run, cli: CLI) -> Origin:
    """Builds the network of a run as it was before its first step.

    Initial weights are a function of the seed; those of a run with ``init_from`` are taken from
    the checkpoint that its record names, if it is still the same one.

    Args:
        run: The run folder.
        cli: Its data and model; the model gets these weights.
    """
    model = cli.model
    model.configure_model()
    seed = cli.config["seed_everything"]
    settings = InitFrom(**cli.config["init_from"].as_dict())
    source = None
    if settings.source is not None and not is_backbone(Path(settings.source)):
        source = read_json(run.record, Record).get("init_from")
        if not isinstance(source, dict) or not start_anew(cli, settings, source):
            return Origin(None, source, seed)
    state = copy_state(strip_adapters(model.sharing.state_dict()))
    heads = {name: copy_state(model.heads[name].state_dict()) for name in model.tasks}
    return Origin(state, source, seed, heads)


def copy_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns copies of tensors, which the weights of a run do not replace."""
    return {name: tensor.clone() for name, tensor in state.items()}


def start_anew(cli: CLI, settings: InitFrom, source: Mapping[str, Any]) -> bool:
    """Gives a model the weights that its run began with; returns whether these are still there."""
    place = Path(str(source["path"]))
    file = place / "checkpoints" / str(source["checkpoint"]) if place.is_dir() else place
    there = InitFrom(str(file), settings.parts, None, settings.task, settings.normalisation)
    try:
        start = Start(there, cli.config["model"].as_dict())
    except UserError:
        return False
    if start.source.record["sha256"] != source["sha256"]:
        return False
    start.fill(cli.model, cli.datamodule)
    return True


def refuse_other_start(paths: Sequence[str], origins: Sequence[Origin]) -> None:
    """Refuses runs that did not start from the same weights.

    Args:
        paths: The run folders, for messages.
        origins: Where each of them started.

    Raises:
        UserError: They did not; the message names the first layer that differs.
    """
    first = origins[0]
    for path, other in zip(paths[1:], origins[1:], strict=True):
        way_out = (
            "train both with one --seed or from one --init_from, or bring their units into one "
            "order: --align"
        )
        where = f"{first.describe()} and {other.describe()}"
        if first.state is None or other.state is None:
            hashes = [(one.source or {}).get("sha256") for one in (first, other)]
            if None in hashes or hashes[0] != hashes[1]:
                raise UserError(
                    f"--runs: {paths[0]} and {path} started from other weights ({where}); {way_out}"
                )
            continue
        for name, tensor in first.state.items():
            if not tensor.equal(other.state[name]):
                raise UserError(
                    f"--runs: {paths[0]} and {path} started from other weights: layer "
                    f"{SHARING}{name} differs ({where}); {way_out}"
                )


def require_start(paths: Sequence[str], origins: Sequence[Origin], method: str) -> None:
    """Refuses a method that reads the weights that all runs started from, where they are gone.

    Raises:
        UserError: They are.
    """
    for path, origin in zip(paths, origins, strict=True):
        if origin.state is None:
            raise UserError(
                f"--method {method} reads the weights that the runs started from, but what {path} "
                f"started {origin.describe()} is gone or has changed: restore it, or use average"
            )
