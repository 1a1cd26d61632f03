"""Notes of a run that trains parts of a network, and the adapters that it leaves in its folder."""

from math import inf

from lightning.fabric.utilities.rank_zero import rank_zero_only

from src.checkpoint import load_checkpoint
from src.cli.app import CLI
from src.models import MultiTaskModel
from src.models.encoders import Pretrained
from src.models.transfer.adapter_files import save_adapters
from src.models.transfer.lora import list_left_out
from src.monitoring import say
from src.run import Run


def describe_finetuning(cli: CLI) -> list[str]:
    """Returns what a person should know of a run that trains parts of a network, a line each."""
    model = cli.model
    if not model.freezing.first:
        return []
    lines = []
    encoder_frozen = any(name.startswith("sharing.") for name in model.freezing.first)
    if encoder_frozen and not starts_from_weights(cli):
        lines.append(
            "finetune freezes weights that are random: start from a run with --init_from, or take "
            "the encoder Pretrained with its weights"
        )
    if model.balancer.level is not None and not any(model.shared_and_private()):
        lines.append(
            f"finetune: {type(model.balancer).__name__} balances gradients in the encoder, which "
            "does not train; each head follows its own loss"
        )
    idle = [name for name in model.lr_multipliers if is_frozen(model, name)]
    lines += [f"model.lr_multipliers.{name} has no effect: {name} is frozen" for name in idle]
    left_out = list_left_out(model.sharing) if model.finetune.lora is not None else []
    if left_out:
        more = f" and {len(left_out) - 3} more" if len(left_out) > 3 else ""
        lines.append(
            "finetune.lora adapts no grouped, dilated or transposed convolution: "
            f"{', '.join(left_out[:3])}{more} stay as they are"
        )
    return lines


def is_frozen(model: MultiTaskModel, name: str) -> bool:
    """Returns whether nothing of the encoder, or of the head of a task, ever trains."""
    if name == "balancer":
        return False
    prefix = "sharing." if name == "encoder" else f"heads.{model.heads.paths[name]}."
    first = model.freezing.first
    own = [key for key, _ in model.named_parameters() if key.startswith(prefix)]
    return all(first.get(key) == inf for key in own)


def starts_from_weights(cli: CLI) -> bool:
    """Returns whether the encoders have weights that were trained before."""
    if cli.start is not None:
        return True
    modules = cli.model.sharing.modules()
    return any(isinstance(module, Pretrained) and module.loaded for module in modules)


@rank_zero_only
def write_adapters(model: MultiTaskModel, run: Run, weights: str | None) -> None:
    """Writes the adapters of the weights that count to the run folder, as peft opens them.

    Args:
        model: The model.
        run: The run folder.
        weights: The checkpoint that counts; None where none is kept.
    """
    settings = model.finetune.lora
    if settings is None or weights is None:
        return
    state = load_checkpoint(weights)["state_dict"]
    written = save_adapters(model, state, settings, run.path / "adapter")
    if written:
        say(f"adapters, which PeftModel.from_pretrained opens: {', '.join(map(str, written))}")
    else:
        kind = type(model.sharing).__name__
        say(
            f"finetune.lora: {kind} stacks the layers of its encoders, and peft has no file for "
            "such adapters: they are in the checkpoints alone"
        )
