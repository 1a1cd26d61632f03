"""The runs that are merged: opened, compared, and their units brought into one order."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec

from torch import Tensor

from src.analysis.merging.alignment import match_weights, permute, permute_state
from src.checkpoint import choose_weights, group_tasks, load_checkpoint
from src.cli.app import CLI
from src.cli.members import Member, compare_precision
from src.cli.merge_data import find_other_rows
from src.cli.merge_start import SHARING, Origin, find_origin
from src.cli.runs import open_run
from src.errors import UserError
from src.models import MultiTaskModel
from src.models.encoders.permutations import UnitOrder, find_unit_order
from src.models.sharing import HardSharing
from src.models.transfer.lora import merge_adapters
from src.run import Run


@dataclass
class MergedRun:
    """One of the runs that are merged.

    Attributes:
        run: Its folder.
        cli: Its data, model and trainer.
        checkpoint: The path of the checkpoint that counts.
        state: The state of its model; units may have another order than in the checkpoint.
        origin: Where it started.
        metrics: The validation metrics of these weights.
        trained: The tasks that it trains: the ones with a weight above 0.
    """

    run: Run
    cli: CLI
    checkpoint: str
    state: dict[str, Tensor]
    origin: Origin
    metrics: dict[str, float]
    trained: list[str]

    @property
    def path(self) -> str:
        """The run folder, for messages."""
        return str(self.run.path)

    @property
    def model(self) -> MultiTaskModel:
        """The model, as it is built; its weights are not those of ``state``."""
        return self.cli.model

    @property
    def has_adapters(self) -> bool:
        """Whether its model has low-rank adapters, which ``state`` holds within the weights."""
        return self.model.finetune.lora is not None

    @property
    def member(self) -> Member:
        """The run as the comparisons of ensembles take it."""
        return Member(self.run, self.checkpoint, self.cli)

    @property
    def shared(self) -> dict[str, Tensor]:
        """The state of the sharing architecture, by names without ``sharing.``."""
        return select(self.state, SHARING)


def open_runs(paths: Sequence[str], words: list[str]) -> list[MergedRun]:
    """Opens the runs that are merged.

    Args:
        paths: Their folders.
        words: The flags that open them.

    Raises:
        UserError: One of them cannot be opened, or cannot be merged with the first.
    """
    opened: list[MergedRun] = []
    for path in paths:
        own = [*words, f"--run={path}", "--uncalibrated=true"]
        checkpoint, cli = open_run(own, (), says=not opened)
        if cli.datamodule.is_new:
            raise UserError(
                f"{cli.datamodule.files()[0]} holds new rows: runs are merged and measured on "
                "their own; evaluate the merged run on others"
            )
        found = open_one(Run(path), str(checkpoint), cli)
        if opened:
            refuse_unlike(opened[0], found)
        opened.append(found)
    return opened


def open_one(run: Run, checkpoint: str, cli: CLI) -> MergedRun:
    """Reads the weights of a run, and builds the network that it started from.

    Raises:
        UserError: Several epochs count.
    """
    kept = load_checkpoint(checkpoint)
    groups = group_tasks(kept)
    if len(groups) > 1:
        raise UserError(
            f"run {run.path}: each task has the network of its own best epoch, and a run gives one "
            "to be merged: add --checkpoint last"
        )
    origin = find_origin(run, cli)
    model = cli.model
    step = next(iter(groups), kept["global_step"])
    state = choose_weights(kept, step)
    model.load_state_dict(state)
    trained = [name for name in model.tasks if model.weights[name] > 0]
    if model.finetune.lora is not None:
        state = merge_adapters(state, model.finetune.lora.alpha)
    return MergedRun(run, cli, checkpoint, dict(state), origin, kept["metrics"], trained)


def select(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Returns the entries of a state below a prefix, by names without it."""
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in state.items()
        if name.startswith(prefix)
    }


# -- what runs must have in common -----------------------------------------------------------------
def refuse_unlike(one: MergedRun, other: MergedRun) -> None:
    """Refuses a run whose rows, inputs or layers are not those of the first.

    Raises:
        UserError: They are not; the message names what differs.
    """
    how = (
        find_other_rows(one.member, other.member)
        or find_other_layers(one, other)
        or compare_precision(one.member, other.member)
    )
    if how is not None:
        raise UserError(f"--runs: {other.path} cannot be merged with {one.path}: {how}")


def find_other_layers(one: MergedRun, other: MergedRun) -> str | None:
    """Says which class or layer of two networks differs; None where all shapes are the same."""
    ours = one.model.sharing
    theirs = other.model.sharing
    if type(ours) is not type(theirs):
        return f"its sharing is {type(theirs).__name__}, not {type(ours).__name__}"
    encoders = [find_encoder(run.model) for run in (one, other)]
    if encoders[0] != encoders[1]:
        return f"its encoder is {encoders[1]}, not {encoders[0]}"
    mine = one.shared
    yours = other.shared
    for name in {**mine, **yours}:
        if name not in yours:
            return f"it has no layer {SHARING}{name}"
        if name not in mine:
            return f"it has a layer more, {SHARING}{name}"
        if mine[name].shape != yours[name].shape:
            there, here = tuple(yours[name].shape), tuple(mine[name].shape)
            return f"its layer {SHARING}{name} has the shape {there}, not {here}"
    return None


def find_encoder(model: MultiTaskModel) -> str | None:
    """Returns the class of the first encoder; None where an architecture hides it."""
    encoder = getattr(model.sharing, "encoder", None)
    return None if encoder is None else type(encoder).__name__


# -- the order of units ----------------------------------------------------------------------------
def align_runs(runs: Sequence[MergedRun]) -> list[str]:
    """Brings the units of all runs into the order of the first, in their states and models.

    Returns:
        A line for each run but the first: how many units have moved.

    Raises:
        UserError: The groups of units of this network are not known.
    """
    if find_spec("scipy") is None:
        raise UserError("--align needs scipy: pip install scipy")
    first = runs[0]
    order = find_order(first.model)
    lines = []
    for other in runs[1:]:
        places = match_weights(
            select(first.state, "sharing.encoder."),
            select(other.state, "sharing.encoder."),
            order.axes,
            order.blocks,
        )
        encoder = permute_state(select(other.state, "sharing.encoder."), order.axes, places)
        other.state |= {f"sharing.encoder.{name}": tensor for name, tensor in encoder.items()}
        for name in other.model.tasks:
            # the layer of a head that reads the features
            layer = other.model.heads[name].linears[0]
            paths = {id(module): path for path, module in other.model.named_modules()}
            key = f"{paths[id(layer)]}.weight"
            other.state[key] = permute(other.state[key], (None, order.features), places)
        other.model.load_state_dict(other.state)
        moved = sum(int((own != own.sort().values).sum()) for own in places.values())
        count = sum(len(own) for own in places.values())
        lines.append(f"aligned {other.path}: {moved} of {count} units moved")
    return lines


def find_order(model: MultiTaskModel) -> UnitOrder:
    """Returns the groups of units of a model's encoder.

    Raises:
        UserError: They are not known.
    """
    sharing = model.sharing
    order = None
    if isinstance(sharing, HardSharing) and sharing.branches is None:
        order = find_unit_order(sharing.encoder)
    if order is None:
        kind = find_encoder(model) or "its encoders"
        raise UserError(
            f"--align knows MLP and ConvNet under HardSharing, but these runs have {kind} under "
            f"{type(sharing).__name__}: train them from one start, with one --seed or --init_from"
        )
    return order
