"""The settings of fine-tuning: which parts of a network train, and from when on."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from src.errors import UserError


@dataclass
class LoRA:
    """Low-rank adapters on each linear layer and convolution of the encoders, for all tasks.

    Each weight W becomes W + (alpha / rank) B A, in which W is frozen, A has ``rank`` rows and B,
    which starts at 0, as many columns (Hu et al., "LoRA", ICLR 2022). The package peft puts them
    in, and the run folder gets them as adapter/, in its format.

    Args:
        rank: Rows of A.
        alpha: Scale of the adapters.
        dropout: Share of units dropped in what the adapters read.
    """

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise UserError(f"finetune.lora.rank is {self.rank}; it must be at least 1")
        if not self.alpha > 0:
            raise UserError(f"finetune.lora.alpha is {self.alpha:g}; it must be above 0")
        if not 0 <= self.dropout < 1:
            raise UserError(f"finetune.lora.dropout is {self.dropout:g}; it is outside [0, 1)")


@dataclass
class Finetune:
    """Which parts of the network train, and from which epoch on.

    A part is encoder (all encoders), a stage of the encoders (stages.0), sharing (encoders, gates
    and all else below the heads), any module of the sharing architecture by its path, heads or
    heads.<task>. Frozen parts take no gradient, no state of the optimizer and no traffic, and run
    in evaluation mode: no dropout, and statistics of BatchNorm stay.

    Args:
        freeze: Parts that do not train, a name or a list.
        thaw_at: {frozen part: the epoch, counted from 0, at whose start it begins to train}; of
            two that name the same parameter the earlier counts.
        bias_only: Train of the encoders the biases alone (BitFit: Ben Zaken et al., ACL 2022).
        lora: Freeze the encoders, and train low-rank adapters in them.
    """

    freeze: str | list[str] | None = None
    thaw_at: dict[str, Any] | None = None
    bias_only: bool = False
    lora: LoRA | None = None

    def __post_init__(self) -> None:
        if self.bias_only and self.lora is not None:
            raise UserError(
                "finetune.bias_only trains biases alone, finetune.lora adapters alone: leave one "
                "of them out"
            )
        for part, epoch in flatten(self.thaw_at or {}):
            if epoch is None and ":" in part:
                raise UserError(
                    f"finetune.thaw_at holds '{part}' without an epoch: YAML wants a space behind "
                    f"the colon, {{{part.replace(':', ': ')}}}"
                )
            if not isinstance(epoch, int) or isinstance(epoch, bool) or epoch < 1:
                raise UserError(
                    f"finetune.thaw_at.{part} is {epoch}; it must be a whole number of at least 1: "
                    "epoch 0 is the first, and what trains from there on is not frozen"
                )
        if self.thaws and not self.frozen:
            part = next(iter(self.thaws))
            raise UserError(
                f"finetune.thaw_at names '{part}', which is not frozen: name it, or the encoder, "
                "in finetune.freeze"
            )

    @property
    def thaws(self) -> dict[str, int]:
        """{part: the epoch in which it begins to train}."""
        return {part: int(str(epoch)) for part, epoch in flatten(self.thaw_at or {})}

    @property
    def frozen(self) -> list[str]:
        """The names of the parts that are frozen at first."""
        return [self.freeze] if isinstance(self.freeze, str) else list(self.freeze or ())


def flatten(tree: Mapping[str, object], above: str = "") -> Iterator[tuple[str, object]]:
    """Yields the entries of a mapping with dotted keys: flags nest it, as {stages: {1: 3}}."""
    for key, value in tree.items():
        path = f"{above}.{key}" if above else str(key)
        if isinstance(value, Mapping):
            yield from flatten(value, path)
        else:
            yield path, value
