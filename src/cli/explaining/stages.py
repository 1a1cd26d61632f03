"""The features of tasks, experts and encoders behind each stage of a sharing architecture."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from src.cli.loaded_run import Inputs, split_inputs
from src.models import MultiTaskModel
from src.models.encoders.encoder import top
from src.models.padding import find_real
from src.models.sharing import Sharing, StackedEncoders
from src.models.sharing.feature_exchange import FeatureExchange
from src.models.sharing.gates import average_places

LAST = "features of the tasks"
# what the encoders of an architecture that has one for each task are called in it
OF_TASKS = ("encoders", "branches", "encoder")


@dataclass(frozen=True)
class Seam:
    """A module behind which several sets of features lie side by side.

    Attributes:
        title: Says where it is.
        module: It puts out (K, B, ...), or is called once for each of K.
        image: Whether it puts out images (..., C, H, W).
        kind: What K counts, where it is not tasks: expert, node, own, shared, encoder.
        looped: Whether it is called once for each of K.
    """

    title: str
    module: nn.Module
    image: bool
    kind: str
    looped: bool = False


@dataclass
class Observed:
    """The features of rows, and what the architecture decided for them.

    Attributes:
        features: {title: {name: (N, C), averaged over places}}.
        decided: {name: the mean over rows}, as the architecture observes it.
    """

    features: dict[str, dict[str, Tensor]]
    decided: dict[str, Tensor]


@torch.no_grad()
def observe_sharing(model: MultiTaskModel, inputs: Inputs, size: int) -> Observed:
    """Runs rows through the sharing architecture, and keeps the features of each stage.

    Args:
        model: The model, in evaluation mode.
        inputs: The rows.
        size: Rows that run at once.
    """
    found: dict[str, dict[str, list[Tensor]]] = {}
    sums: dict[str, Tensor] = {}
    count = 0
    # a selection gives each task its own view of the rows, so that stages see them several times
    seams = [] if model.selection is not None else list_seams(model.sharing)
    for part in split_inputs(inputs, size):
        with record_outputs(seams) as outputs:
            features = model.sharing(part)
        real = find_real(part)
        rows = len(next(iter(features.values())))
        kept = {LAST: pool_last(features, real)}
        for seam in seams:
            kept[seam.title] = pool_seam(seam, outputs[seam.title], model.sharing, real)
        for title, own in kept.items():
            for name, values in own.items():
                found.setdefault(title, {}).setdefault(name, []).append(values)
        for name, values in model.sharing.observe().items():
            sums[name] = sums.get(name, 0) + values.double().sum(0)
        count += rows
    joined: dict[str, dict[str, Tensor]] = {}
    for title, parts in found.items():
        if len(parts) > 1:
            joined[title] = join_parts(parts)
    last = joined.pop(LAST, None)
    if last is not None:
        # the last stage of an encoder for each task is what the heads read
        joined = {title: own for title, own in joined.items() if not is_same(own, last)}
        joined[LAST] = last
    return Observed(joined, {name: values / count for name, values in sums.items()})


def join_parts(own: dict[str, list[Tensor]]) -> dict[str, Tensor]:
    """Joins the features of batches; what is one tensor in each stays one tensor."""
    known: dict[tuple[int, ...], Tensor] = {}
    joined = {}
    for name, parts in own.items():
        key = tuple(map(id, parts))
        if key not in known:
            known[key] = torch.cat(parts)
        joined[name] = known[key]
    return joined


def is_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Returns whether two sets of features are the same numbers."""
    if one.keys() != other.keys():
        return False
    return all(torch.equal(one[name], other[name]) for name in one)


def list_seams(sharing: Sharing) -> list[Seam]:
    """Lists the places of an architecture where features of several lie side by side."""
    found: list[Seam] = []
    if isinstance(sharing, FeatureExchange):
        # the next stage reads what the exchange has mixed, channels last
        for k, exchange in enumerate(sharing.exchanges):
            found.append(Seam(f"stage {k + 1}", exchange, False, "task"))
        return found
    for path, module in sharing.named_modules():
        if not isinstance(module, StackedEncoders):
            continue
        kind = path.rpartition(".")[2]
        level = f"level {int(path.split('.')[1]) + 1}, " if path.startswith("levels.") else ""
        word = "task" if kind in OF_TASKS else kind.removesuffix("s")
        for place, name in enumerate(module.names):
            # a stage without weights runs once for all
            if module.stages is not None and not (place or module.apart or module.adds_dimension):
                continue
            beside = "" if word == "task" else f", {word}"
            title = f"{level}stage {int(name) + 1}{beside}"
            image = module.layouts[int(name)].image
            chains = [module.stages] if module.stages is not None else list_chains(module)
            # of encoders in a loop each has its own stage
            stages = nn.ModuleList(chain.get_submodule(name) for chain in chains)
            found.append(Seam(title, stages, image, word, module.stages is None))
    return found


def list_chains(module: StackedEncoders) -> list[nn.Module]:
    """Returns the stages of each of several encoders that run in a loop."""
    return [encoder.get_submodule("stages") for encoder in module.encoders]


@contextmanager
def record_outputs(seams: list[Seam]) -> Iterator[dict[str, list[Tensor]]]:
    """Yields {title: the outputs of each call}, filled by the forward pass inside."""
    outputs: dict[str, list[Tensor]] = {seam.title: [] for seam in seams}

    def keep(title: str, module: nn.Module, inputs: Any, output: Any) -> None:
        outputs[title].append(top(output))

    handles = []
    for seam in seams:
        modules = seam.module if isinstance(seam.module, nn.ModuleList) else [seam.module]
        handles += [module.register_forward_hook(partial(keep, seam.title)) for module in modules]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def pool_last(features: Any, real: Tensor | None) -> dict[str, Tensor]:
    """Returns the features (B, D) of each task, averaged over places."""
    pooled: dict[int, Tensor] = {}
    for z in features.values():
        if id(z) not in pooled:
            pooled[id(z)] = average_places(z[None], real)[0]
    return {name: pooled[id(z)] for name, z in features.items()}


def pool_seam(
    seam: Seam, outputs: list[Tensor], sharing: Sharing, real: Tensor | None
) -> dict[str, Tensor]:
    """Returns {name: features (B, C)} of what lies side by side."""
    x = torch.stack(outputs) if seam.looped else outputs[0]
    pooled = average_places(x.movedim(-3, -1) if seam.image else x, real)
    return dict(zip(name_parts(seam.kind, len(pooled), sharing), pooled.unbind(), strict=True))


def name_parts(kind: str, count: int, sharing: Sharing) -> list[str]:
    """Names K sets of features: by tasks where each task has its own."""
    tasks = sharing.tasks
    if kind == "task" and count == len(tasks):
        return list(tasks)
    if kind == "own" and count % len(tasks) == 0:
        each = count // len(tasks)
        return [f"{task} {k + 1}" if each > 1 else task for task in tasks for k in range(each)]
    return [f"{kind} {k + 1}" for k in range(count)]
