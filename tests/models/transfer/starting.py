"""Small models that start from one another."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch

from src.batch import InputShape
from src.models import MultiTaskModel
from src.models.encoders import MLP
from src.models.sharing import HardSharing
from src.models.transfer.finetune import Finetune
from src.models.transfer.source import Source
from src.tasks import Task
from tests.toy import Toy

SHAPE = InputShape((5,))
SMALL = partial(MLP, width=8, depth=1)
TASKS = Toy().tasks


def build(
    tasks: Sequence[str] | Mapping[str, Task],
    sharing: Any = HardSharing,
    seed: int = 0,
    encoder: Any = SMALL,
    shape: InputShape = SHAPE,
    finetune: Finetune | None = None,
    **settings: Any,
) -> MultiTaskModel:
    """Builds a model of some of the toy tasks, or of others."""
    chosen = tasks if isinstance(tasks, Mapping) else {name: TASKS[name] for name in tasks}
    model = MultiTaskModel(
        dict(chosen), shape, encoder=encoder, sharing=sharing, seed=seed, **settings
    )
    model.finetune = finetune or model.finetune
    model.configure_model()
    return model.eval()


def name_of(sharing: Any) -> str:
    """The name of an architecture, which may have settings."""
    return getattr(sharing, "func", sharing).__name__


def as_source(model: MultiTaskModel, sharing: Any = HardSharing, **more: Any) -> Source:
    """The model as a source, its weights moved away from where they began."""
    with torch.no_grad():
        generator = torch.Generator().manual_seed(3)
        for p in model.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=generator))
    tasks = {name: task.describe() for name, task in model.tasks.items()}
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    return Source("RUN", state, tasks, sharing=name_of(sharing), **more)
