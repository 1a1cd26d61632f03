import pytest
import torch
from torch import nn

from src.models.sharing import HardSharing
from src.models.sharing.mmoe import MMoE
from src.models.sharing.stacked_encoders import StackedEncoders
from tests.models.sharing.test_gates import ENCODERS, check_contract, example, rows, short

TASKS = ["a", "b", "c"]


def apart(experts: StackedEncoders, inputs):
    """What each expert puts out, from one row at a time."""
    return [[experts(rows(inputs, [b]))[e, 0] for b in range(6)] for e in range(len(experts))]


def test_contract():
    check_contract(lambda encoder, tasks: MMoE(encoder, tasks, experts=2))


@pytest.mark.parametrize("kind", ENCODERS)
def test_each_task_weighs_the_experts_for_each_sample(kind):
    torch.manual_seed(0)
    sharing = MMoE(ENCODERS[kind], TASKS, experts=3).double()
    for p in sharing.gate.parameters():
        nn.init.normal_(p)
    inputs = example(ENCODERS[kind])
    outputs, x, found = apart(sharing.experts, inputs), sharing.read(inputs), sharing(inputs)
    for t, task in enumerate(TASKS):
        for b in range(6):
            logits = [sharing.gate.weight[t, e] @ x[b] + sharing.gate.bias[t, e] for e in range(3)]
            shares = [logit.exp() / sum(other.exp() for other in logits) for logit in logits]
            torch.testing.assert_close(
                found[task][b], sum(shares[e] * outputs[e][b] for e in range(3))
            )


@pytest.mark.parametrize("kind", ENCODERS)
def test_with_one_expert_it_is_hard_sharing(kind):
    torch.manual_seed(5)
    mixture = MMoE(ENCODERS[kind], TASKS, experts=1).double()
    torch.manual_seed(5)
    hard = HardSharing(ENCODERS[kind], TASKS).double()
    inputs = example(ENCODERS[kind])
    for task, z in hard(inputs).items():
        torch.testing.assert_close(mixture(inputs)[task], z, rtol=1e-12, atol=1e-12)


def test_gates_are_nearly_even_at_first():
    torch.manual_seed(0)
    sharing = MMoE(ENCODERS["vector"], TASKS, experts=4).eval()
    sharing(torch.randn(500, 5))
    assert (sharing.observe()["gates"] - 0.25).abs().mean() < 0.02


def test_a_gate_learns_from_its_task_alone():
    sharing = MMoE(ENCODERS["table"], TASKS, experts=2).double()
    gradients = torch.autograd.grad(
        sharing(example(ENCODERS["table"]))["b"].square().sum(), list(sharing.gate.parameters())
    )
    for gradient in gradients:
        assert gradient[1].abs().min() > 0
        assert not gradient[[0, 2]].any()


def test_gates_are_seen_in_evaluation_alone_and_drawn():
    sharing = MMoE(ENCODERS["vector"], TASKS, experts=2).double()
    x = torch.randn(4, 5, dtype=torch.float64)
    sharing(x)
    assert sharing.observe() == {}
    assert (sharing.figures({}), sharing.summary({})) == ({}, [])
    sharing.eval()(x)
    gates = sharing.observe()["gates"]
    torch.testing.assert_close(gates, sharing.gates(x))
    assert not gates.requires_grad
    means = {"gates": torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7]])}
    figures = sharing.figures(means)
    assert list(figures) == ["gates", "load"]
    assert list(figures["gates"].index) == TASKS
    assert figures["gates"].loc["c", "expert 2"] == pytest.approx(0.7)
    assert figures["load"].to_numpy().tolist() == [pytest.approx([0.6, 0.4])]
    assert sharing.summary(means) == ["experts: load 0.60 0.40, coefficient of variation 0.20"]


def test_what_fills_up_a_sequence_does_not_count():
    sharing = MMoE(ENCODERS["words"], TASKS).double()
    inputs = example(ENCODERS["words"])
    for task, z in sharing(short(inputs)).items():
        torch.testing.assert_close(z[:, :-1], sharing(inputs)[task])


@pytest.mark.parametrize("experts", [0, -2])
def test_bad_settings_are_named(experts):
    with pytest.raises(ValueError, match=f"MMoE: experts {experts} must be at least 1"):
        MMoE(ENCODERS["vector"], TASKS, experts=experts)
