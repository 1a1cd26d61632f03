"""HydraLoRA, LoRAExperts and PaLoRA against networks with explicit weights, in float64."""

import copy
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call

from src.batch import InputShape
from src.models.encoders import MLP, BiLSTM, ConvNet, MessagePassing, ResNet, Transformer
from src.models.sharing import HardSharing, HydraLoRA, LoRAExperts, PaLoRA, check_owners
from src.models.sharing.low_rank import DropoutOfCopies, repeat_rows

ENCODERS = {
    "MLP": (partial(MLP, width=4, depth=1), InputShape((5,))),
    "table": (partial(MLP, width=4, depth=1), InputShape((3,), (4, 2))),
    "ConvNet": (partial(ConvNet, width=4, depth=2), InputShape((2, 6, 6))),
    "ResNet": (partial(ResNet, width=2), InputShape((2, 12, 12))),
    "Transformer": (partial(Transformer, width=4, depth=2, heads=2), InputShape(tokens=9, parts=5)),
    "gine": (partial(MessagePassing, width=4, depth=1), InputShape(nodes=3, edges=2)),
    "gat": (
        partial(MessagePassing, width=4, depth=1, layer="gat", heads=2),
        InputShape(nodes=3, edges=2),
    ),
}
TASKS = ["a", "b", "c"]
KINDS = {
    "HydraLoRA": partial(HydraLoRA, experts=2, rank=2, scale=0.7),
    "LoRAExperts": partial(LoRAExperts, experts=2, rank=2, scale=0.7),
    "PaLoRA": partial(PaLoRA, rank=2, scale=0.7),
}
EVERY = pytest.mark.parametrize("kind", list(KINDS))


def in_double(inputs):
    if isinstance(inputs, torch.Tensor):
        return inputs.double()
    return {k: v.double() if v.is_floating_point() else v for k, v in inputs.items()}


def made(kind, encoder="MLP", moved=True, tasks=TASKS):
    make, shape = ENCODERS[encoder]
    torch.manual_seed(0)
    sharing = KINDS[kind](partial(make, shape), tasks).double()
    if moved:
        with torch.no_grad():
            for p in sharing.terms.parameters():
                p.copy_(torch.randn(p.shape))
            for name, p in sharing.named_parameters():
                if name == "logits":
                    p.copy_(torch.randn(p.shape))
    return sharing, in_double(shape.example(4))


def plain(encoder):
    """The same encoder without any term."""
    make, shape = ENCODERS[encoder]
    torch.manual_seed(0)
    return make(shape).double()


@EVERY
@pytest.mark.parametrize("encoder", list(ENCODERS))
def test_it_begins_as_hard_sharing(kind, encoder):
    sharing, inputs = made(kind, encoder, moved=False)
    features = sharing(inputs)
    z = plain(encoder)(inputs)
    for own in features.values():
        torch.testing.assert_close(own, z, rtol=1e-10, atol=1e-12)
    assert (features["a"] is features["b"]) == sharing.one_feature

    # and the encoder has the gradients of hard sharing
    sum(own.square().sum() for own in features.values()).backward()
    make, shape = ENCODERS[encoder]
    torch.manual_seed(0)
    hard = HardSharing(partial(make, shape), TASKS).double()
    sum(own.square().sum() for own in hard(inputs).values()).backward()
    for (name, p), q in zip(
        sharing.encoder.named_parameters(), hard.encoder.parameters(), strict=True
    ):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-9, atol=1e-11, msg=name)


def changed(encoder, sharing, weights):
    """The plain encoder with W + s sum_e weights_e B_e A_e in place of each W.

    weights: {key of a layer: (E,)}.
    """
    theta = dict(encoder.named_parameters())
    for path, layer in encoder.stages.named_modules():
        key = path.replace(".", "_")
        if key not in sharing.terms:
            continue
        term = sharing.terms[key]
        downs = term.down.expand(len(term.up), -1, -1)
        products = torch.einsum("eor,eri->eoi", term.up, downs)
        change = term.scale * torch.einsum("e,eoi->oi", weights[key], products)
        theta[f"stages.{path}.weight"] = layer.weight + change.view_as(layer.weight)
    return theta


@pytest.mark.parametrize("encoder", list(ENCODERS))
def test_experts_are_changes_of_the_weights(encoder):
    sharing, inputs = made("LoRAExperts", encoder)
    gates = sharing.logits.softmax(-1)
    one = plain(encoder)
    for t, z in enumerate(sharing(inputs).values()):
        weights = {key: gates[t, stage] for key, stage in sharing.stages.items()}
        wanted = functional_call(one, changed(one, sharing, weights), (inputs,))
        torch.testing.assert_close(z, wanted, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("encoder", list(ENCODERS))
@pytest.mark.parametrize("preference", [[1.0, 0.0, 0.0], [0.2, 0.5, 0.3]])
def test_a_preference_moves_the_weights_between_the_tasks(encoder, preference):
    sharing, inputs = made("PaLoRA", encoder)
    sharing.eval()
    sharing.prefer(dict(zip(TASKS, preference, strict=True)))
    one = plain(encoder).eval()
    p = torch.tensor(preference, dtype=torch.float64)
    theta = changed(one, sharing, dict.fromkeys(sharing.terms, p))
    torch.testing.assert_close(
        sharing(inputs)["b"], functional_call(one, theta, (inputs,)), rtol=1e-9, atol=1e-10
    )


@pytest.mark.parametrize("encoder", ["MLP", "table"])
def test_hydra_gates_read_each_row_and_layer(encoder):
    sharing, inputs = made("HydraLoRA", encoder)
    features = sharing(inputs)
    one = plain(encoder)
    for t, task in enumerate(TASKS):
        for row in range(4):
            only = repeat_rows(
                {k: v[row : row + 1] for k, v in inputs.items()}
                if isinstance(inputs, dict)
                else inputs[row : row + 1],
                1,
            )
            # layer by layer, since the gates of a layer read what those before it put out
            weights = {}
            for path, layer in one.stages.named_modules():
                key = path.replace(".", "_")
                if key not in sharing.terms:
                    continue
                seen = []
                hook = layer.register_forward_pre_hook(lambda _, x, seen=seen: seen.append(x[0]))
                weights[key] = torch.zeros(2, dtype=torch.float64)
                every = dict.fromkeys(sharing.terms, torch.zeros(2, dtype=torch.float64)) | weights
                functional_call(one, changed(one, sharing, every), (only,))
                hook.remove()
                weights[key] = (seen[0][0] @ sharing.terms[key].router[t]).softmax(-1)
            wanted = functional_call(one, changed(one, sharing, weights), (only,))
            torch.testing.assert_close(features[task][row], wanted[0], rtol=1e-9, atol=1e-10)


def test_hydra_gates_of_images_and_tokens():
    sharing, _ = made("HydraLoRA", "ConvNet")
    x = torch.randn(3 * 4, 2, 6, 6, dtype=torch.float64)
    gates = sharing.gates("0_0", x).view(3, 4, -1)
    router = sharing.terms["0_0"].router
    wanted = torch.einsum("tbc,tce->tbe", x.mean((-2, -1)).view(3, 4, 2), router).softmax(-1)
    torch.testing.assert_close(gates, wanted)

    sharing, _ = made("HydraLoRA", "Transformer")
    key = next(key for key, stage in sharing.stages.items() if stage == 1)
    x = torch.randn(3 * 4, 5, 4, dtype=torch.float64)
    assert sharing.gates(key, x).shape == (12, 5, 2)


@EVERY
@pytest.mark.parametrize("encoder", list(ENCODERS))
@pytest.mark.parametrize("tasks", [TASKS, ["a"]])
def test_owners(kind, encoder, tasks):
    sharing, _ = made(kind, encoder, moved=False, tasks=tasks)
    check_owners(sharing.float(), ENCODERS[encoder][1].example())


@EVERY
def test_a_frozen_encoder_leaves_the_terms_to_train(kind):
    sharing, inputs = made(kind)
    sharing.encoder.requires_grad_(False)
    sum(z.square().sum() for z in sharing(inputs).values()).backward()
    check_owners(sharing.float(), ENCODERS["MLP"][1].example())
    for p in sharing.terms.parameters():
        assert p.grad is not None
        assert p.grad.any()
    assert all(p.grad is None for p in sharing.encoder.parameters())


@EVERY
def test_names_of_the_encoder_are_those_of_hard_sharing(kind):
    sharing, _ = made(kind)
    make, shape = ENCODERS["MLP"]
    hard = HardSharing(partial(make, shape), TASKS).state_dict()
    ours = sharing.state_dict()
    assert hard.keys() <= ours.keys()
    assert {name.split(".")[0] for name in ours.keys() - hard.keys()} <= {"terms", "logits"}


@EVERY
def test_a_copy_runs_by_its_own_weights(kind):
    sharing, inputs = made(kind)
    other = copy.deepcopy(sharing)
    with torch.no_grad():
        for p in other.terms.parameters():
            p.zero_()
    torch.testing.assert_close(other(inputs)["c"], plain("MLP")(inputs), rtol=1e-10, atol=1e-12)
    assert not torch.equal(sharing(inputs)["c"], other(inputs)["c"])


@EVERY
def test_recomputed_stages_have_the_same_gradients(kind):
    found = []
    for recompute in (False, True):
        sharing, inputs = made(kind)
        sharing.encoder.recompute = recompute
        sum(z.square().sum() for z in sharing(inputs).values()).backward()
        found.append([p.grad for p in sharing.parameters()])
    for a, b in zip(*found, strict=True):
        assert torch.equal(a, b)


def test_masks_of_copies_differ_and_belong_to_the_row():
    layer = DropoutOfCopies(0.5, 2)
    x = torch.ones(2 * 64, 32)
    torch.manual_seed(1)
    y = layer(x).unflatten(0, (2, -1))
    assert not torch.equal(y[0], y[1])
    assert float((y > 0).double().mean()) == pytest.approx(0.5, abs=0.03)

    # the rows of a smaller batch are those of a larger one
    torch.manual_seed(1)
    fewer = layer(x[: 2 * 16]).unflatten(0, (2, -1))
    assert torch.equal(fewer, y[:, :16])


def test_stages_below_the_first_term_run_once():
    class Flat(MLP):
        def __init__(self, shape):
            super().__init__(shape, width=4, depth=1)
            self.seen = []
            start = nn.Flatten()
            start.register_forward_hook(lambda *_: self.seen.append(len(_[2])))
            self.stages = nn.Sequential(start, *self.stages)

    sharing = LoRAExperts(partial(Flat, InputShape((5,))), TASKS)
    assert sharing.first == 1
    sharing.encoder.seen.clear()
    sharing(torch.randn(4, 5))
    assert sharing.encoder.seen == [4]


def test_gates_are_shown():
    sharing, inputs = made("LoRAExperts")
    figures = sharing.figures({})
    assert list(figures) == ["gates of stage 1", "gates of stage 2"]
    np.testing.assert_allclose(figures["gates of stage 1"].sum(axis=1), 1)
    assert list(figures["gates of stage 1"].index) == TASKS

    hydra, inputs = made("HydraLoRA", "Transformer")
    assert hydra(inputs)
    assert hydra.observe() == {}
    hydra.eval()(inputs)
    seen = hydra.observe()
    assert seen["gates of stage 2"].shape == (4, 3, 2)
    torch.testing.assert_close(seen["gates of stage 2"].sum(-1), torch.ones(4, 3).double())
    means = {name: values.mean(0) for name, values in seen.items()}
    assert hydra.figures(means)["gates of stage 2"].shape == (3, 2)
    assert hydra.summary(means)[-1].startswith("stage 3: load 0.")


def test_gates_of_padding_do_not_count():
    hydra, inputs = made("HydraLoRA", "Transformer")
    hydra.eval()(inputs)
    before = hydra.observe()["gates of stage 2"]
    longer = {
        name: torch.cat([values, torch.zeros_like(values[:, :2])], 1)
        for name, values in inputs.items()
    }
    hydra(longer)
    torch.testing.assert_close(hydra.observe()["gates of stage 2"], before)


# -- preferences -----------------------------------------------------------------------------------
def test_preferences_are_functions_of_the_key_and_uniform():
    sharing, _ = made("PaLoRA")
    drawn = torch.stack([sharing.draw_preference(key, float) for key in range(4000)])
    assert torch.equal(drawn[7], sharing.draw_preference(7, float))
    torch.testing.assert_close(sharing.drawn_T, drawn[7])
    torch.testing.assert_close(drawn.sum(1), torch.ones(4000).double())
    # the variance of each entry of a uniform point on the simplex of three is 1/18
    np.testing.assert_allclose(drawn.mean(0), 1 / 3, atol=0.02)
    np.testing.assert_allclose(drawn.var(0), 1 / 18, rtol=0.08)


def test_annealing_begins_at_the_even_preference():
    make, shape = ENCODERS["MLP"]
    sharing = PaLoRA(partial(make, shape), TASKS, annealing=2.0)
    even = sharing.draw_preference(3, lambda: 0.0)
    np.testing.assert_allclose(even, 1 / 3)
    plain = PaLoRA(partial(make, shape), TASKS).draw_preference(3, float)
    half = sharing.draw_preference(3, lambda: 0.5)
    np.testing.assert_allclose(half, plain)
    squares = sharing.draw_preference(3, lambda: 1.0)
    np.testing.assert_allclose(squares, plain**2 / (plain**2).sum())


def test_training_and_evaluation_have_preferences_of_their_own():
    sharing, inputs = made("PaLoRA")
    sharing.prefer({"a": 0.0, "b": 0.0, "c": 1.0})
    sharing.draw_preference(1, float)
    trained = sharing(inputs)["a"]
    evaluated = sharing.eval()(inputs)["a"]
    assert not torch.allclose(trained, evaluated)
    assert "drawn_T" not in sharing.state_dict()


# -- what cannot be right --------------------------------------------------------------------------
@EVERY
def test_recurrent_encoders_are_refused(kind):
    shape = InputShape(tokens=9, parts=5)
    make = partial(BiLSTM, shape, width=4, depth=1)
    with pytest.raises(ValueError, match=f"{kind} adds terms .* BiLSTM is recurrent: use"):
        KINDS[kind](make, TASKS)


def test_edges_in_another_order_have_no_term():
    sharing, _ = made("LoRAExperts", "gat")
    assert not [key for key in sharing.terms if "edge" in key]
    assert "1_0_layer_lin_l" in sharing.terms or "1_layer_lin_l" in sharing.terms
    assert [key for key in made("LoRAExperts", "gine")[0].terms if key.endswith("layer_lin")]


def test_layers_that_do_not_see_rows_are_left_out_and_none_is_refused():
    class Odd(MLP):
        """Its only linear layer reads positions, not rows."""

        def __init__(self, shape):
            super().__init__(shape, width=5, depth=0)
            self.stages = nn.Sequential(Positions())

    class Positions(nn.Module):
        def __init__(self):
            super().__init__()
            self.project = nn.Linear(5, 5)

        def forward(self, x):
            return x + self.project(torch.eye(5))[0]

    with pytest.raises(ValueError, match="Odd has none: use another encoder"):
        LoRAExperts(partial(Odd, InputShape((5,))), TASKS)
    assert len(PaLoRA(partial(Odd, InputShape((5,))), TASKS).terms) == 1


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (HydraLoRA, {"experts": 0}, "HydraLoRA: experts 0 and rank 4 must be at least 1"),
        (LoRAExperts, {"rank": 0}, "experts 4 and rank 0"),
        (LoRAExperts, {"scale": 0.0}, "scale 0.0 must be above 0"),
        (PaLoRA, {"concentration": 0.0}, "concentration 0.0 must be above 0"),
        (PaLoRA, {"annealing": -1.0}, "annealing -1.0 must be above 0"),
    ],
)
def test_bad_settings_are_named(kind, settings, message):
    make, shape = ENCODERS["MLP"]
    with pytest.raises(ValueError, match=message):
        kind(partial(make, shape), TASKS, **settings)
