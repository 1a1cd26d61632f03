"""Parts of networks by their names."""

from functools import partial

import pytest

from src.errors import UserError
from src.models import MultiTaskModel
from src.models.encoders import MLP
from src.models.transfer.parts import list_names, select_parameters
from tests.models.test_matrix import SHARINGS
from tests.models.transfer.test_freezing import EACH
from tests.toy import Toy


def build(sharing="HardSharing"):
    data = Toy()
    encoder = partial(MLP, width=4, depth=2)
    model = MultiTaskModel(data.tasks, data.input_shape, encoder, SHARINGS[sharing])
    model.configure_model()
    return model


@pytest.mark.parametrize("sharing", EACH)
def test_encoder_and_others_are_the_architecture(sharing):
    model = build(sharing)
    everything = {name for name, _ in model.named_parameters()}
    encoder = select_parameters(model, "encoder", "")
    assert encoder
    assert encoder <= select_parameters(model, "sharing", "")
    heads = select_parameters(model, "heads", "")
    assert heads == {name for name in everything if name.startswith("heads.")}
    each = [select_parameters(model, f"heads.{task}", "") for task in model.tasks]
    assert set.union(*each) == heads
    assert sum(map(len, each)) == len(heads)
    # each name that is listed is one
    for name in list_names(model):
        assert select_parameters(model, name, "")


@pytest.mark.parametrize("sharing", ["HardSharing", "Groups", "MMoE", "CrossStitch", "MTAN"])
def test_stages_are_those_of_all_encoders(sharing):
    model = build(sharing)
    names = [f"stages.{k}" for k in range(3)]
    stages = [select_parameters(model, name, "") for name in names]
    assert not set.intersection(*stages)
    assert set.union(*stages) == select_parameters(model, "encoder", "")
    assert select_parameters(model, "encoder.stages.1", "") == stages[1]


def test_modules_go_by_their_paths():
    model = build("MMoE")
    gates = select_parameters(model, "gate", "")
    assert gates == select_parameters(model, "sharing.gate", "")
    assert gates | select_parameters(model, "encoder", "") == select_parameters(
        model, "sharing", ""
    )
    model = build()
    layer = select_parameters(model, "encoder.stages.1.body.1", "")
    assert layer == {
        "sharing.encoder.stages.1.body.1.weight",
        "sharing.encoder.stages.1.body.1.bias",
    }


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("enccoder", "did you mean 'encoder'?"),
        ("heads.numbr", "did you mean 'heads.number'?"),
        ("stages.9", "did you mean 'stages."),
        ("", "there are encoder, stages.0"),
        ("stages", "did you mean 'stages."),
    ],
)
def test_a_name_of_no_part(name, hint):
    with pytest.raises(UserError, match=r"finetune\.freeze names") as error:
        select_parameters(build(), name, "finetune.freeze")
    assert hint in str(error.value)
