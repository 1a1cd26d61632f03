"""Adapters as files in the format of peft, which opens them on the same encoder."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

from torch import Tensor, nn

from src.models.encoders import Encoder, Pretrained
from src.models.sharing import StackedEncoders
from src.models.transfer.finetune import LoRA
from src.models.transfer.lora import ADAPTER, is_adapter, make_config
from src.models.transfer.parts import find_encoders

if TYPE_CHECKING:
    from src.models.network import MultiTaskNetwork

PREFIX = "base_model.model."  # of all names in peft's files
WEIGHTS = "adapter_model.safetensors"


def list_adapted(model: "MultiTaskNetwork") -> dict[str, Encoder]:
    """Returns {path below the architecture: encoder with adapters of its own}.

    Encoders whose layers are stacked are left out: peft knows no such layers.
    """
    found: dict[str, Encoder] = {}
    for path, module in find_encoders(model.sharing).items():
        if isinstance(module, Encoder):
            found[path] = module
        elif isinstance(module, StackedEncoders):
            for k, encoder in enumerate(module.encoders):
                found[f"{path}.encoders.{k}"] = cast(Encoder, encoder)
    return found


def save_adapters(
    model: "MultiTaskNetwork", state: Mapping[str, Tensor], settings: LoRA, folder: Path
) -> list[Path]:
    """Writes the adapters of each encoder to a folder that ``PeftModel.from_pretrained`` opens.

    The only encoder's are in the folder itself, those of several in one below for each.

    Args:
        model: The model, built with adapters.
        state: Whole weights of it.
        settings: The settings of the adapters.
        folder: The folder.

    Returns:
        The folders.
    """
    from safetensors.torch import save_file

    adapted = list_adapted(model)
    written = []
    for path, encoder in adapted.items():
        place = folder if len(adapted) == 1 else folder / path
        prefix = f"sharing.{path}."
        own = {
            name.removeprefix(prefix): tensor
            for name, tensor in state.items()
            if name.startswith(prefix) and is_adapter(name)
        }
        theirs = name_layers(encoder)
        tensors = {}
        for name, tensor in own.items():
            layer, _, rest = name.partition(".lora_")
            renamed = f"{PREFIX}{theirs[layer]}.lora_{rest.replace(f'.{ADAPTER}.', '.')}"
            tensors[renamed] = tensor.detach().cpu().contiguous().clone()

        targets = [theirs[name.partition(".lora_A")[0]] for name in own if ".lora_A" in name]
        config = make_config(settings, targets, list(theirs.values()))
        config.inference_mode = True
        config.base_model_name_or_path = encoder.name if isinstance(encoder, Pretrained) else None
        place.mkdir(parents=True, exist_ok=True)
        config.save_pretrained(str(place))
        save_file(tensors, str(place / WEIGHTS), metadata={"format": "pt"})
        written.append(place)
    return written


def name_layers(encoder: nn.Module) -> dict[str, str]:
    """Returns {name of a layer: its name in the base, a backbone of transformers or itself}."""
    names = {name: name for name, _ in encoder.named_modules()}
    if isinstance(encoder, Pretrained):
        names |= encoder.names_in_backbone
    return names
