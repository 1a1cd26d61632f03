"""A small model and its plan, for tests of planning."""

import io
from dataclasses import replace
from functools import partial
from typing import Any

from rich.console import Console
from torch.optim import SGD, AdamW

from src.cli.batch_sums import list_batch_sums
from src.models import MultiTaskModel
from src.models.encoders import MLP
from src.planning.devices import Devices
from src.planning.measure import weigh_parts
from src.planning.memory import (
    Footprint,
    count_task_gradients,
    measure_optimizer_ratio,
)
from src.planning.plan import Plan, configure_offline, make_plan
from src.planning.plan_table import make_table
from tests.toy import Toy


def toy(**settings: Any) -> MultiTaskModel:
    data = Toy()
    settings = {
        "encoder": partial(MLP, width=20, depth=2),
        "scheduler": None,
        "optimizer": partial(SGD, lr=0.01),
    } | settings
    model = MultiTaskModel(data.tasks, data.input_shape, **settings)
    model.configure_model()
    return model


def plan_of(
    model: MultiTaskModel, strategy: Any, devices: Devices, rows: int = 64, **settings: Any
) -> Plan:
    strategy = strategy and configure_offline(strategy, devices, "32-true")
    costs = {part: replace(cost, activations=100) for part, cost in weigh_parts(model).items()}
    footprint = Footprint(costs, measure_optimizer_ratio(AdamW), count_task_gradients(model))
    return make_plan(
        model,
        strategy,
        devices,
        lambda rows: footprint,
        rows,
        batch_sums=partial(list_batch_sums, model),
        **settings,
    )


def text_of(plan: Plan) -> str:
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(make_table(plan))
    return "\n".join(line.rstrip() for line in console.export_text().splitlines())
