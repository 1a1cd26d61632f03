"""Several inputs a sample: an encoder for each, and what makes one vector of their features."""

from collections.abc import Callable, Sequence
from typing import Literal, cast

import torch
from torch import Tensor, nn

from src.batch import InputShape, inputs_of, name_inputs
from src.errors import UserError, suggest_or_list
from src.models.encoders.convnet import ConvNet, describe, suggest_encoder
from src.models.encoders.encoder import Encoder, Inputs, State, make_and_check, top
from src.models.encoders.message_passing import MessagePassing
from src.models.encoders.mlp import MLP
from src.models.encoders.mlp import Block as VectorBlock
from src.models.encoders.transformer import Block, Finish, Transformer, check_sizes

MakeEncoder = Callable[[InputShape], Encoder]
Kind = Literal["table", "text", "images", "graphs"]


class Member(nn.Module):
    """The encoder of one input: a stage that adds its features z_k to those before it.

    (z_k-1, z_1 ... z_k-2, inputs) -> (z_k, z_1 ... z_k-1, later inputs): the newest features stand
    first, where architectures that act between stages find them, and inputs ride along to the stage
    that reads them.

    Args:
        encoder: The encoder.
        places: Number of dimensions of places, such as tokens or pixels, that its features have.
        keys: {name: names of its tensors}, of this input and of all later ones, in order.
        before: Number of inputs before it.
    """

    def __init__(
        self, encoder: Encoder, places: int, keys: dict[str, list[str]], before: int
    ) -> None:
        super().__init__()
        # not the encoder itself, whose stages are no stages of the whole
        self.network = encoder.stages
        self.places = places
        self.keys = keys
        self.before = before

    def forward(self, state: Inputs | State) -> State:
        """Returns the state with the features of this input (B, D)."""
        if isinstance(state, dict):
            own, later = self._read(state)
            return (self._encode(own), *later)
        tensors = cast(tuple[Tensor, ...], state)
        newest, *earlier = tensors[: self.before]
        names = [f"{member}/{key}" for member, keys in self.keys.items() for key in keys]
        inputs = dict(zip(names, tensors[self.before :], strict=True))
        own, later = self._read(inputs)
        return (self._encode(own), *earlier, newest, *later)

    def _read(self, inputs: dict[str, Tensor]) -> tuple[Inputs, list[Tensor]]:
        """Returns the inputs of this encoder, and the tensors of all later ones."""
        (name, keys), *others = self.keys.items()
        own = {f"{name}/{key}": inputs[f"{name}/{key}"] for key in keys}
        later = [inputs[f"{other}/{key}"] for other, names in others for key in names]
        return inputs_of(name, own), later

    def _encode(self, inputs: Inputs) -> Tensor:
        """Returns the features, averaged over places; a token whose features are all 0 pads."""
        z: Tensor = self.network(inputs)
        if self.places == 1:
            real = z.detach().any(-1).sum(-1, keepdim=True)
            return z.sum(-2) / real.clamp(min=1)
        for _ in range(self.places):
            z = z.mean(-2)
        return z


class Join(nn.Module):
    """The features of all inputs, each through a linear layer: as their sum, or as a token each.

    The sum is one linear layer of the features side by side.
    """

    def __init__(self, sizes: Sequence[int], width: int, as_tokens: bool) -> None:
        super().__init__()
        self.project = nn.ModuleList(nn.Linear(size, width) for size in sizes)
        self.as_tokens = as_tokens

    def forward(self, state: State) -> Tensor:
        """(z_M, z_1 ... z_M-1), of (B, D_k), -> (B, width) or (B, M, width)."""
        newest, *earlier = (state,) if isinstance(state, Tensor) else state
        features = zip(self.project, [*earlier, newest], strict=True)
        joined = torch.stack([project(z) for project, z in features], -2)
        return joined if self.as_tokens else joined.sum(-2)


class Fusion(Encoder):
    """Several inputs a sample, such as table columns, texts and images: an encoder for each.

    The features of each input are averaged over its tokens, pixels or nodes, and fused. ``concat``:
    side by side through a linear layer, ``depth`` residual blocks as in the MLP encoder, LayerNorm
    and GELU. ``attention``: each is a token, and the tokens go through ``depth`` transformer
    blocks, LayerNorm and their mean. Each input is a stage, in the order in which the data name
    them, and the fusion is the last one, so that strategies place and shard each as a part.

    Args:
        shape: The shape of one sample, which has several inputs.
        table: Makes the encoder of table columns, or of other vectors.
        text: Makes the encoder of a text, or of another sequence.
        images: Makes the encoder of an image.
        graphs: Makes the encoder of a graph.
        members: {input: makes its encoder}, for inputs that need another one than their kind.
        how: concat or attention.
        width: Width of the fusion, and size of the features; with attention a multiple of
            ``heads``.
        depth: Number of blocks of the fusion.
        heads: Number of attention heads.
        dropout: Share of units dropped in the blocks of the fusion.
    """

    def __init__(
        self,
        shape: InputShape,
        table: MakeEncoder = MLP,
        text: MakeEncoder = Transformer,
        images: MakeEncoder = ConvNet,
        graphs: MakeEncoder = MessagePassing,
        members: dict[str, MakeEncoder] | None = None,
        how: Literal["concat", "attention"] = "concat",
        width: int = 128,
        depth: int = 1,
        heads: int = 4,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(shape)
        if not shape.members:
            raise UserError(
                f"Fusion reads several inputs, but the data gives {describe(shape)}: use "
                f"--model.encoder {suggest_encoder(shape)}"
            )
        if how not in ("concat", "attention"):
            raise UserError(f"Fusion: how {how} is neither concat nor attention")
        if how == "attention":
            check_sizes("Fusion", width, depth, heads, dropout)
        elif width < 1 or depth < 0 or not 0 <= dropout < 1:
            raise UserError(
                f"Fusion: width {width} and depth {depth} must be at least 1 and 0, and dropout "
                f"{dropout} in [0, 1)"
            )
        names = dict(shape.members)
        for name in members or {}:
            if name not in names:
                hint = suggest_or_list(name, names)
                raise UserError(f"Fusion: members names '{name}', which is no input: {hint}")

        kinds = {"table": table, "text": text, "images": images, "graphs": graphs}
        keys = {name: list_keys(own) for name, own in shape.members}
        stages: list[nn.Module] = []
        sizes = []
        for before, (name, own) in enumerate(shape.members):
            kind = find_kind(own)
            special = (members or {}).get(name)
            where = kind if special is None else f"members.{name}"
            encoder = make_member(special or kinds[kind], own, name, where)
            later = {other: keys[other] for other in list(keys)[before:]}
            stages.append(Member(encoder, count_places(encoder), later, before))
            sizes.append(encoder.features)

        fusion: list[nn.Module] = [Join(sizes, width, as_tokens=how == "attention")]
        if how == "attention":
            fusion += [Block(width, heads, dropout) for _ in range(depth)]
            fusion.append(Finish(width, "mean"))
        else:
            fusion += [VectorBlock(width, dropout) for _ in range(depth)]
            fusion += [nn.LayerNorm(width), nn.GELU()]
        self.stages = nn.Sequential(*stages, nn.Sequential(*fusion))
        self.features = width


def find_kind(shape: InputShape) -> Kind:
    """Returns which of the encoders reads inputs of this shape."""
    if shape.nodes:
        return "graphs"
    if shape.tokens or len(shape.dense) == 2:
        return "text"
    return "images" if len(shape.dense) == 3 else "table"


def list_keys(shape: InputShape) -> list[str]:
    """Returns the names of the tensors of one input."""
    return [key.rpartition("/")[2] for key in name_inputs("", shape.example())]


def make_member(make: MakeEncoder, shape: InputShape, name: str, where: str) -> Encoder:
    """Makes the encoder of one input.

    Args:
        make: Makes it.
        shape: The shape of the input.
        name: Its name, for messages.
        where: The setting that has chosen the encoder.

    Raises:
        UserError: The encoder does not read the input; the message names both.
    """
    try:
        return make_and_check(make, shape)
    except UserError as error:
        reason = str(error).replace("--model.encoder ", f"--model.encoder.{where} ")
        raise UserError(f"input '{name}': {reason}") from None


@torch.no_grad()
def count_places(encoder: Encoder) -> int:
    """Counts the dimensions of places of an encoder's features, by running two samples."""
    training = encoder.training
    encoder.eval()
    with torch.random.fork_rng(devices=[]), torch.compiler.set_stance("force_eager"):
        z = top(encoder.stages(encoder.shape.example()))
    encoder.train(training)
    return z.ndim - 2
