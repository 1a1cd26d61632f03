"""Paths of a placement: they may be prefixes and hold wildcards, and name parts of the model."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from typing import Any, Literal

import torch

from src.errors import UserError
from src.runner import ShardableModel

SETTING = "strategy.placement"

# the place of a device among those of a process, or the name of a device
Place = int | str
# Any: flags nest the paths as deep as they like, and what they hold is checked here
PlacementSetting = Literal["auto"] | dict[str, Any]


def flatten_placement(
    placement: Mapping[str, object], above: str = ""
) -> Iterator[tuple[str, object]]:
    """Yields the entries of a placement with dotted keys.

    Flags nest it: {heads: {income: 1}} becomes heads.income.

    Args:
        placement: The placement.
        above: The path of the mapping that holds it.
    """
    for key, value in placement.items():
        if key in ("class_path", "init_args"):
            # so comes `auto` in a file, beside flags that name parts
            if isinstance(value, Mapping):
                yield from flatten_placement(value, above)
            continue
        path = f"{above}.{key}" if above else str(key)
        if isinstance(value, Mapping):
            yield from flatten_placement(value, path)
        else:
            yield path, value


def resolve_paths(
    model: ShardableModel, placement: Mapping[str, object], devices: int
) -> dict[str, Place]:
    """Returns the place of each part and of 'sharing', the rest of the architecture.

    Args:
        model: The model, built.
        placement: {path: place or name}; the most specific path that names a part counts.
        devices: Number of places.

    Raises:
        UserError: A path names no part, or its value names no device.
    """
    parts = ["sharing", *model.parts()]
    one_encoder = any(part.startswith("sharing.encoder.") for part in parts)
    places = {path: parse_place(path, value, devices) for path, value in placement.items()}

    # of each part, the best match so far and the path that it comes from
    best: dict[str, tuple[tuple[int, int], str]] = {}
    for path in places:
        # where several encoders run, the word encoder can only mean all of them
        wanted = "sharing" if path == "encoder" and not one_encoder else path
        found = False
        for part in parts:
            match = match_path(wanted, part)
            if match is None:
                continue
            found = True
            if part not in best or match > best[part][0]:
                best[part] = match, path
        if not found:
            raise UserError(describe_unknown_path(model, path, parts))
    return {part: places[best[part][1]] if part in best else 0 for part in parts}


def match_path(path: str, part: str) -> tuple[int, int] | None:
    """Says how closely a path names a part; None where it does not.

    Returns:
        The number of words that match, and how many of them are no wildcards.
    """
    given = path.split(".")
    # a part of the sharing architecture may also be named without its first word
    for words, more in ((part.split("."), 0), (part.removeprefix("sharing.").split("."), 1)):
        if len(given) <= len(words) and all(map(fnmatchcase, words, given)):
            depth = len(given) + (more if part.startswith("sharing.") else 0)
            return depth, sum("*" not in word for word in given) + more
    return None


def describe_unknown_path(model: ShardableModel, path: str, parts: Sequence[str]) -> str:
    """Says why a path names no part, and which paths are near."""
    if model.sharing.reads_weights and path.split(".")[0] not in ("heads", "head"):
        return (
            f"{SETTING} names '{path}', but {type(model.sharing).__name__} reads the weights of "
            "its encoders besides running them, so that it cannot be cut: place 'sharing' as a "
            "whole, or heads"
        )
    short = [part.removeprefix("sharing.") for part in parts]
    prefixes = {part.rpartition(".")[0] for part in short} - {""}
    near = difflib.get_close_matches(
        path.removeprefix("sharing."), [*short, *prefixes], n=3, cutoff=0.5
    )
    hint = f"there are {', '.join(short)}"
    if near:
        hint = f"did you mean {' or '.join(repr(word) for word in near)}?"
    return f"{SETTING} names '{path}', which is no part that can be placed; {hint}"


def parse_place(path: str, value: object, devices: int) -> Place:
    """Returns the place or the name of a device that a path is given.

    Args:
        path: The path.
        value: The place or name, as the user has written it.
        devices: Number of places.

    Raises:
        UserError: There is no such device.
    """
    key = f"{SETTING}.{path} is {value}"
    # true is a number in Python
    written = str(value) if isinstance(value, int | str) and not isinstance(value, bool) else ""
    if written.lstrip("-").isdigit():
        place = int(written)
        if 0 <= place < devices:
            return place
        if devices == 1:
            raise UserError(f"{key}, but there is 1 device: use 0, or more --devices")
        raise UserError(f"{key}, but there are {devices} devices, 0 to {devices - 1}")
    with suppress(RuntimeError):
        if isinstance(value, str):
            return str(torch.device(value))
    raise UserError(
        f"{key}; expected the place of a device, 0 to {devices - 1}, or a name such as cpu or "
        "cuda:0"
    )
