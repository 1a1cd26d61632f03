import math

import pytest
import torch
from torch import nn

from src.models.sharing.dselectk import DSelectK
from tests.models.sharing.test_gates import ENCODERS, check_contract, example

TASKS = ["a", "b", "c"]


def smooth_step(z, gamma):
    if z <= -gamma / 2:
        return 0.0
    return 1.0 if z >= gamma / 2 else -2 / gamma**3 * z**3 + 3 / (2 * gamma) * z + 0.5


def selector(bits, gamma, experts):
    """The weight of each expert, by the binary digits of its number."""
    digits = [format(e, f"0{len(bits)}b") for e in range(experts)]
    steps = [smooth_step(z, gamma) for z in bits]
    return [
        math.prod(s if d == "1" else 1 - s for s, d in zip(steps, word, strict=True))
        for word in digits
    ]


def gate(bits, weights, gamma, experts):
    shares = [math.exp(w) / sum(math.exp(v) for v in weights) for w in weights]
    each = [selector(z, gamma, experts) for z in bits]
    return [
        sum(share * r[e] for share, r in zip(shares, each, strict=True)) for e in range(experts)
    ]


@pytest.mark.parametrize("per_example", [False, True])
def test_contract(per_example):
    check_contract(
        lambda encoder, tasks: DSelectK(encoder, tasks, experts=4, per_example=per_example)
    )


@pytest.mark.parametrize(("experts", "k", "gamma"), [(2, 1, 1.0), (8, 2, 0.7), (4, 3, 3.0)])
def test_static_gates_are_the_papers(experts, k, gamma):
    torch.manual_seed(0)
    sharing = DSelectK(ENCODERS["vector"], TASKS, experts, k, gamma).double()
    nn.init.normal_(sharing.bits.bias, std=gamma / 3)
    nn.init.normal_(sharing.weights.bias)
    inputs = example(ENCODERS["vector"])
    outputs, found = sharing.experts(inputs), sharing(inputs)
    for t, task in enumerate(TASKS):
        bits = sharing.bits.bias[t].view(k, -1).tolist()
        expected = gate(bits, sharing.weights.bias[t].tolist(), gamma, experts)
        assert sum(expected) == pytest.approx(1)
        torch.testing.assert_close(
            found[task], sum(expected[e] * outputs[e] for e in range(experts))
        )


@pytest.mark.parametrize("kind", ENCODERS)
def test_each_sample_can_have_its_own_gates(kind):
    torch.manual_seed(0)
    sharing = DSelectK(ENCODERS[kind], TASKS, 4, 2, per_example=True).double()
    for p in [*sharing.bits.parameters(), *sharing.weights.parameters()]:
        nn.init.normal_(p, std=0.3)
    inputs = example(ENCODERS[kind])
    x, outputs, found = sharing.read(inputs), sharing.experts(inputs), sharing(inputs)
    for t, task in enumerate(TASKS):
        for b in range(6):
            bits = (sharing.bits.weight[t] @ x[b] + sharing.bits.bias[t]).view(2, 2).tolist()
            weights = (sharing.weights.weight[t] @ x[b] + sharing.weights.bias[t]).tolist()
            expected = gate(bits, weights, 1.0, 4)
            torch.testing.assert_close(
                found[task][b], sum(expected[e] * outputs[e, b] for e in range(4))
            )


def test_binary_codes_leave_a_task_k_experts():
    sharing = DSelectK(ENCODERS["vector"], TASKS, experts=8, k=2).double()
    codes = torch.tensor([[0, 0, 0, 1, 0, 1], [1, 1, 1, 1, 1, 0], [0, 1, 1, 0, 1, 1]])
    with torch.no_grad():
        sharing.bits.bias.copy_(codes * 2.0 - 1)
        sharing.weights.bias.copy_(torch.tensor([1.0, 2.0]).log().expand(3, 2))
    expected = torch.zeros(3, 8, dtype=torch.float64)
    for t, (first, second) in enumerate([(0, 5), (7, 6), (3, 3)]):
        expected[t, first] += 1 / 3
        expected[t, second] += 2 / 3
    torch.testing.assert_close(sharing.gates(torch.zeros(0)), expected)
    assert sharing.selectors(sharing.bits(None)).sum(-1).eq(1).all()


@pytest.mark.parametrize("gamma", [0.01, 1.0, 50.0])
@pytest.mark.parametrize("per_example", [False, True])
def test_every_parameter_has_a_gradient_at_the_start_and_gates_are_near_even(per_example, gamma):
    torch.manual_seed(0)
    sharing = DSelectK(ENCODERS["table"], TASKS, gamma=gamma, per_example=per_example).double()
    inputs = example(ENCODERS["table"])
    assert (sharing.gates(inputs) - 1 / 8).abs().max() < (0.15 if per_example else 0.02)
    torch.stack(list(sharing(inputs).values())).square().sum().backward()
    for p in [*sharing.bits.parameters(), *sharing.weights.parameters()]:
        assert p.grad.abs().min() > 0


def test_the_penalty_is_the_selectors_entropy_and_drives_them_to_one_expert():
    torch.manual_seed(0)
    sharing = DSelectK(ENCODERS["vector"], TASKS, experts=4, k=2, entropy=0.3).double()
    nn.init.uniform_(sharing.bits.bias, -0.4, 0.4)
    each = [selector(z, 1.0, 4) for row in sharing.bits.bias.tolist() for z in (row[:2], row[2:])]
    expected = -0.3 * sum(r * math.log(r + 1e-6) for rs in each for r in rs)
    assert sharing.penalty().item() == pytest.approx(expected)
    assert [
        name
        for name, p in sharing.named_parameters()
        if torch.autograd.grad(sharing.penalty(), p, allow_unused=True)[0] is not None
    ] == ["bits.bias"]
    optimizer = torch.optim.SGD([sharing.bits.bias], lr=0.3)
    for _ in range(200):
        optimizer.zero_grad()
        sharing.penalty().backward()
        optimizer.step()
    assert sharing.penalty().item() == pytest.approx(0, abs=1e-5)
    torch.testing.assert_close(
        sharing.selectors(sharing.bits(None)).amax(-1), torch.ones(3, 2, dtype=torch.float64)
    )
    assert DSelectK(ENCODERS["vector"], TASKS).penalty() is None


def test_static_gates_are_seen_and_drawn():
    sharing = DSelectK(ENCODERS["vector"], TASKS, experts=2).eval()
    sharing(torch.randn(4, 5))
    gates = sharing.observe()["gates"]
    assert gates.shape == (4, 3, 2)
    assert torch.equal(gates[2], sharing.gates(torch.zeros(0)))
    means = {"gates": gates.mean(0)}
    assert sharing.figures(means)["gates"].shape == (3, 2)
    assert sharing.summary(means)[0].startswith("experts: load 0.5")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"experts": 6}, "DSelectK: experts 6 must be a power of 2"),
        ({"experts": 1}, "DSelectK: experts 1 must be a power of 2"),
        ({"experts": 0}, "DSelectK: experts 0 must be a power of 2"),
        ({"experts": -4}, "DSelectK: experts -4 must be a power of 2"),
        ({"k": 0}, r"DSelectK: k 0 is outside 1 \.\.\. 8"),
        ({"k": 3, "experts": 2}, r"DSelectK: k 3 is outside 1 \.\.\. 2"),
        ({"gamma": 0.0}, "DSelectK: gamma 0.0 must be above 0"),
        ({"entropy": -1.0}, "entropy -1.0 at least 0"),
        ({"entropy": 0.1, "per_example": True}, "DSelectK: entropy 0.1 with per_example"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        DSelectK(ENCODERS["vector"], TASKS, **settings)
