"""Backbones of the transformers package, cut into stages."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from src.batch import InputShape
from src.errors import UserError
from src.models.dropout import Dropout
from src.models.encoders.convnet import describe, suggest_encoder
from src.models.encoders.encoder import Encoder, Inputs, State
from src.models.encoders.transformer import (
    attention_mask,
    join_mask,
    pool_sequence,
    split_mask,
)

Pool = Literal["none", "mean", "first"]

# the names under which backbones keep their modules
EMBEDDINGS = ("embeddings", "embedder")
PROJECTION = ("embeddings_project",)
BLOCKS = ("encoder.layer", "encoder.layers", "encoder.stages", "transformer.layer", "layers")
NORM = ("layernorm", "layer_norm", "norm")


class Start(nn.Module):
    """The embeddings of a backbone: inputs -> (B, C, H, W) or (B, S, D).

    Tokens also give the mask of the real ones (B, S).
    """

    def __init__(self, embeddings: nn.Module, projection: nn.Module | None, padding: int) -> None:
        super().__init__()
        self.embeddings = embeddings
        self.projection = projection or nn.Identity()
        self.padding = padding

    def forward(self, inputs: Tensor | dict[str, Tensor]) -> State:
        """Returns a state."""
        if isinstance(inputs, Tensor):
            return join_mask(self.projection(self.embeddings(inputs)), None)
        tokens = inputs["tokens"]
        own = exchange_padding(tokens, self.padding)
        return join_mask(self.projection(self.embeddings(own)), tokens > 0)


def exchange_padding(tokens: Tensor, padding: int) -> Tensor:
    """Returns tokens as a backbone numbers them, in which 0 and its padding change places."""
    if padding == 0:
        return tokens
    return tokens.masked_fill(tokens == padding, 0).masked_fill(tokens == 0, padding)


class Blocks(nn.Module):
    """Some blocks of a backbone, one after the other."""

    def __init__(self, blocks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, state: State) -> State:
        """Returns a state of the same form."""
        x, mask = split_mask(state)
        hidden = {}
        if mask is not None:
            # as numbers to be added to the scores, which every attention implementation takes
            scores = torch.zeros(mask.shape, dtype=x.dtype, device=x.device)
            scores = scores.masked_fill(~attention_mask(mask), torch.finfo(x.dtype).min)
            hidden["attention_mask"] = scores[:, None, None]
        for block in self.blocks:
            output = block(x, **hidden)
            x = output[0] if isinstance(output, tuple) else output
        return join_mask(x, mask)


class End(nn.Module):
    """The backbone's last norm and pooling; an image (B, C, H, W) is pooled before its norm."""

    def __init__(self, norm: nn.Module | None, pool: Pool) -> None:
        super().__init__()
        self.norm = norm or nn.Identity()
        self.pool = pool

    def forward(self, state: State) -> Tensor:
        """Returns features (B, ..., D)."""
        x, mask = split_mask(state)
        if x.ndim == 4:
            return self.norm(x.mean((-2, -1))) if self.pool == "mean" else x.movedim(1, -1)
        return pool_sequence(self.norm(x), mask, self.pool)


class FixedStatistics(nn.BatchNorm2d):
    """BatchNorm with the statistics that came with the weights; its scale and shift train."""

    def train(self, mode: bool = True) -> Self:
        """Stays in evaluation."""
        return super().train(False)


class Pretrained(Encoder):
    """A backbone of the transformers package: BERT, RoBERTa, ViT, DINOv2, ConvNeXt, ResNet ...

    (Wolf et al., "Transformers: State-of-the-art natural language processing", EMNLP 2020.) The
    embeddings are the first stage, then come the blocks; the model's own pooler and heads are left
    out. When it is made, an example goes through the stages and through the model itself: where
    these differ the backbone is refused. Parameters that the features do not depend on do not
    train.

    For the same run on any topology, ``nn.Dropout`` becomes the dropout of this package with the
    same p, and dropout of attention weights and of whole layers, which each device would draw for
    itself, is off. BatchNorm keeps the statistics that came with the weights, as in detection (He
    et al., "Mask R-CNN", ICCV 2017): statistics of a batch depend on how it is spread over devices.

    Token 0 pads short sequences, as in BERT. Where the backbone's ``pad_token_id`` is another
    number (RoBERTa: 1), it and 0 change places, as they do where a table has the backbone's
    tokenizer. Pieces of tokens are not read.

    Args:
        shape: The shape of one sample: tokens, or images of a size that the backbone reads.
        name: A model id on the Hugging Face hub, or a folder with config.json and the weights.
        weights: Whether to load the weights; else initial ones, from config.json alone.
        stages: Number of stages that the blocks are cut into, behind the one of the embeddings;
            None: one per block.
        freeze: Number of stages, from the first, that do not train; -1: all.
        pool: mean: over the real tokens, or pixels, (B, D); first: the first token, in most [CLS],
            (B, D); none: features of each token (B, S, D) or pixel (B, H, W, D).

    Attributes:
        name: The model's name.
        loaded: Whether it has the weights that come with the name.
        names_in_backbone: {name of a module here: its name in the model of transformers}.
    """

    def __init__(
        self,
        shape: InputShape,
        name: str,
        weights: bool = True,
        stages: int | None = None,
        freeze: int = 0,
        pool: Pool = "mean",
    ) -> None:
        super().__init__(shape)
        if shape.categories or not (shape.tokens or len(shape.dense) == 3):
            other = "TabularTransformer" if shape.categories else suggest_encoder(shape)
            raise UserError(
                f"Pretrained reads tokens or images, but the data gives {describe(shape)}: use "
                f"--model.encoder {other}"
            )
        if pool not in ("none", "mean", "first"):
            raise UserError(f"Pretrained: pool {pool} is neither none nor mean nor first")
        model, missing = load_model(name, weights)
        title = f"'{name}' ({model.config.model_type})"
        embeddings, projection, blocks, norm = (
            find_module(model, names) for names in (EMBEDDINGS, PROJECTION, BLOCKS, NORM)
        )
        if embeddings is None or not isinstance(blocks, nn.ModuleList):
            raise UserError(
                f"Pretrained finds no embeddings and list of blocks in {title}: name a model like "
                "BERT, ViT or ResNet"
            )
        count = len(blocks) if stages is None else stages
        if not 1 <= count <= len(blocks):
            raise UserError(
                f"Pretrained: stages {count} is outside 1 ... {len(blocks)}, the blocks of {title}"
            )
        if not -1 <= freeze <= count + 1:
            raise UserError(
                f"Pretrained: freeze {freeze} is neither in 0 ... {count + 1}, the stages of "
                f"{title}, nor -1 for all"
            )

        padding = getattr(model.config, "pad_token_id", None) or 0
        ends = pairwise(len(blocks) * k // count for k in range(count + 1))
        runs = [Blocks(list(blocks)[first:last]) for first, last in ends]
        self.stages = nn.Sequential(Start(embeddings, projection, padding), *runs)
        self.stages[-1] = nn.Sequential(runs[-1], End(norm, pool))
        self._replace_layers(weights, title)

        # the stages must do what the model does, and only what the features read trains
        inputs, theirs = compute_reference(model, shape, padding, pool, title)
        reached = self._check_stages(inputs, theirs, model, title)
        lacking = [
            key for key, p in model.named_parameters() if key in missing and id(p) in reached
        ]
        if lacking:
            raise UserError(
                f"Pretrained: the weights of {title} lack {lacking[0]}: set weights false, or name "
                "another model"
            )
        for p in self.parameters():
            p.requires_grad_(id(p) in reached)
        for stage in list(self.stages)[: freeze if freeze >= 0 else None]:
            stage.requires_grad_(False)
        self.features = theirs.shape[-1]

        self.name = name
        self.loaded = weights
        there = {id(module): path for path, module in model.named_modules()}
        ours = [(path, id(module)) for path, module in self.named_modules()]
        self.names_in_backbone = {path: there[key] for path, key in ours if key in there}

    def _replace_layers(self, weights: bool, title: str) -> None:
        """Replaces layers whose results depend on the number of devices."""
        for parent in list(self.modules()):
            for key, child in list(parent.named_children()):
                if type(child) is nn.Dropout:
                    setattr(parent, key, Dropout(child.p))
                elif isinstance(child, nn.BatchNorm2d):
                    if not weights:
                        raise UserError(
                            f"Pretrained: BatchNorm in {title} has its statistics from the "
                            "weights: set weights true"
                        )
                    fixed = FixedStatistics(child.num_features, child.eps)
                    fixed.load_state_dict(child.state_dict())
                    setattr(parent, key, fixed)

    @torch.enable_grad()
    def _check_stages(
        self, inputs: Inputs, theirs: Tensor, model: nn.Module, title: str
    ) -> set[int]:
        """Compares the stages with the model, in training mode but without dropout.

        Returns:
            The ids of the parameters that the features depend on.
        """
        self.train()
        for module in self.modules():
            if isinstance(module, Dropout):
                module.eval()
        before = torch.get_rng_state()
        try:
            ours = self(inputs)
        except Exception as error:
            raise UserError(
                f"Pretrained: the blocks of {title} do not run one by one: {error}"
            ) from error
        if not torch.equal(torch.get_rng_state(), before):
            raise UserError(
                f"Pretrained: {title} draws random numbers of its own in training: set dropouts in "
                "its config.json to 0"
            )

        reached = find_parameters(ours, self)
        same = ours.shape == theirs.shape and torch.allclose(ours, theirs, rtol=1e-5, atol=1e-5)
        # a branch that starts near 0 would not show in the numbers
        if not same or find_parameters(theirs, model) - reached:
            raise UserError(
                f"Pretrained: {title} is more than its blocks one by one: name a model like BERT, "
                "ViT or ResNet"
            )
        self.train()
        return reached


@torch.enable_grad()
def compute_reference(
    model: Any, shape: InputShape, padding: int, pool: Pool, title: str
) -> tuple[Inputs, Tensor]:
    """Returns an example, and the pooled output of the model itself for it."""
    inputs = shape.example()
    found = describe(shape)
    mask = None
    if isinstance(inputs, Tensor):
        arguments = {"pixel_values": inputs}
    else:
        tokens = inputs["tokens"]
        known = getattr(model.config, "vocab_size", 0)
        found = f"{shape.tokens} tokens"
        if known < shape.tokens:
            raise UserError(
                f"Pretrained: {title} knows {known} tokens, but the data has {shape.tokens}: use "
                "the model's tokenizer"
            )
        mask = tokens > 0
        own = exchange_padding(tokens, padding)
        arguments = {"input_ids": own, "attention_mask": mask.long()}
    try:
        outputs = model.eval()(**arguments)
    except Exception as error:
        size = ""
        if hasattr(model.config, "image_size"):
            size = f" with image_size {model.config.image_size}"
        raise UserError(f"Pretrained: {title}{size} does not read {found}: {error}") from error
    x = outputs.last_hidden_state
    if x.ndim == 3:
        return inputs, pool_sequence(x, mask, pool)
    if pool == "first":
        raise UserError(
            f"Pretrained: pool first needs tokens, but {title} puts out images: set pool mean or "
            "none"
        )
    if pool == "none":
        return inputs, x.movedim(1, -1)
    # the model's own pooler has the last norm
    return inputs, outputs.get("pooler_output", x.mean((-2, -1))).flatten(1)


def find_parameters(z: Tensor, module: nn.Module) -> set[int]:
    """Returns the ids of the parameters of a module that z depends on."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(z.sum(), parameters, allow_unused=True)
    return {
        id(p) for p, gradient in zip(parameters, gradients, strict=True) if gradient is not None
    }


def load_model(name: str, weights: bool) -> tuple[Any, set[str]]:
    """Loads a model in float32, and the names of parameters that its weights lack.

    Raises:
        UserError: transformers is not installed, or there is no such model.
    """
    try:
        from transformers import AutoConfig, AutoModel
        from transformers.utils import logging
    except ModuleNotFoundError as error:
        raise UserError(
            "Pretrained needs the transformers package: pip install transformers"
        ) from error
    if name.startswith((".", "/", "~")) and not Path(name).expanduser().is_dir():
        raise UserError(f"Pretrained: name {name}: there is no such folder")
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        config = AutoConfig.from_pretrained(name)
        for key, value in config.to_dict().items():
            # dropout of attention weights, and of whole layers
            unseeded = "drop" in key and any(what in key for what in ("att", "path", "layer"))
            if unseeded and isinstance(value, float):
                setattr(config, key, 0.0)
        if not weights:
            return AutoModel.from_config(config, dtype=torch.float32), set()
        model, info = AutoModel.from_pretrained(
            name, config=config, dtype=torch.float32, output_loading_info=True
        )
    except (OSError, ValueError) as error:
        raise UserError(
            f"Pretrained: name '{name}' is neither a model id on the hub nor a folder with a model "
            f"and its weights (without weights, set weights false): {error}"
        ) from error
    return model, set(info["missing_keys"])


def find_module(model: nn.Module, names: Sequence[str]) -> nn.Module | None:
    """Returns the first of some submodules that the model has."""
    modules = dict(model.named_modules())
    return next((modules[name] for name in names if name in modules), None)
