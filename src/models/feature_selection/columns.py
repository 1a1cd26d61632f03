"""The columns of a model's inputs: what can be chosen, and how it is closed."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from src.batch import InputShape
from src.errors import UserError

Inputs = Tensor | dict[str, Tensor]


@dataclass(frozen=True)
class InputColumn:
    """A column of a table, or a channel of images: the numbers of a sample that belong together.

    Attributes:
        name: Its name.
        member: The name of the input that holds it, where a sample has several; else "".
        dense: The places of its numbers in the dense input, along the first dimension of a sample.
        categories: The places of its categories among the categorical columns.
        whole: Whether it is all of its input, as a text is, and not the places alone.
    """

    name: str
    member: str = ""
    dense: tuple[int, ...] = ()
    categories: tuple[int, ...] = ()
    whole: bool = False


def list_columns(shape: InputShape, member: str = "") -> list[InputColumn]:
    """Lists the columns of inputs, in the order in which the inputs hold them.

    A number and the indicator of its missing values are one column, and so are the parts of a date.
    An image is a column of its own where it is one of several inputs, and a column for each channel
    where it is all. A text or a graph is one column.

    Args:
        shape: The shape of one sample.
        member: The name of the input, where a sample has several.
    """
    if shape.members:
        return [column for name, own in shape.members for column in list_columns(own, name)]
    if shape.tokens or shape.nodes or (member and len(shape.dense) > 1):
        return [InputColumn(member or "the input", member, whole=True)]

    count = shape.dense[0] if shape.dense else 0
    names: Sequence[str] = shape.columns
    if not names:
        word = "feature" if len(shape.dense) < 2 else "channel"
        names = [f"{word} {k + 1}" for k in range(count)]
        names += [f"category {k + 1}" for k in range(len(shape.categories))]

    dense: dict[str, list[int]] = {}
    categories: dict[str, list[int]] = {}
    for k, name in enumerate(names):
        dense.setdefault(name, [])
        categories.setdefault(name, [])
        if k < count:
            dense[name].append(k)
        else:
            categories[name].append(k - count)
    return [
        InputColumn(name, member, tuple(dense[name]), tuple(categories[name])) for name in dense
    ]


def find_choosable(shape: InputShape, kind: str) -> list[InputColumn]:
    """Returns the columns of a table or the channels of images, which training can choose among.

    Args:
        shape: The shape of one sample.
        kind: Who chooses, for messages.

    Raises:
        UserError: A sample has no columns, or is of several inputs.
    """
    what = ""
    if shape.members:
        what = f"several inputs ({', '.join(name for name, _ in shape.members)})"
    elif shape.tokens:
        what = "tokens, whose positions mean nothing by themselves"
    elif shape.nodes:
        what = "graphs, whose nodes have no fixed place"
    elif len(shape.dense) == 2:
        what = "sequences, whose positions mean nothing by themselves"
    if what:
        raise UserError(
            f"{kind} chooses among the columns of a table or the channels of images, but the data "
            f"gives {what}: leave out --model.select"
        )
    columns = list_columns(shape)
    if len(columns) < 2:
        raise UserError(
            f"{kind} chooses among inputs, but the data gives one, {columns[0].name}: leave out "
            "--model.select"
        )
    return columns


def map_places(columns: Sequence[InputColumn]) -> tuple[list[int], list[int]]:
    """Returns for each dense place, and for each categorical column, the number of its column."""
    dense = {place: d for d, column in enumerate(columns) for place in column.dense}
    categories = {place: d for d, column in enumerate(columns) for place in column.categories}
    return [dense[k] for k in sorted(dense)], [categories[k] for k in sorted(categories)]


def gate_inputs(inputs: Inputs, gates_GD: Tensor, places: tuple[list[int], list[int]]) -> Inputs:
    """Multiplies the inputs by G sets of gates: each row G times, one after the other.

    The views of a row stand side by side, so that the numbers which random layers draw by the
    place of a row do not depend on the number of devices. Categories have their gates beside them
    ('gates'), for whatever makes numbers of them.

    Args:
        inputs: (B, F) or (B, C, H, W), or {'dense': (B, F), 'categorical': (B, C)}.
        gates_GD: A gate for each column, in each of the sets.
        places: The column of each place, see :func:`map_places`.

    Returns:
        Inputs of G B rows: g_1 x_1, g_2 x_1, ..., g_1 x_2 ...
    """
    of_dense, of_categories = (
        gates_GD[:, torch.tensor(own, dtype=torch.long, device=gates_GD.device)] for own in places
    )
    dense = inputs if isinstance(inputs, Tensor) else inputs["dense"]
    factors = of_dense.view(*of_dense.shape, *[1] * (dense.ndim - 2))
    gated = (dense[:, None] * factors.to(dense.dtype)).flatten(0, 1)
    if isinstance(inputs, Tensor):
        return gated
    codes = inputs["categorical"]
    return {
        "dense": gated,
        "categorical": codes.repeat_interleave(gates_GD.shape[0], 0),
        "gates": of_categories.repeat(codes.shape[0], 1),
    }
