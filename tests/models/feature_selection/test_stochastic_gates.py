"""Stochastic gates: their distribution and penalty, and what is left of a closed input."""

from functools import partial

import numpy as np
import pytest
import torch
from scipy.stats import norm

from src.batch import InputShape
from src.errors import UserError
from src.models import MultiTaskModel
from src.models.encoders import MLP, ConvNet, TabularTransformer
from src.models.encoders.encoder import Encoder
from src.models.feature_selection import StochasticGates
from src.models.sharing import HardSharing, MMoE, Separate
from src.tasks import Regression
from tests.models.test_matrix import SHARINGS

TABLE = InputShape((3,), (4, 2), columns=("age", "age", "hours", "job", "sex"))
TASKS = {name: Regression(mean=(0.0,), std=(1.0,)) for name in "abcd"}
SMALL = partial(MLP, width=4, depth=1)


def build(select=StochasticGates, shape=TABLE, encoder=SMALL, sharing=HardSharing):
    model = MultiTaskModel(TASKS, shape, encoder, sharing, select=select)
    model.configure_model()
    return model


def set_means(selection, means):
    """Sets mu of each task and column."""
    with torch.no_grad():
        selection.own.copy_((torch.as_tensor(means) - 0.5) / selection.speed)


def test_noise_and_penalty_are_as_the_paper_has_them():
    selection = build(partial(StochasticGates, strength={"a": 0.1, "b": 0.2, "c": 0, "d": 1}))
    selection = selection.selection
    means = np.random.default_rng(0).normal(size=(4, 4))
    set_means(selection, means)

    weights = np.array([0.1, 0.2, 0, 1])
    expected = (weights * norm.cdf(means / 0.5).sum(1)).sum()
    assert selection.penalty().item() == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(selection.openness(), norm.cdf(means / 0.5), rtol=1e-5)

    selection.eval()
    np.testing.assert_allclose(selection.gates().detach(), means.clip(0, 1), atol=1e-6)
    selection.train()
    selection.begin_step(0.0, None)
    torch.manual_seed(5)
    drawn = selection.gates().detach().numpy()
    torch.manual_seed(5)
    noise = torch.randn(4, 4, dtype=torch.float64).numpy()
    np.testing.assert_allclose(drawn, (means + 0.5 * noise).clip(0, 1), atol=1e-6)


def test_the_penalty_warms_up_with_epochs():
    selection = build(partial(StochasticGates, strength=0.1, warmup=4)).selection
    whole = 0.1 * 16 * norm.cdf(1)
    for epoch, share in ((0.0, 0.0), (1.0, 0.25), (3.5, 0.875), (4.0, 1.0), (9.0, 1.0)):
        selection.begin_step(epoch, None)
        assert selection.penalty().item() == pytest.approx(share * whole, rel=1e-5)


def test_deviations_of_tasks_are_penalised():
    selection = build(partial(StochasticGates, per="both", strength=0, deviation=0.5)).selection
    deviations = torch.randn(4, 4)
    with torch.no_grad():
        selection.own.copy_(deviations / selection.speed)
        selection.common.fill_(0.1)
    assert selection.penalty().item() == pytest.approx(float(0.5 * deviations.square().sum()))
    torch.testing.assert_close(selection.means(), 1.5 + deviations)


@pytest.mark.parametrize("sharing", ["HardSharing", "Separate", "MMoE", "PLE", "TaskAdapters"])
@pytest.mark.parametrize("encoder", ["MLP", "TabularTransformer"])
def test_a_closed_column_does_not_count_at_all(sharing, encoder):
    make = SMALL if encoder == "MLP" else partial(TabularTransformer, width=8, depth=1, heads=2)
    model = build(encoder=make, sharing=SHARINGS[sharing]).eval()
    # task a reads age and sex, task b hours, c and d all
    set_means(model.selection, [[1, -0.1, -1, 0.7], [-1, 0.5, 0, -2], [1] * 4, [1] * 4])
    rows = TABLE.example(6)
    age, hours, job = ({**rows} for _ in range(3))
    age["dense"] = rows["dense"] + torch.tensor([1.0, 2.0, 0.0])
    hours["dense"] = rows["dense"] + torch.tensor([0.0, 0.0, 1.0])
    job["categorical"] = (rows["categorical"] + torch.tensor([1, 0])) % torch.tensor([4, 2])
    with torch.no_grad():
        before = model(rows)
        changed = {
            name: model(own) for name, own in {"age": age, "hours": hours, "job": job}.items()
        }
    reads = {"a": {"age"}, "b": {"hours"}, "c": {"age", "hours", "job"}}
    for task, columns in reads.items():
        for name, outputs in changed.items():
            assert torch.equal(outputs[task], before[task]) == (name not in columns), (task, name)


def test_each_task_has_the_features_of_its_own_view():
    model = build(sharing=MMoE).eval()
    means = torch.rand(4, 4)
    set_means(model.selection, means)
    rows = TABLE.example(5)
    with torch.no_grad():
        found = model.sharing(rows)
        for t, task in enumerate(TASKS):
            gates = means[t].expand(5, 4)
            own = {
                "dense": rows["dense"] * gates[:, [0, 0, 1]],
                "categorical": rows["categorical"],
                "gates": gates[:, 2:],
            }
            alone = model.selection.architecture(own)[task]
            torch.testing.assert_close(found[task], alone)


def test_shared_gates_keep_one_feature_and_run_the_network_once():
    model = build(partial(StochasticGates, per="shared"))
    features = model.sharing(TABLE.example(3))
    assert model.sharing.one_feature
    assert len({id(z) for z in features.values()}) == 1
    assert next(iter(features.values())).shape == (3, 4)
    assert model.selection.tabulate().shape == (4, 4)


def test_what_the_architecture_observes_is_of_rows():
    model = build(sharing=MMoE).eval()
    with torch.no_grad():
        model.sharing(TABLE.example(5))
    observed = model.sharing.observe()["gates"]
    assert observed.shape[:2] == (5, 4)
    torch.testing.assert_close(observed.sum(-1), torch.ones(5, 4, dtype=torch.float64))


def test_channels_of_images_have_gates():
    shape = InputShape((3, 8, 8))
    model = build(shape=shape, encoder=partial(ConvNet, width=8, depth=1), sharing=Separate).eval()
    set_means(model.selection, [[1.0, -1.0, 1.0]] * 4)
    images = shape.example(4)
    other = images.clone()
    other[:, 1] += 3
    with torch.no_grad():
        assert torch.equal(model(images)["b"], model(other)["b"])
        other[:, 2] += 3
        assert not torch.equal(model(images)["b"], model(other)["b"])


class Deaf(Encoder):
    """An encoder that does not listen to the gates of categories."""

    def __init__(self, shape):
        super().__init__(shape)
        self.stages = torch.nn.Sequential(Codes())
        self.features = 2


class Codes(torch.nn.Module):
    """Categories as numbers."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 2)

    def forward(self, inputs):
        """Returns a linear map of the codes."""
        return self.layer(inputs["categorical"].float())


def test_an_encoder_that_reads_closed_inputs_is_refused():
    with pytest.raises(
        UserError, match=r"HardSharing and this encoder task 'a' .* inputs\['gates'\]"
    ):
        build(encoder=Deaf)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"strength": -1.0}, "strength is -1.0"),
        ({"strength": {"a": 1.0, "x": 2.0}}, "'x', which is no task"),
        ({"strength": {"a": 1.0}}, "leaves out b, c, d"),
        ({"strength": {"a": 1.0, "b": -1, "c": 1, "d": 1}}, "strength.b is -1"),
        ({"per": "shared", "strength": dict.fromkeys("abcd", 1.0)}, "gates are shared"),
        ({"per": "row"}, "per 'row'"),
        ({"sigma": 0.0}, "sigma 0.0"),
        ({"speed": -1.0}, "speed -1.0"),
        ({"warmup": -1.0}, "warmup -1.0"),
        ({"deviation": float("nan")}, "deviation nan"),
    ],
)
def test_bad_settings_are_refused(settings, words):
    with pytest.raises(UserError, match=words):
        build(partial(StochasticGates, **settings))


def test_it_is_no_architecture():
    with pytest.raises(UserError, match=r"set --model\.select StochasticGates"):
        build(select=None, sharing=StochasticGates)
