"""Muon and AdamW as one optimizer take the steps that torch's two take apart."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim import AdamW, Muon

from src.models import MultiTaskModel
from src.models.encoders import MLP, ConvNet, TabularTransformer
from src.models.optimisation import MuonAdamW
from src.models.optimisation.muon_adamw import orthogonalize
from src.models.sharing import PLE, HardSharing, SoftSharing
from tests.models.backward.test_levels import Data

SHAPES = {
    "matrix": (6, 4),
    "wide": (4, 9),
    "kernels": (5, 2, 3, 3),
    "stack": (3, 7, 4),
    "bias": (8,),
}


def draw(seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(shape, generator=generator, dtype=torch.float64)
        for name, shape in SHAPES.items()
    }


def split(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same numbers as torch's Muon takes them: kernels flat, each layer of the stack alone."""
    layers = {f"stack {k}": layer for k, layer in enumerate(tensors["stack"])}
    rest = {name: t for name, t in tensors.items() if name != "stack"}
    return rest | layers | {"kernels": tensors["kernels"].flatten(1)}


def test_it_steps_as_torchs_two_optimizers(monkeypatch: pytest.MonkeyPatch) -> None:
    # torch's own rounds to 16 bits in between
    monkeypatch.setattr(Tensor, "bfloat16", lambda self: self.clone())
    ours = {name: nn.Parameter(t) for name, t in draw(0).items()}
    theirs = {name: nn.Parameter(t.clone()) for name, t in split(draw(0)).items()}
    optimizer = MuonAdamW(
        [
            {
                "params": [ours[name] for name in ("matrix", "wide", "kernels")],
                "matrices": "single",
            },
            {"params": [ours["stack"]], "matrices": "stacked", "lr": 0.05},
            {"params": [ours["bias"]]},
        ],
        lr=0.02,
        weight_decay=0.1,
        momentum=0.9,
    )
    groups: list[dict[str, Any]] = [
        {"params": [theirs[name] for name in ("matrix", "wide", "kernels")]},
        {"params": [theirs[f"stack {k}"] for k in range(3)], "lr": 0.05},
    ]
    muon = Muon(
        groups,
        lr=0.02,
        weight_decay=0.1,
        momentum=0.9,
        adjust_lr_fn="match_rms_adamw",
    )
    adamw = AdamW([theirs["bias"]], lr=0.02, weight_decay=0.1)
    for step in range(1, 6):
        gradients = draw(step)
        for name, p in ours.items():
            p.grad = gradients[name].clone()
        for name, p in theirs.items():
            p.grad = split(gradients)[name].clone()
        optimizer.step()
        muon.step()
        adamw.step()
    for name, tensor in split({name: p.detach() for name, p in ours.items()}).items():
        torch.testing.assert_close(tensor, theirs[name].detach(), rtol=1e-12, atol=1e-14)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 8), st.integers(1, 8), st.floats(1e-3, 1e3))
def test_singular_values_come_near_one(rows: int, columns: int, size: float) -> None:
    generator = torch.Generator().manual_seed(rows * 10 + columns)
    made = torch.randn(2, rows, columns, generator=generator, dtype=torch.float64)
    u, s, v = torch.linalg.svd(made, full_matrices=False)
    made = size * u @ torch.diag_embed(0.3 + s / s.amax(-1, keepdim=True)) @ v
    found = orthogonalize(made)
    values = torch.linalg.svdvals(found)
    assert ((values > 0.5) & (values < 1.5)).all()
    # the singular vectors stay: V' S' V is symmetric
    symmetric = made.mT @ found if rows >= columns else made @ found.mT
    torch.testing.assert_close(symmetric, symmetric.mT, rtol=1e-9, atol=1e-9 * size)


def test_a_gradient_of_zero_moves_nothing_but_the_decay() -> None:
    p = nn.Parameter(torch.ones(3, 2))
    optimizer = MuonAdamW([{"params": [p], "matrices": "single"}], lr=0.1, weight_decay=0.5)
    p.grad = torch.zeros(3, 2)
    optimizer.step()
    torch.testing.assert_close(p.detach(), torch.full((3, 2), 1 - 0.1 * 0.5))


def test_a_parameter_without_a_gradient_has_no_state() -> None:
    p, q = nn.Parameter(torch.ones(3, 2)), nn.Parameter(torch.ones(3, 2))
    optimizer = MuonAdamW([{"params": [p, q], "matrices": "single"}])
    p.grad = torch.ones(3, 2)
    optimizer.step()
    assert set(optimizer.state) == {p}


def test_it_goes_on_from_its_state() -> None:
    def make(start: dict[str, Tensor]) -> tuple[dict[str, nn.Parameter], MuonAdamW]:
        own = {name: nn.Parameter(t.clone()) for name, t in start.items()}
        matrix = {"params": [own["matrix"]], "matrices": "single"}
        return own, MuonAdamW([matrix, {"params": [own["bias"]]}])

    def take(own: dict[str, nn.Parameter], optimizer: MuonAdamW, steps: range) -> None:
        for step in steps:
            for name, p in own.items():
                p.grad = draw(step)[name]
            optimizer.step()

    whole, first = make(draw(0))
    take(whole, first, range(1, 4))
    saved = copy.deepcopy(first.state_dict())
    half, second = make({name: p.detach() for name, p in whole.items()})
    second.load_state_dict(saved)
    take(whole, first, range(4, 7))
    take(half, second, range(4, 7))
    for name in ("matrix", "bias"):
        assert torch.equal(whole[name], half[name])


@pytest.mark.parametrize(
    ("sharing", "encoder", "kinds"),
    [
        (HardSharing, MLP, {"encoder.matrices"}),
        (HardSharing, TabularTransformer, {"encoder.matrices"}),
        (SoftSharing, MLP, {"encoder.stacks"}),
        (PLE, MLP, {"encoder.stacks"}),
    ],
)
def test_matrices_of_encoders_are_groups_apart(
    sharing: Callable[..., Any], encoder: Callable[..., Any], kinds: set[str]
) -> None:
    data = Data()
    model = MultiTaskModel(
        data.tasks,
        data.input_shape,
        partial(encoder, width=8, depth=2),
        sharing,
        optimizer=MuonAdamW,
        lr_multipliers={"encoder": 0.5},
    )
    model.configure_model()
    groups = {group["name"]: group for group in model.parameter_groups(0.1)}
    assert {name for name, group in groups.items() if group.get("matrices")} == kinds
    names = {id(p): name for name, p in model.named_parameters()}
    for kind in kinds:
        assert groups[kind]["lr"] == pytest.approx(0.05)
        for p in groups[kind]["params"]:
            assert names[id(p)].startswith("sharing.")
            assert names[id(p)].endswith("weight")
            assert p.ndim == (3 if kind == "encoder.stacks" else 2)
    elsewhere = [names[id(p)] for name in groups.keys() - kinds for p in groups[name]["params"]]
    assert any(name.startswith("heads.") for name in elsewhere)
    every = [id(p) for group in groups.values() for p in group["params"]]
    assert sorted(every) == sorted(id(p) for p in model.parameters())


def test_kernels_are_matrices() -> None:
    from src.batch import InputShape
    from src.models.optimisation.groups import find_matrices

    shape = InputShape(dense=(1, 8, 8))
    sharing = HardSharing(partial(ConvNet, shape, width=4), ["a"])
    kinds = find_matrices(sharing)
    shapes = [tuple(p.shape) for p in sharing.parameters() if id(p) in kinds]
    assert any(len(found) == 4 for found in shapes)


@pytest.mark.parametrize(
    ("setting", "value"), [("momentum", 1.0), ("momentum", -0.1), ("steps", 0)]
)
def test_bad_settings_are_named(setting: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"MuonAdamW: {setting} {value}"):
        MuonAdamW([nn.Parameter(torch.zeros(1))], **{setting: value})  # type: ignore[arg-type]
