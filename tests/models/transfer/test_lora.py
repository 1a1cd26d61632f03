"""Adapters in encoders: W + (alpha / rank) B A, and nothing else that trains."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from src.balancing import PCGrad, StaticWeights
from src.batch import InputShape
from src.errors import UserError
from src.models import MultiTaskModel
from src.models.encoders import MLP, BiLSTM, ConvNet, Encoder
from src.models.sharing import StackedEncoders
from src.models.transfer.finetune import Finetune, LoRA
from src.models.transfer.lora import (
    is_adapter,
    list_left_out,
    make_adapted,
    merge_adapters,
    strip_adapters,
)
from src.tasks import Regression
from tests.models.test_matrix import SHARINGS
from tests.models.transfer.test_freezing import EACH, Keep, moved
from tests.toy import Toy, bare_trainer

TABLE = InputShape((5,))
IMAGE = InputShape((2, 6, 6))
MAKERS = {
    "MLP": lambda: MLP(TABLE, width=4, depth=1),
    "ConvNet": lambda: ConvNet(IMAGE, width=4, depth=2),
}


def randomise(module):
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, p in module.named_parameters():
            if is_adapter(name):
                p.copy_(0.3 * torch.randn(p.shape, generator=draw))


@pytest.mark.parametrize("kind", MAKERS)
def test_without_a_step_an_encoder_is_as_it_was(kind):
    make = MAKERS[kind]
    torch.manual_seed(0)
    plain = make()
    after = torch.rand(())
    torch.manual_seed(0)
    adapted = make_adapted(make, LoRA(2))
    assert torch.equal(torch.rand(()), after)  # whatever is drawn next is as without adapters
    x = adapted.shape.example(7)
    assert torch.equal(adapted(x), plain(x))
    state = adapted.state_dict()
    stripped = strip_adapters(state)
    assert stripped.keys() == plain.state_dict().keys()
    assert all(torch.equal(stripped[key], value) for key, value in plain.state_dict().items())
    trained = {name for name, p in adapted.named_parameters() if p.requires_grad}
    assert trained == {name for name in state if is_adapter(name)}

    # another encoder of the same model has other adapters
    other = make_adapted(make, LoRA(2))
    downs = [name for name in state if "lora_A" in name]
    assert not any(torch.equal(state[name], other.state_dict()[name]) for name in downs)


def test_a_layer_by_hand():
    encoder = make_adapted(MAKERS["MLP"], LoRA(rank=3, alpha=6.0)).double()
    randomise(encoder)
    layer = encoder.stages[0][1]
    x = torch.randn(9, 5, dtype=torch.float64)
    A = layer.lora_A["default"].weight
    B = layer.lora_B["default"].weight
    assert A.shape == (3, 5)
    W = layer.base_layer.weight + 2.0 * B @ A
    torch.testing.assert_close(layer(x), F.linear(x, W, layer.base_layer.bias), rtol=1e-12, atol=0)


@pytest.mark.parametrize("kind", MAKERS)
def test_merged_weights_do_what_adapters_do(kind):
    adapted = make_adapted(MAKERS[kind], LoRA(rank=2, alpha=3.0)).double()
    randomise(adapted)
    plain = MAKERS[kind]().double()
    plain.load_state_dict(merge_adapters(adapted.state_dict(), alpha=3.0))
    x = adapted.shape.example(7).double()
    torch.testing.assert_close(plain(x), adapted(x), rtol=1e-10, atol=1e-12)
    with pytest.raises(AssertionError):
        torch.testing.assert_close(MAKERS[kind]().double()(x), adapted(x))


def test_stacked_encoders_have_adapters_of_their_own():
    """Layers behind the first may be stacked, and then so are their adapters."""
    adapted = partial(make_adapted, MAKERS["MLP"], LoRA(2, alpha=3.0))
    stacked = StackedEncoders(adapted, 3, first=1, apart=True).double()
    assert stacked.stages is not None
    randomise(stacked)
    plain = StackedEncoders(MAKERS["MLP"], 3, first=1, apart=True).double()
    plain.load_state_dict(merge_adapters(stacked.state_dict(), alpha=3.0))
    x = torch.randn(3, 7, 4, dtype=torch.float64)
    torch.testing.assert_close(stacked(x, True), plain(x, True), rtol=1e-10, atol=1e-12)


def model_of(sharing, balancer=StaticWeights):
    data = Toy()
    encoder = partial(MLP, width=4, depth=1)
    optimizer = partial(torch.optim.AdamW, lr=0.01)
    model = MultiTaskModel(
        data.tasks, data.input_shape, encoder, SHARINGS[sharing], balancer, optimizer=optimizer
    )
    model.finetune = Finetune(lora=LoRA(2, dropout=0.1))
    return model


@pytest.mark.parametrize("sharing", EACH)
def test_adapters_and_heads_train_under_each_architecture(sharing):
    model = model_of(sharing, balancer=partial(PCGrad, level="parameters"))
    plain = model_of(sharing)
    plain.finetune = Finetune()
    plain.configure_model()
    if plain.sharing.reads_weights:
        # its encoders do not run by themselves
        name = f"{sharing.split()[0]} reads the weights of its encoders"
        with pytest.raises(UserError, match=name):
            model.configure_model()
        return
    kept = Keep()
    bare_trainer(1, 1, callbacks=[kept]).fit(model, Toy())
    changed = moved(*kept.epochs)
    adapters = {name for name in kept.epochs[0] if is_adapter(name)}
    bases = {name for name in kept.epochs[0] if ".base_layer." in name}
    assert adapters
    assert adapters <= changed
    assert not changed & bases
    assert {name for name in kept.epochs[0] if name.startswith("heads.")} <= changed


REFUSED = ("SoftSharing", "WeightedSharing", "TaskAdapters")  # in one order for all workers


@pytest.mark.parametrize("sharing", ["HardSharing", "MMoE", "PLE", "MTAN", "CrossStitch", *REFUSED])
def test_which_architectures_are_refused(sharing):
    model = model_of(sharing)
    model.finetune = Finetune()
    model.configure_model()
    assert model.sharing.reads_weights == (sharing in REFUSED)


# -- what adapters do not reach --------------------------------------------------------------------
class Attention(Encoder):
    """Self-attention by torch's own module."""

    def __init__(self, shape, kind):
        super().__init__(shape)
        size = shape.dense[1]
        layer = nn.TransformerEncoderLayer(size, 1, 8, dropout=0.0, batch_first=True)
        self.stages = nn.Sequential(layer if kind == "layer" else Folded(size))
        self.features = size


class Folded(nn.Module):
    """A layer whose weight is read without running it."""

    def __init__(self, size):
        super().__init__()
        self.linear = nn.Linear(size, size)

    def forward(self, x):
        return F.linear(x, self.linear.weight.T)


class Dilated(Encoder):
    """A plain, a dilated and a grouped convolution."""

    def __init__(self, shape):
        super().__init__(shape)
        convs = [
            nn.Conv2d(2, 4, 3),
            nn.Conv2d(4, 4, 1, dilation=2),
            nn.Conv2d(4, 4, 1, groups=2),
        ]
        self.stages = nn.Sequential(*convs, nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()))
        self.features = 4


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: BiLSTM(InputShape(tokens=9), width=4, depth=1), "(LSTM), which adapters do not"),
        (lambda: Attention(InputShape((3, 4)), "layer"), "(MultiheadAttention), which adapters do"),
        (lambda: Attention(InputShape((3, 4)), "folded"), "in stages.0.linear without running"),
    ],
)
def test_weights_that_adapters_do_not_reach_are_refused(make, says):
    with pytest.raises(UserError, match=r"finetune\.lora: ") as error:
        make_adapted(make, LoRA())
    assert says in str(error.value)


def test_convolutions_of_other_kinds_are_left_out():
    adapted = make_adapted(lambda: Dilated(IMAGE), LoRA(2))
    assert list_left_out(adapted) == ["stages.1", "stages.2"]
    assert {name.split(".lora_")[0] for name in adapted.state_dict() if is_adapter(name)} == {
        "stages.0"
    }


def test_an_encoder_without_layers_and_frozen_adapters():
    class Nothing(Encoder):
        def __init__(self, shape):
            super().__init__(shape)
            self.stages = nn.Sequential(nn.LayerNorm(shape.dense[0]))
            self.features = shape.dense[0]

    with pytest.raises(UserError, match="has no linear layer or convolution to adapt"):
        make_adapted(lambda: Nothing(TABLE), LoRA())

    model = MultiTaskModel({"y": Regression(mean=(0.0,), std=(1.0,))}, TABLE)
    model.finetune = Finetune("encoder", lora=LoRA())
    with pytest.raises(UserError, match=r"finetune\.lora: .* all adapters"):
        model.configure_model()
