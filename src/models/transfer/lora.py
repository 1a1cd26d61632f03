"""Low-rank adapters on the layers of encoders, put in by the package peft."""

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from src.errors import UserError
from src.models.dropout import Dropout
from src.models.encoders import Encoder
from src.models.encoders.encoder import top
from src.models.sharing import Sharing
from src.models.transfer.finetune import LoRA

T = TypeVar("T")
ADAPTER = "default"  # peft's name for the only adapter
LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
# they read weights without running the layers that hold them
UNREACHED = (nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention)


def import_peft() -> Any:
    """Imports peft.

    Raises:
        UserError: It is not installed.
    """
    try:
        import peft
    except ModuleNotFoundError as error:
        raise UserError("finetune.lora needs the package peft: pip install peft") from error
    return peft


def add_adapters(make: Callable[[], Encoder], settings: LoRA) -> Callable[[], Encoder]:
    """Returns a factory of the same encoders, with adapters in them."""
    import_peft()
    return partial(make_adapted, make, settings)


def make_adapted(make: Callable[[], Encoder], settings: LoRA) -> Encoder:
    """Makes an encoder with adapters, whose other weights are frozen.

    It puts out what it does without them, since they start at 0, and all other initial weights are
    as without them.

    Raises:
        UserError: Adapters would not reach each matrix of the encoder.
    """
    encoder = make()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**62, ())))
        inject(encoder, settings)
    check_adapters(encoder)
    return encoder


def check_sharing(sharing: Sharing) -> None:
    """Checks that an architecture runs its encoders, and reads no weights of them.

    Raises:
        UserError: It reads them, and would take a frozen weight for all there is.
    """
    if sharing.reads_weights:
        raise UserError(
            f"finetune.lora: {type(sharing).__name__} reads the weights of its encoders, which do "
            "not train, and not their adapters: use --model.sharing HardSharing"
        )


def inject(encoder: Encoder, settings: LoRA) -> None:
    """Puts adapters into an encoder, in place."""
    peft = import_peft()
    kind = type(encoder).__name__
    for name, module in encoder.named_modules():
        if isinstance(module, UNREACHED):
            raise UserError(
                f"finetune.lora: {kind} has weights in {name} ({type(module).__name__}), which "
                "adapters do not reach: use finetune.freeze or finetune.bias_only"
            )
    targets = [name for name, module in encoder.named_modules() if is_target(module)]
    if not targets:
        raise UserError(f"finetune.lora: {kind} has no linear layer or convolution to adapt")
    names = [name for name, _ in encoder.named_modules()]
    config = make_config(settings, targets, names)
    peft.inject_adapter_in_model(config, encoder)

    # a mask that each device draws for itself would depend on their number
    for module in list(encoder.modules()):
        dropouts = getattr(module, "lora_dropout", None)
        if settings.dropout and isinstance(dropouts, nn.ModuleDict):
            dropouts[ADAPTER] = Dropout(settings.dropout)


def make_config(settings: LoRA, targets: list[str], names: list[str]) -> Any:
    """Returns peft's configuration of adapters on some modules.

    Args:
        settings: The settings.
        targets: The names of these modules.
        names: The names of all modules of the network.
    """
    # of names in a list peft takes endings for enough
    chosen = {name for name in names if any(name.endswith(f".{target}") for target in targets)}
    exact = "|".join(re.escape(target) for target in targets)
    return import_peft().LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=targets if chosen <= set(targets) else exact,
    )


def is_target(module: nn.Module) -> bool:
    """Returns whether a module gets adapters: a linear layer, or a convolution as peft knows it."""
    if isinstance(module, CONVOLUTIONS):
        dense = module.groups == 1 and module.padding_mode == "zeros"
        return dense and all(step == 1 for step in module.dilation)
    return isinstance(module, nn.Linear)


def list_left_out(network: nn.Module) -> list[str]:
    """Returns the paths of layers with matrices that have no adapter."""
    adapted = [name for name, module in network.named_modules() if hasattr(module, "lora_A")]
    found = []
    for name, module in network.named_modules():
        inner = any(name.startswith(f"{outer}.") for outer in adapted)
        if isinstance(module, (*LAYERS, *TRANSPOSED)) and name not in adapted and not inner:
            found.append(name)
    return found


@torch.enable_grad()
def check_adapters(encoder: Encoder) -> None:
    """Checks on two samples that the features depend on each adapter, in evaluation too.

    Raises:
        UserError: Some layer's weights are read without its adapter.
    """
    named = {name: p for name, p in encoder.named_parameters() if is_adapter(name)}
    ups = [p for name, p in named.items() if "lora_B" in name]
    training = encoder.training
    encoder.eval()
    inputs = encoder.shape.example()
    with torch.random.fork_rng(devices=[]), torch.compiler.set_stance("force_eager"):
        for p in ups:
            nn.init.normal_(p, std=0.02)
        z = top(encoder(inputs))
        gradients: tuple[Tensor | None, ...] = (None,) * len(named)
        if z.requires_grad:
            gradients = torch.autograd.grad(z.sum(), list(named.values()), allow_unused=True)
        with torch.no_grad():
            quick = top(encoder(inputs))
        for p in ups:
            nn.init.zeros_(p)
    encoder.train(training)

    missing = [name for name, g in zip(named, gradients, strict=True) if g is None]
    same = torch.allclose(z, quick, rtol=1e-4, atol=1e-5)
    if missing or not same:
        where = f"in {missing[0].partition('.lora_')[0]} " if missing else ""
        raise UserError(
            f"finetune.lora: {type(encoder).__name__} reads weights {where}without running their "
            "layer, so that an adapter would not count: use finetune.freeze or finetune.bias_only"
        )


# -- names and states ------------------------------------------------------------------------------
def is_adapter(name: str) -> bool:
    """Returns whether an entry of a state is of an adapter, by its name."""
    return ".lora_" in name


def strip_adapters(state: Mapping[str, T]) -> dict[str, T]:
    """Returns the entries of a state as they are named without adapters, which are left out."""
    return {
        name.replace(".base_layer.", "."): tensor
        for name, tensor in state.items()
        if not is_adapter(name)
    }


@torch.no_grad()
def merge_adapters(state: Mapping[str, Tensor], alpha: float) -> dict[str, Tensor]:
    """Returns the state of the same network without adapters: W + (alpha / rank) B A.

    Args:
        state: The state of a network with adapters.
        alpha: Their scale.
    """
    merged = strip_adapters(state)
    for name, down in state.items():
        layer, _, end = name.partition(".lora_A.")
        if not end:
            continue
        up = state[f"{layer}.lora_B.{end}"]
        weight = merged[f"{layer}.weight"]
        # of several networks side by side, (K, out, rank) and (K, rank, in)
        count = len(weight) if len(up) == len(down) == len(weight) else 0
        stacked = up.ndim == 3 and up.shape == (count, weight.shape[1], down.shape[1])
        if not stacked:
            up, down = up.flatten(1), down.flatten(1)
        scale = alpha / up.shape[-1]
        merged[f"{layer}.weight"] = weight + scale * (up @ down).view_as(weight)
    return merged
