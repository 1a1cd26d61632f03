"""Parameters that do not train, or not yet."""

import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from math import inf
from typing import TYPE_CHECKING, Any

import lightning as L
from torch import nn

from src.errors import UserError
from src.models.transfer.finetune import Finetune
from src.models.transfer.lora import is_adapter
from src.models.transfer.parts import find_encoders, select_parameters
from src.runner import FollowsThaw

if TYPE_CHECKING:
    from src.models.network import MultiTaskNetwork

Groups = list[dict[str, Any]]

BIAS = re.compile(r"(?:^|_)bias(?:_|$)")


class Freezing:
    """Says which parameters of a network train in which epoch, and sees to it.

    A parameter that will train only later is in the optimizer from the start, at the rate of the
    schedule. Without a gradient it is neither moved nor given a state there.

    Args:
        model: The network, built but for its balancer.
        settings: The settings.

    Raises:
        UserError: A setting names no part, or one that does not fit, or nothing would train.

    Attributes:
        first: {name of a parameter: the first epoch in which it trains, inf for never}; parameters
            that train from the start are left out.
        version: Counts how often the set of parameters that train has changed.
    """

    def __init__(self, model: "MultiTaskNetwork", settings: Finetune) -> None:
        self.settings = settings
        self.first: dict[str, float] = {}
        self.version = 0
        self._epoch: int | None = None
        self._held: list[nn.Module] = []

        trains = {name for name, p in model.named_parameters() if p.requires_grad}
        self._freeze(model, trains)
        self._thaw(model)
        self.first |= dict.fromkeys(find_untrained(model, settings, trains), inf)
        if settings.lora is not None and not any(
            is_adapter(name) and self.first.get(name, 0) < inf for name in trains
        ):
            raise UserError(
                "finetune.lora: finetune.freeze covers all adapters, and the encoders are frozen "
                "anyway: leave them out of finetune.freeze"
            )
        self._never = {name for name, _ in model.named_parameters()} - trains
        if trains and not trains - self.first.keys():
            raise UserError(
                "finetune: nothing would train in epoch 0; leave the heads, or a part of the "
                "encoder, out of finetune.freeze"
            )
        self.enter(model, 0)

    def _freeze(self, model: "MultiTaskNetwork", trains: set[str]) -> None:
        """Freezes parts for good."""
        for part in self.settings.frozen:
            names = select_parameters(model, part, "finetune.freeze") & trains
            if not names:
                raise UserError(
                    f"finetune.freeze names '{part}', which does not train anyway: leave it out"
                )
            self.first |= dict.fromkeys(names, inf)

    def _thaw(self, model: "MultiTaskNetwork") -> None:
        """Notes when frozen parts begin to train."""
        for part, epoch in self.settings.thaws.items():
            names = select_parameters(model, part, "finetune.thaw_at") & self.first.keys()
            if not names:
                raise UserError(
                    f"finetune.thaw_at names '{part}', which is not frozen: finetune.freeze is "
                    f"{', '.join(self.settings.frozen)}"
                )
            for name in names:
                self.first[name] = min(self.first[name], epoch)

    # -- what trains -------------------------------------------------------------------------------
    @property
    def last_thaw(self) -> int:
        """The last epoch in which something begins to train; 0 where nothing does."""
        return int(max((epoch for epoch in self.first.values() if epoch < inf), default=0))

    @property
    def thaws(self) -> bool:
        """Whether something begins to train in a later epoch."""
        return self.last_thaw > 0

    def select_trained(
        self, named: Iterable[tuple[str, nn.Parameter]], prefix: str = ""
    ) -> list[nn.Parameter]:
        """Returns the parameters that train in some epoch.

        Args:
            named: Parameters with their names.
            prefix: What precedes these names in the model.
        """
        found = []
        for name, p in named:
            first = self.first.get(prefix + name)
            if p.requires_grad if first is None else first < inf:
                found.append(p)
        return found

    def drop_frozen(self, model: nn.Module, groups: Groups) -> Groups:
        """Returns an optimizer's groups without the parameters that never train."""
        frozen = {id(p) for name, p in model.named_parameters() if self.first.get(name) == inf}
        if not frozen:
            return groups
        found = []
        for group in groups:
            trained = [p for p in group["params"] if id(p) not in frozen]
            if trained:
                found.append(group | {"params": trained})
        return found

    def check(self, trainer: L.Trainer) -> None:
        """Checks that a fit comes to each thaw, on a strategy that sees to it.

        Raises:
            UserError: The strategy would go on as if nothing had changed.
        """
        if self.first:
            # Lightning warns of modules in evaluation, which frozen ones are on purpose
            warnings.filterwarnings("ignore", message=r".*module\(s\) in eval mode at the start")
        if not self.thaws:
            return
        strategy = trainer.strategy
        if trainer.world_size > 1 and not isinstance(strategy, FollowsThaw):
            raise UserError(
                f"finetune.thaw_at: {type(strategy).__name__} would not average the gradients of "
                "what begins to train later: use --strategy ddp or fsdp"
            )
        epochs = trainer.max_epochs
        for part, epoch in self.settings.thaws.items():
            if epochs is not None and 0 <= epochs <= epoch:
                warnings.warn(
                    f"finetune.thaw_at.{part} is {epoch}, but the run ends after {epochs} epochs, "
                    "counted from 0: the part never trains",
                    stacklevel=2,
                )

    def enter(self, model: "MultiTaskNetwork", epoch: int) -> None:
        """Lets the parameters train that do so in an epoch, and those alone."""
        if not self.first or epoch == self._epoch:
            return
        self._epoch = epoch
        parameters = dict(model.named_parameters())
        changed = False
        for name, first in self.first.items():
            p = parameters[name]
            changed |= p.requires_grad != (first <= epoch)
            p.requires_grad_(first <= epoch)
        if changed:
            self.version += 1
            for module in self._held:
                module.train(model.training)
            self.hold_modes(model)

    @contextmanager
    def after_thaw(self, model: "MultiTaskNetwork") -> Iterator[None]:
        """Gives a context in which everything trains that ever does, for estimates."""
        epoch = self._epoch or 0
        self.enter(model, max(epoch, self.last_thaw))
        try:
            yield
        finally:
            self.enter(model, epoch)

    def hold_modes(self, model: "MultiTaskNetwork") -> None:
        """Puts frozen modules into evaluation mode: no dropout, and their statistics stay."""
        self._held = []
        if self.first:
            for part in (model.sharing, model.heads):
                self._held += find_frozen(part)
        for module in self._held:
            module.train(False)

    # -- for people --------------------------------------------------------------------------------
    def describe(self, model: "MultiTaskNetwork") -> list[str]:
        """Returns a line on what trains, part by part; none where everything does."""
        if not self.first:
            return []
        numbers = {name: p.numel() for name, p in model.named_parameters()}
        parts = ["encoder", "heads"]
        if any(name.startswith("heads.") for name in self.first):
            parts = ["encoder", *(f"heads.{task}" for task in model.tasks)]
        names = {part: select_parameters(model, part, "") for part in parts}
        names["others"] = numbers.keys() - set().union(*names.values())

        shown = []
        trained = 0
        for part, own in names.items():
            # what is not among the first epochs trains from the start, unless its class froze it
            now = sum(numbers[name] for name in own - self._never - self.first.keys())
            trained += now
            if own:
                shown.append(f"{part} {now:,} of {sum(numbers[name] for name in own):,}")
        line = f"finetune trains {trained:,} of {sum(numbers.values()):,} parameters: "
        line += ", ".join(shown)
        for part, epoch in self.settings.thaws.items():
            thawed = select_parameters(model, part, "finetune.thaw_at")
            new = sum(numbers[name] for name in thawed if self.first.get(name) == epoch)
            line += f"; {part} +{new:,} from epoch {epoch}"
        return [line]


def find_untrained(
    model: "MultiTaskNetwork", settings: Finetune, trains: set[str]
) -> Iterable[str]:
    """Returns the parameters of the encoders that BitFit or LoRA never train.

    Raises:
        UserError: Nothing of the encoders would be left.
    """
    if not settings.bias_only and settings.lora is None:
        return ()
    encoders = find_encoders(model.sharing)
    prefixes = tuple(f"sharing.{path}." for path in encoders)
    inside = {name for name, _ in model.named_parameters() if name.startswith(prefixes)}
    keeps = is_bias if settings.bias_only else is_adapter
    kept = {name for name in inside & trains if keeps(name)}
    if not kept:
        kind = type(next(iter(encoders.values()))).__name__
        raise UserError(f"finetune.bias_only: {kind} has no biases that train; leave it out")
    return inside - kept


def is_bias(name: str) -> bool:
    """Returns whether a parameter is a bias, by its name."""
    return bool(BIAS.search(name.rpartition(".")[2]))


def find_frozen(module: nn.Module) -> list[nn.Module]:
    """Returns the outermost modules whose parameters are all frozen."""
    own = [p.requires_grad for p in module.parameters()]
    if own and not any(own):
        return [module]
    return [found for child in module.children() for found in find_frozen(child)]
