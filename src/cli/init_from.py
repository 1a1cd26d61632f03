"""The section init_from: where the weights of a new run come from."""

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

from torch import Tensor

from src.checkpoint import INDEX, choose_weights, group_tasks, load_checkpoint
from src.errors import UserError, suggest_or_list
from src.files.typed import Count, find_mismatch
from src.models.transfer.anchor import Anchor
from src.models.transfer.lora import merge_adapters
from src.models.transfer.source import Source
from src.run import Run

ENSEMBLE = "ensemble.json"  # in the folder of an ensemble
BACKBONE = "config.json"  # in the folder of a model of transformers


@dataclass
class InitFrom:
    """Where the weights of a new run come from; the run goes its own way from there.

    Tasks, their classes and labels, and columns of tables are matched by name. What matches keeps
    its weights, what is new begins as in any run, and a table says which is which before training.
    ``--init_from RUN`` is short for ``--init_from.source RUN``.

    Args:
        source: A run folder, one of its checkpoints, or, for the encoder Pretrained, a folder with
            a model of transformers; null starts from the seed alone.
        parts: The parts that keep weights, such as encoder, heads or heads.income; the others are
            fresh. null takes all that fit.
        checkpoint: best or last; null takes the best where there is one.
        task: The task whose weights are taken, of a run with watch.patience_by_task, where each
            task has the network of its own best epoch.
        normalisation: source reads columns that both have as the source did, with its means,
            spreads and words, and keeps the scale of labels; new learns them from this run's rows.
        anchor: Keeps the weights of the source near their start: L2SP or EWC; null lets them go.
        distillation: The temperature at which the source's outputs stand for labels that rows
            lack; null for none.
        replay: The share of the steps that have rows of the source's own data, beside which the
            tasks of the source stay: 0 only validates and tests on them; null leaves them out.
    """

    source: str | None = None
    parts: str | list[str] | None = None
    checkpoint: Literal["best", "last"] | None = None
    task: str | None = None
    normalisation: Literal["source", "new"] = "source"
    anchor: Anchor | None = None
    distillation: float | None = None
    replay: float | None = None

    def __post_init__(self) -> None:
        if self.source is None:
            for key in ("parts", "checkpoint", "task", "anchor", "distillation", "replay"):
                if getattr(self, key) is not None:
                    raise UserError(
                        f"init_from.{key} is set, but init_from.source names no run to start from"
                    )
        if self.parts is not None and not self.names:
            raise UserError(
                "init_from.parts is empty: name parts, such as [encoder], or leave it out"
            )

    @property
    def names(self) -> list[str] | None:
        """The names of the parts; None for all."""
        return [self.parts] if isinstance(self.parts, str) else self.parts


class Adapters(TypedDict):
    """The adapters of a checkpoint, as far as another run starts from them."""

    alpha: float


class Weights(TypedDict):
    """A checkpoint, as far as another run starts from it."""

    state_dict: dict[str, object]
    tasks: dict[str, dict[str, object]]
    global_step: Count
    epoch: Count
    lora: NotRequired[Adapters]


def read_source(path: str, checkpoint: str | None = None, task: str | None = None) -> Source:
    """Opens a trained model as the start of another; no code of the folder is run.

    Args:
        path: A run folder, or a checkpoint.
        checkpoint: best or last, of a folder; None: the best where there is one.
        task: The task whose weights are taken where several sets of them count.

    Raises:
        UserError: There is none, it is damaged, or holds no weights.
    """
    run, file = find_checkpoint(path, checkpoint)
    content = load_checkpoint(file, mmap=True)
    if not isinstance(content, dict) or "pytorch-lightning_version" not in content:
        raise UserError(f"init_from {path}: {file} is not from a training run of this project")
    if (wrong := find_mismatch(content, Weights)) is not None:
        raise UserError(f"init_from {path}: checkpoint {file} is damaged: {wrong}")
    state = choose_set(content, path, task)
    if not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise UserError(f"init_from {path}: checkpoint {file} is damaged: a weight is no tensor")
    settings = run.read_config() if run is not None else {}
    model = settings.get("model", {})
    if "lora" in content:
        state = merge_adapters(state, content["lora"]["alpha"])
    return Source(
        path=path,
        state=state,
        tasks=content["tasks"],
        encoder=name_class(model.get("encoder")),
        sharing=name_class(model.get("sharing")),
        inputs=read_inputs(run, path),
        model=model,
        data=name_class(settings.get("data")),
        schema=str(run.schema) if run is not None and run.schema.is_file() else None,
        record={
            "path": str(Path(path).resolve()),
            "checkpoint": file.name,
            "sha256": hash_checkpoint(file),
            "epoch": content["epoch"],
            "step": content["global_step"],
            "git": read_git(run),
        },
    )


def find_checkpoint(path: str, which: str | None) -> tuple[Run | None, Path]:
    """Returns the run that a path lies in, None if in none, and its checkpoint.

    Raises:
        UserError: There is no checkpoint there.
    """
    place = Path(path)
    if (place / ENSEMBLE).is_file():
        raise UserError(
            f"init_from {path} is an ensemble, which averages predictions and has no weights of "
            "its own: name one of its members, or merge them first"
        )
    if place.is_file() or (place / INDEX).is_file():
        if which is not None:
            raise UserError(
                f"init_from.checkpoint is {which}, but {path} is a checkpoint itself: leave it out"
            )
        folder = place.resolve().parent.parent
        return (Run(folder) if (folder / "config.yaml").is_file() else None), place
    if place.is_dir() and not (place / "config.yaml").is_file() and (place / BACKBONE).is_file():
        raise UserError(
            f"init_from {path} is a model of transformers, which is the start of an encoder: add "
            "--model.encoder Pretrained, or name a run folder"
        )
    try:
        run = Run.open(place)
        return run, run.checkpoint(which)
    except UserError as error:
        raise UserError(f"init_from: {error}") from None


def choose_set(content: Mapping[str, Any], path: str, task: str | None) -> Mapping[str, Any]:
    """Returns the weights of a checkpoint that may hold several sets.

    Raises:
        UserError: It does, and no task says which; or there is no such task.
    """
    groups = group_tasks(content)
    if task is not None and task not in content["tasks"]:
        hint = suggest_or_list(task, content["tasks"])
        raise UserError(f"init_from.task is '{task}', which is no task of {path}; {hint}")
    if len(groups) < 2:
        state: Mapping[str, Any] = content["state_dict"]
        return state
    for step, names in groups.items():
        if task in names:
            chosen: Mapping[str, Any] = choose_weights(content, step)
            return chosen
    first = next(iter(content["tasks"]))
    raise UserError(
        f"init_from {path}: each task has the network of its own best epoch: name one by "
        f"--init_from.task {first}, or take --init_from.checkpoint last"
    )


def name_class(choice: Any) -> str | None:
    """Returns the name of the class that a configuration chooses; None where it chooses none."""
    path = choice.get("class_path") if isinstance(choice, Mapping) else choice
    return path.rpartition(".")[2] if isinstance(path, str) else None


def read_inputs(run: Run | None, path: str) -> list[dict[str, Any]]:
    """Returns the entries of input columns in the schema of a run; none where it has no columns.

    Raises:
        UserError: The schema is damaged.
    """
    if run is None or not run.schema.is_file():
        return []
    try:
        inputs = json.loads(run.schema.read_text()).get("inputs", [])
    except (OSError, ValueError, AttributeError):
        raise UserError(f"init_from {path}: {run.schema} is damaged") from None
    return [entry for entry in inputs if isinstance(entry, dict)]


def hash_checkpoint(file: Path) -> str:
    """Returns the SHA-256 of a checkpoint, or of the index of one that is a folder."""
    with (file / INDEX if file.is_dir() else file).open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def read_git(run: Run | None) -> Any:
    """Returns the state of the code that a run was trained with; None where nobody knows."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        if run is not None:
            git = json.loads(run.record.read_text())["git"]
            return {"commit": git["commit"], "dirty": git["dirty"]}
    return None
